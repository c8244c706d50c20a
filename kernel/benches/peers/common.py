"""What the scripts share: the layer's shape, memory for KV rows, the reference, timing, options and output."""

import argparse
import json
import mmap
import os
import statistics
import sys
import time

try:
    import numpy as np
except ImportError:
    sys.exit("numpy is not installed; run: pip install numpy")

# One attention layer of Llama-3.1-8B, one query token.
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
GROUP = HEADS // KV_HEADS
SCALE = HEAD_DIM**-0.5
LAYERS = 32
CONTEXTS = [8192, 32768, 131072]
# Rows made of random numbers; buffers repeat them. Prime, so that no two heads and no two caches start alike.
DISTINCT_ROWS = 65537


def parser(description):
    """The options of every peer."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--tokens", type=context, nargs="+", default=CONTEXTS, help="context lengths")
    options.add_argument("--threads", type=int, default=available_threads(), help="threads to use")
    options.add_argument("--seconds", type=float, default=1.5, help="how long to sample each expression, at least")
    options.add_argument("--samples", type=int, default=15, help="how often to run each expression, at least")
    options.add_argument(
        "--kv-mib", type=int, default=512,
        help="memory of the KV caches that are gone through in turn, so that none stays in the processor's caches; "
        "0 for one cache, however small",
    )  # fmt: skip
    return options


def context(text):
    """A context's length: llama.cpp pads its KV cache to multiples of 256, too."""
    tokens = int(text)
    if tokens <= 0 or tokens % 256 != 0:
        raise argparse.ArgumentTypeError(f"{tokens} is not a positive multiple of 256")
    return tokens


def available_threads():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def buffer(size):
    """Zeroed bytes that start on a page, on huge pages where the system has them, as the KV rows of a2ats-kernel do."""
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


def kv_buffer(rows, tokens, kv_mib):
    """Caches of `tokens` tokens, as many as fill `kv_mib` but no more than a model has layers.

    Bytes of shape [caches, keys or values, rows x row's bytes].

    `rows` are the bytes of DISTINCT_ROWS rows of one head; the buffer repeats them, which touches all of it.
    """
    cache = 2 * KV_HEADS * tokens * rows.shape[1]
    caches = min(max(1, -(-(kv_mib << 20) // cache)), LAYERS)
    memory = buffer(caches * cache)
    source = rows.reshape(-1)
    for start in range(0, memory.size, source.size):
        part = memory[start : start + source.size]
        part[:] = source[: part.size]
    return memory.reshape(caches, 2, -1)


def random_rows():
    return np.random.default_rng(1).standard_normal((DISTINCT_ROWS, HEAD_DIM), np.float32)


def random_queries():
    return np.random.default_rng(2).standard_normal((HEADS, HEAD_DIM), np.float32)


def attention(queries, keys_of, values_of):
    """The reference: [HEADS, HEAD_DIM] from queries of that shape and functions from kv head to [tokens, HEAD_DIM]."""
    output = np.empty((HEADS, HEAD_DIM))
    for head in range(KV_HEADS):
        group = slice(head * GROUP, (head + 1) * GROUP)
        scores = (queries[group] @ keys_of(head).T).astype(np.float64) * SCALE
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        output[group] = weights.astype(np.float32) @ values_of(head)
    return output


def check(name, output, reference, tolerance=0.1):
    """The error relative to the reference's norm; ends the program where it is not one of rounding."""
    error = float(np.linalg.norm(output - reference) / np.linalg.norm(reference))
    if not error < tolerance:
        sys.exit(f"{name}: wrong output, its error is {error:.3g} of the reference's norm")
    return error


def sample(run, seconds, samples):
    """Best and median time of run(i), i = 0, 1, ..."""
    run(0)
    times = []
    start = time.perf_counter()
    while len(times) < samples or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run(len(times) + 1)
        times.append(time.perf_counter() - before)
    return min(times), statistics.median(times)


def emit(peer, version, kv, expression, tokens, threads, times, error):
    """Prints a measurement as a line of JSON."""
    line = {
        "peer": peer, "version": version, "kv": kv, "expression": expression, "tokens": tokens, "threads": threads,
        "seconds": times[0], "median_seconds": times[1], "error": error,
    }  # fmt: skip
    print(json.dumps(line), flush=True)
