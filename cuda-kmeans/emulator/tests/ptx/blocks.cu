// What blocks do together: sums, ranks, prefix sums, and counts.
#include <cstdint>

// The sum of each block: by shuffles within warps, then among warps.
extern "C" __global__ void reduce(const float* values, float* sums, int count) {
    __shared__ float of_warps[32];
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = at < count ? values[at] : 0.0f;
    for (int by = 16; by > 0; by /= 2) {
        sum += __shfl_down_sync(~0u, sum, by);
    }
    if (threadIdx.x % 32 == 0) {
        of_warps[threadIdx.x / 32] = sum;
    }
#ifndef NO_BARRIER
    __syncthreads();
#endif
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0.0f;
        for (int by = 16; by > 0; by /= 2) {
            sum += __shfl_xor_sync(~0u, sum, by);
        }
        if (threadIdx.x == 0) {
            sums[blockIdx.x] = sum;
        }
    }
}

// How many of the block's values before each are the same. Keys are less than 64.
extern "C" __global__ void rank(const uint8_t* keys, uint32_t* ranks) {
    __shared__ uint32_t counts[64];
    int lane = threadIdx.x % 32;
    for (int key = threadIdx.x; key < 64; key += blockDim.x) {
        counts[key] = 0;
    }
    __syncthreads();
    int at = blockIdx.x * blockDim.x + threadIdx.x;
    uint32_t key = keys[at];
    uint32_t same = __match_any_sync(~0u, key);
    uint32_t before = __popc(same & ((1u << lane) - 1));
    for (int warp = 0; warp < blockDim.x / 32; warp++) {
        if (threadIdx.x / 32 == warp) {
            uint32_t base = counts[key];
            __syncwarp();
            ranks[at] = base + before;
            if (before == 0) {
                counts[key] = base + __popc(same);
            }
        }
        __syncthreads();
    }
}

// Prefix sums of one block.
extern "C" __global__ void scan(const double* values, double* sums) {
    extern __shared__ double sums_of[];
    int own = threadIdx.x;
    sums_of[own] = values[own];
    __syncthreads();
    for (int by = 1; by < blockDim.x; by *= 2) {
        double other = own >= by ? sums_of[own - by] : 0.0;
        __syncthreads();
        sums_of[own] += other;
        __syncthreads();
    }
    sums[own] = sums_of[own];
}

struct Totals {
    uint32_t least, most, seen, last;
    unsigned long long sum, swapped;
    float single;
    uint32_t ring;
    double twice;
};

// Totals of all blocks, and a histogram in shared memory.
extern "C" __global__ void totals(const uint32_t* values, int count, Totals* all, uint32_t* histogram) {
    __shared__ uint32_t counts[16];
    if (threadIdx.x < 16) {
        counts[threadIdx.x] = 0;
    }
    __syncthreads();
    for (int at = blockIdx.x * blockDim.x + threadIdx.x; at < count; at += gridDim.x * blockDim.x) {
        uint32_t value = values[at];
        atomicMin(&all->least, value);
        atomicMax(&all->most, value);
        atomicOr(&all->seen, 1u << value % 32);
        atomicExch(&all->last, value);
        atomicAdd(&all->sum, static_cast<unsigned long long>(value));
        atomicAdd(&all->single, static_cast<float>(value % 8));
        atomicAdd(&all->twice, value * 0.5);
        atomicInc(&all->ring, 9);
        unsigned long long old = all->swapped, seen;
        do {
            seen = old;
            old = atomicCAS(&all->swapped, seen, seen + value);
        } while (old != seen);
        atomicAdd(&counts[value % 16], 1);
    }
    __syncthreads();
    if (threadIdx.x < 16) {
        atomicAdd(&histogram[threadIdx.x], counts[threadIdx.x]);
    }
}

// Votes and reductions: of each thread's value the results of its warp or block.
extern "C" __global__ void votes(const int* values, int* results) {
    int value = values[threadIdx.x];
    int* to = results + threadIdx.x * 12;
    to[0] = __ballot_sync(~0u, value > 0);
    to[1] = __any_sync(~0u, value > 90);
    to[2] = __all_sync(~0u, value > -90);
    to[3] = __reduce_add_sync(~0u, value);
    to[4] = __reduce_min_sync(~0u, value);
    to[5] = __reduce_max_sync(~0u, static_cast<unsigned>(value));
    to[6] = __reduce_xor_sync(~0u, static_cast<unsigned>(value));
    to[7] = __syncthreads_count(value > 0);
    to[8] = __syncthreads_or(value > 90);
    to[9] = __syncthreads_and(value > -90);
    int same;
    to[10] = __match_all_sync(~0u, value / 1000, &same);
    to[10] += same;
    to[11] = __shfl_up_sync(~0u, value, 3, 8) + __shfl_sync(~0u, value, 5, 16);
}
