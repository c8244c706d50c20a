#!/usr/bin/env python3
"""Times PyTorch's ways to attend with grouped heads: one query token, bf16 KV, one Llama-3.1-8B layer."""

import sys

import common
from common import GROUP, HEAD_DIM, HEADS, KV_HEADS, SCALE

try:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa
except ImportError as error:
    sys.exit(f"PyTorch with SDPA is not installed ({error}); run: pip install torch==2.15.0")


def matmul(query, keys, values):
    """The group's queries are the rows of one matrix per kv head."""
    weights = torch.softmax((query.view(KV_HEADS, GROUP, HEAD_DIM) * SCALE) @ keys.mT, dim=-1)
    return weights @ values


def matmul_keys_first(query, keys, values):
    """The same with the keys as the left matrix, which PyTorch multiplies with other code."""
    scores = keys @ (query.view(KV_HEADS, GROUP, HEAD_DIM) * SCALE).mT
    return torch.softmax(scores.mT, dim=-1) @ values


def matmul_in_parts(query, keys, values, parts=16):
    """The same with the tokens of a head in parts, so that there is one matrix for each."""
    query = query.view(KV_HEADS, 1, GROUP, HEAD_DIM) * SCALE
    scores = query @ keys.view(KV_HEADS, parts, -1, HEAD_DIM).mT
    weights = torch.softmax(scores.transpose(1, 2).reshape(KV_HEADS, GROUP, -1), dim=-1)
    weights = weights.view(KV_HEADS, GROUP, parts, -1).transpose(1, 2)
    return (weights @ values.view(KV_HEADS, parts, -1, HEAD_DIM)).sum(1)


def sdpa_folded(query, keys, values):
    """The group's queries stand where query positions do."""
    return sdpa(query.view(1, KV_HEADS, GROUP, HEAD_DIM), keys[None], values[None])


def sdpa_enable_gqa(query, keys, values):
    """PyTorch 2.5 and later."""
    return sdpa(query.view(1, HEADS, 1, HEAD_DIM), keys[None], values[None], enable_gqa=True)


def repeat_kv_sdpa(query, keys, values):
    """What Hugging Face's transformers run: every kv head copied once per query head."""
    repeated = [rows[:, None].expand(-1, GROUP, -1, -1).reshape(1, HEADS, -1, HEAD_DIM) for rows in (keys, values)]
    return sdpa(query.view(1, HEADS, 1, HEAD_DIM), *repeated)


EXPRESSIONS = {
    "matmul-softmax-matmul, group folded": matmul,
    "matmul-softmax-matmul, group folded, keys first": matmul_keys_first,
    "matmul-softmax-matmul, group folded, tokens in parts": matmul_in_parts,
    "SDPA, group folded": sdpa_folded,
    "SDPA, enable_gqa": sdpa_enable_gqa,
    "repeat_kv + SDPA": repeat_kv_sdpa,
}


def main():
    options = common.parser(__doc__)
    options.add_argument("--repeat-kv", action="store_true", help="also repeat_kv + SDPA, which takes seconds a run")
    options = options.parse_args()
    torch.set_num_threads(options.threads)
    rows = torch.from_numpy(common.random_rows()).bfloat16().view(torch.uint8).numpy()
    query = torch.from_numpy(common.random_queries()).bfloat16()
    for tokens in options.tokens:
        memory = torch.from_numpy(common.kv_buffer(rows, tokens, options.kv_mib)).view(torch.bfloat16)
        caches = memory.view(-1, 2, KV_HEADS, tokens, HEAD_DIM)
        heads = [[rows.float().numpy() for rows in kind] for kind in caches[0]]
        reference = common.attention(query.float().numpy(), heads[0].__getitem__, heads[1].__getitem__)
        del heads
        for name, expression in EXPRESSIONS.items():
            if expression is repeat_kv_sdpa and not options.repeat_kv:
                continue
            try:
                output = expression(query, *caches[0])
            except TypeError:  # this PyTorch has no enable_gqa
                continue
            error = common.check(name, output.float().view(HEADS, HEAD_DIM).numpy(), reference)
            samples = 3 if expression is repeat_kv_sdpa else options.samples
            times = common.sample(lambda run: expression(query, *caches[run % len(caches)]), options.seconds, samples)
            common.emit("PyTorch", torch.__version__, "bf16", name, tokens, options.threads, times, error)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
