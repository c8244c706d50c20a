// Points by label: a stable radix sort, eight bits at a time. Stable, so that the points of a cluster stay in their order and are added up
// in it.
#include "common.cuh"

namespace kmeans {

constexpr int DIGITS = 256;
constexpr int SORT_WARPS = 8;
constexpr int KEYS_PER_LANE = 8;
constexpr int KEYS_PER_WARP = WARP * KEYS_PER_LANE;
constexpr int KEYS_PER_BLOCK = SORT_WARPS * KEYS_PER_WARP;

// Keys of a block by warp and digit; a thread of the block is a digit, too.
struct Ranks {
    uint32_t of[SORT_WARPS][DIGITS];

    // The rank of each of this lane's keys among the warp's keys of the same digit, in their order. Counts them on the way.
    __device__ void rank(const uint32_t *keys, uint32_t count, int shift, uint32_t (&ranks)[KEYS_PER_LANE]) {
        uint32_t *counts = of[warp_id()];
        for (int digit = lane_id(); digit < DIGITS; digit += WARP) {
            counts[digit] = 0;
        }
        __syncwarp();
        const uint32_t first = blockIdx.x * KEYS_PER_BLOCK + warp_id() * KEYS_PER_WARP + lane_id();
#pragma unroll
        for (int i = 0; i < KEYS_PER_LANE; ++i) {
            const uint32_t at = first + i * WARP;
            const uint32_t digit = at < count ? keys[at] >> shift & (DIGITS - 1) : DIGITS;
            const uint32_t same = __match_any_sync(ALL_LANES, digit);
            const uint32_t below = __popc(same & ((1u << lane_id()) - 1));
            const uint32_t before = digit < DIGITS ? counts[digit] : 0;
            ranks[i] = before + below;
            __syncwarp();
            if (below == 0 && digit < DIGITS) {
                counts[digit] = before + __popc(same);
            }
            __syncwarp();
        }
    }

    // Of this thread's digit: turns the warps' counts into how many come before each of them, and gives the sum.
    __device__ uint32_t total() {
        __syncthreads();
        uint32_t sum = 0;
        for (auto &counts : of) {
            const uint32_t own = counts[threadIdx.x];
            counts[threadIdx.x] = sum;
            sum += own;
        }
        return sum;
    }
};

// `counts` is `[256, blocks]`.
extern "C" __global__ void __launch_bounds__(DIGITS)
count_digits(const uint32_t *__restrict__ keys, uint32_t count, uint32_t shift, uint32_t *counts) {
    __shared__ Ranks ranks;
    uint32_t unused[KEYS_PER_LANE];
    ranks.rank(keys, count, shift, unused);
    counts[threadIdx.x * gridDim.x + blockIdx.x] = ranks.total();
}

// Turns counts into how many come before them, in one block.
extern "C" __global__ void __launch_bounds__(1024) offsets_of_counts(uint32_t *counts, uint32_t count) {
    uint32_t before = 0;
    for (uint32_t first = 0; first < count; first += 1024) {
        const uint32_t at = first + threadIdx.x;
        const uint32_t own = at < count ? counts[at] : 0;
        uint32_t total;
        const uint32_t upto = block_scan<1024>(own, total);
        if (at < count) {
            counts[at] = before + upto - own;
        }
        before += total;
    }
}

// `offsets` is what became of `counts`. `values` are the keys' own numbers, if null.
extern "C" __global__ void __launch_bounds__(DIGITS)
scatter(const uint32_t *__restrict__ keys, const uint32_t *__restrict__ values, uint32_t count, uint32_t shift,
        const uint32_t *__restrict__ offsets, uint32_t *sorted_keys, uint32_t *sorted_values) {
    __shared__ Ranks before;
    uint32_t ranks[KEYS_PER_LANE];
    before.rank(keys, count, shift, ranks);
    before.total();
    __syncthreads();
    const uint32_t first = blockIdx.x * KEYS_PER_BLOCK + warp_id() * KEYS_PER_WARP + lane_id();
#pragma unroll
    for (int i = 0; i < KEYS_PER_LANE; ++i) {
        const uint32_t at = first + i * WARP;
        if (at < count) {
            const uint32_t key = keys[at], digit = key >> shift & (DIGITS - 1);
            const uint32_t to = offsets[digit * gridDim.x + blockIdx.x] + before.of[warp_id()][digit] + ranks[i];
            sorted_keys[to] = key;
            sorted_values[to] = values ? values[at] : at;
        }
    }
}

// Where each of `clusters` labels begins among sorted ones; and the end.
extern "C" __global__ void find_starts(const uint32_t *__restrict__ sorted_keys, uint32_t count, uint32_t clusters, uint32_t *starts) {
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at > count) {
        return;
    }
    const uint32_t from = at == 0 ? 0 : sorted_keys[at - 1] + 1;
    const uint32_t to = at == count ? clusters : sorted_keys[at];
    for (uint32_t label = from; label <= to; ++label) {
        starts[label] = at;
    }
}

} // namespace kmeans
