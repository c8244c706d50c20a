// How fast the tensor cores multiply, with nothing else to do: what `nearest` is measured against.
#include "common.cuh"

namespace kmeans {

constexpr int PEAK_SUMS = 8;

// `rounds` times 8 independent products of 16 x 8 by 8 x 8 TF32 per warp. What comes out is written, so that it has to be computed.
extern "C" __global__ void multiply(uint32_t rounds, float *out) {
    float sums[PEAK_SUMS][4] = {};
    const uint32_t one = 0x3f800000 + (threadIdx.x << 13);
    for (uint32_t round = 0; round < rounds; ++round) {
#pragma unroll
        for (auto &sum : sums) {
            asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %4, %4, %4}, {%4, %4}, {%0, %1, %2, %3};"
                         : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                         : "r"(one));
        }
    }
    float all = 0;
    for (auto &sum : sums) {
        all += sum[0] + sum[1] + sum[2] + sum[3];
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = all;
}

} // namespace kmeans
