#!/bin/sh
# Makes the PTX of the tests from their sources. Needs nvcc of CUDA 13.
set -eu
cd "$(dirname "$0")"
compile() {
    "${NVCC:-nvcc}" -ptx -arch=compute_80 -O3 "$@"
}
compile product.cu -o product.ptx
compile blocks.cu -o blocks.ptx
compile -DNO_WAIT product.cu -o product_without_wait.ptx
compile -DNO_BARRIER product.cu -o product_without_barrier.ptx
compile -DNO_BARRIER blocks.cu -o blocks_without_barrier.ptx
