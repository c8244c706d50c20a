#!/usr/bin/env python3
"""Times ggml_flash_attn_ext on the CPU, as llama.cpp and ik_llama.cpp decode with it: one query token, one
Llama-3.1-8B layer. Drives the shared library, libggml, of an installed package or of a build from source."""

import ctypes
import importlib.metadata
import importlib.util
import sys
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import common
from common import HEAD_DIM, HEADS, KV_HEADS, SCALE, np

PEERS = ["llama.cpp", "ik_llama.cpp"]
TYPES = {"f16": 1, "q8_0": 8, "bf16": 30}
F32, F16 = 0, 1
# Some versions want the mask padded to so many query rows; only the first is read.
MASK_ROWS = 64


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


# Only functions that take no structure whose layout differs between versions.
SIGNATURES = {
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_row_size": (c_size_t, [c_int, c_int64]),
    "ggml_quantize_chunk": (
        c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, POINTER(c_float)],
    ),
    "ggml_new_tensor_3d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64]),
    "ggml_permute": (c_void_p, [c_void_p, c_void_p, c_int, c_int, c_int, c_int]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p] * 5 + [c_float] * 3),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_backend_cpu_init": (c_void_p, []),
    "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
    "ggml_backend_cpu_buffer_from_ptr": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_tensor_alloc": (c_int, [c_void_p, c_void_p, c_void_p]),
    "ggml_backend_view_init": (c_int, [c_void_p]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
}  # fmt: skip


def find(peer, library):
    """The library's path, and the version of the package that it came with."""
    if library:
        folder, version = Path(library), None
    elif peer == "llama.cpp":
        spec = importlib.util.find_spec("llama_cpp")
        if spec is None:
            sys.exit(
                "llama.cpp is not installed; name its shared library with --library, or run\n"
                "pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36"
            )
        folder, version = Path(spec.origin).parent / "lib", importlib.metadata.version("llama-cpp-python")
        version = f"llama-cpp-python {version}"
    else:
        sys.exit(f"name {peer}'s shared library with --library; README.md says how it is built")
    if not folder.is_dir():
        return folder, version
    for name in ("libggml.so", "libggml.dylib"):
        if (folder / name).exists():
            return folder / name, version
    sys.exit(f"{folder} has neither libggml.so nor libggml.dylib")


class Ggml:
    """The library's functions by name, and its backend for the CPU."""

    def __init__(self, path, threads):
        try:
            library = ctypes.CDLL(str(path.resolve()))
        except OSError as error:
            sys.exit(f"{path} cannot be loaded: {error}")
        for name, (result, arguments) in SIGNATURES.items():
            try:
                function = getattr(library, name)
            except AttributeError:
                sys.exit(f"{path} has no {name}: it is not ggml's, or was built with GGML_BACKEND_DL")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.version = None
        if hasattr(library, "ggml_version"):
            library.ggml_version.restype = c_char_p
            self.version = "ggml " + library.ggml_version().decode()
        self.ggml_free(self.context())  # the first one fills ggml's tables
        self.backend = self.ggml_backend_cpu_init()
        self.ggml_backend_cpu_set_n_threads(self.backend, threads)

    def context(self):
        """Room for a graph and its tensors, but for no tensor's data."""
        return self.ggml_init(InitParams(1 << 20, None, True)) or sys.exit("ggml_init failed")

    def quantize(self, kind, rows):
        """The bytes of f32 rows in one of ggml's types, one row each."""
        output = np.empty((len(rows), self.ggml_row_size(TYPES[kind], HEAD_DIM)), np.uint8)
        self.ggml_quantize_chunk(TYPES[kind], rows.ctypes.data, output.ctypes.data, 0, len(rows), HEAD_DIM, None)
        return output


