// What several kernels share.
//
// Sums are always taken in the same order, so that the same data gives the same bits: lanes and warps are added in trees whose shape
// depends on the number of threads alone, and nothing that is rounded is added by atomics.
#pragma once

#include <cstdint>

namespace kmeans {

// No centroid, no point.
constexpr uint32_t NONE = 0xffffffffu;

constexpr uint32_t ALL_LANES = 0xffffffffu;
constexpr int WARP = 32;

__device__ inline int lane_id() { return threadIdx.x % WARP; }
__device__ inline int warp_id() { return threadIdx.x / WARP; }

// What the kernels tell the host, and each other: see `Status` in src/job/status.rs, which has the same layout.
struct Status {
    double objective;    // sum of weight times squared distance
    double way;          // how far centroids moved, together
    uint32_t candidates; // centroids to compare with: those that were added, or have moved
    uint32_t others;     // centroids that have not moved
    uint32_t empty;      // clusters without points
};

// The sum over a warp, in every lane.
template <typename T> __device__ inline T warp_sum(T value) {
    for (int step = WARP / 2; step > 0; step /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, step);
    }
    return value;
}

// The sum over a block of THREADS, in every thread.
template <int THREADS, typename T> __device__ inline T block_sum(T value) {
    __shared__ T of_warps[THREADS / WARP];
    __syncthreads(); // those of the sum before were read
    value = warp_sum(value);
    if (lane_id() == 0) {
        of_warps[warp_id()] = value;
    }
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < THREADS / WARP; ++warp) {
        sum += of_warps[warp];
    }
    return sum;
}

// The sum over this and all lower lanes.
template <typename T> __device__ inline T warp_scan(T value) {
    for (int step = 1; step < WARP; step *= 2) {
        const T below = __shfl_up_sync(ALL_LANES, value, step);
        if (lane_id() >= step) {
            value += below;
        }
    }
    return value;
}

// The sum over this and all lower threads of a block of THREADS; `total` becomes the sum over all.
template <int THREADS, typename T> __device__ inline T block_scan(T value, T &total) {
    __shared__ T of_warps[THREADS / WARP];
    __syncthreads();
    value = warp_scan(value);
    if (lane_id() == WARP - 1) {
        of_warps[warp_id()] = value;
    }
    __syncthreads();
    T before = 0;
    total = 0;
    for (int warp = 0; warp < THREADS / WARP; ++warp) {
        before = warp == warp_id() ? total : before;
        total += of_warps[warp];
    }
    return before + value;
}

} // namespace kmeans