class Step:
    """The graph of one attention operation on one KV cache."""

    def __init__(self, ggml, kind, layout, cache, tokens, query, mask, output):
        self.ggml, self.memory, self.buffers = ggml, (cache, query, mask, output), []
        self.context = ggml.context()
        tensors = [self.rows(kind, layout, rows, tokens) for rows in cache]
        result = ggml.ggml_flash_attn_ext(
            self.context,
            self.tensor(F32, (HEAD_DIM, 1, HEADS), query),
            *tensors,
            self.tensor(F16, (tokens, MASK_ROWS, 1), mask),
            SCALE,
            0.0,
            0.0,
        )
        self.place(result, output)
        self.graph = ggml.ggml_new_graph(self.context)
        ggml.ggml_build_forward_expand(self.graph, result)

    def rows(self, kind, layout, memory, tokens):
        """Keys or values as flash attention takes them, [HEAD_DIM, tokens, KV_HEADS], the first index the fastest."""
        if layout == "by head":
            return self.tensor(TYPES[kind], (HEAD_DIM, tokens, KV_HEADS), memory)
        tensor = self.tensor(TYPES[kind], (HEAD_DIM, KV_HEADS, tokens), memory)
        view = self.ggml.ggml_permute(self.context, tensor, 0, 2, 1, 3)
        self.ggml.ggml_backend_view_init(view)
        return view

    def tensor(self, kind, shape, memory):
        tensor = self.ggml.ggml_new_tensor_3d(self.context, kind, *shape)
        self.place(tensor, memory)
        return tensor

    def place(self, tensor, memory):
        address = memory.ctypes.data
        buffer = self.ggml.ggml_backend_cpu_buffer_from_ptr(address, memory.nbytes)
        self.ggml.ggml_backend_tensor_alloc(buffer, tensor, address)
        self.buffers.append(buffer)

    def run(self):
        if self.ggml.ggml_backend_graph_compute(self.ggml.backend, self.graph) != 0:
            sys.exit("ggml_backend_graph_compute failed")

    def free(self):
        for buffer in self.buffers:
            self.ggml.ggml_backend_buffer_free(buffer)
        self.ggml.ggml_free(self.context)


def decode(kind, rows):
    """Bytes of rows as f32: [rows, HEAD_DIM]."""
    rows = np.ascontiguousarray(rows)
    if kind == "f16":
        return rows.view(np.float16).astype(np.float32)
    if kind == "bf16":
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    blocks = rows.reshape(len(rows), -1, 34)  # an f16 scale, 32 signed bytes
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    return (scales * blocks[..., 2:].view(np.int8)).reshape(len(rows), HEAD_DIM)


def reference(kind, layout, cache, tokens, query):
    def head_of(memory):
        if layout == "by head":
            heads = memory.reshape(KV_HEADS, tokens, -1)
        else:
            heads = memory.reshape(tokens, KV_HEADS, -1).transpose(1, 0, 2)
        return lambda head: decode(kind, heads[head])

    return common.attention(query.reshape(HEADS, HEAD_DIM), *map(head_of, cache))


def main():
    options = common.parser(__doc__)
    options.add_argument("--peer", choices=PEERS, default="llama.cpp", help="which of the two it is")
    options.add_argument("--library", help="libggml's shared library or the folder it is in, instead of the package's")
    options.add_argument("--version", help="what the library came from, if it cannot tell itself")
    options.add_argument("--kv", nargs="+", choices=TYPES, default=["f16", "bf16", "q8_0"], help="its KV types")
    options.add_argument(
        "--layout", nargs="+", choices=["by token", "by head"], default=["by token", "by head"],
        help="order of the rows: by token is how llama.cpp's own cache has them, by head how its benchmark has them",
    )  # fmt: skip
    options = options.parse_args()
    path, version = find(options.peer, options.library)
    ggml = Ggml(path, options.threads)
    version = ", ".join(filter(None, [options.version or version, ggml.version])) or "unknown"
    numbers = common.random_rows()
    query = common.buffer(4 * HEADS * HEAD_DIM).view(np.float32)
    query[:] = common.random_queries().reshape(-1)
    output = common.buffer(4 * HEADS * HEAD_DIM).view(np.float32)
    for kind in options.kv:
        rows = ggml.quantize(kind, numbers)
        for tokens in options.tokens:
            mask = common.buffer(2 * MASK_ROWS * tokens)
            caches = common.kv_buffer(rows, tokens, options.kv_mib)
            for layout in options.layout:
                steps = [Step(ggml, kind, layout, cache, tokens, query, mask, output) for cache in caches]
                steps[0].run()
                expected = reference(kind, layout, caches[0], tokens, query)
                error = common.check(f"{kind} {layout}", output.reshape(HEADS, HEAD_DIM), expected)
                times = common.sample(lambda run: steps[run % len(steps)].run(), options.seconds, options.samples)
                expression = f"flash_attn_ext, rows {layout}"
                common.emit(options.peer, version, kind, expression, tokens, options.threads, times, error)
                for step in steps:
                    step.free()


if __name__ == "__main__":
    main()
