// k-means++: the first centroids are points, each drawn with a probability proportional to its weight times the square of its
// distance to the nearest of those drawn before. Here in rounds, exactly:
//
// Candidates are drawn with the probabilities before the round, p(x) ∝ w·D²(x). One after the other, each is kept with probability
// D'²(x) / D²(x), D' being the distance with those of the round that were kept before it: kept ones have probabilities ∝ w·D'²(x), as
// if they had been drawn one after the other. A candidate is refused by any kept one that is too near, so what needs distances is a
// table of candidates by candidates, and what is done one after the other is looking up bits.
#include "common.cuh"

namespace kmeans {

// Points of a block of the probabilities.
constexpr int ODDS_BLOCK = 1024;
constexpr int ODDS_THREADS = 256;

// Most candidates of a round.
constexpr int CANDIDATES = 1024;
constexpr int WORDS = CANDIDATES / 32;

// What the probability of a point is proportional to: without centroids, its weight.
struct Odds {
    const float *weights;   // all 1, if null
    const float *distances; // null without centroids

    __device__ double of(uint32_t point) const {
        const double weight = weights ? weights[point] : 1;
        return distances ? weight * static_cast<double>(distances[point]) : weight;
    }
};

// The sum of each 1024 points.
extern "C" __global__ void __launch_bounds__(ODDS_THREADS)
sum_odds(const float *__restrict__ weights, const float *__restrict__ distances, uint32_t count, double *block_sums) {
    const Odds odds{weights, distances};
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < ODDS_BLOCK; i += ODDS_THREADS) {
        const uint32_t point = blockIdx.x * ODDS_BLOCK + i;
        sum += point < count ? odds.of(point) : 0;
    }
    sum = block_sum<ODDS_THREADS>(sum);
    if (threadIdx.x == 0) {
        block_sums[blockIdx.x] = sum;
    }
}

// Turns the blocks' sums into those of all up to them, and counts clusters without points. One block.
extern "C" __global__ void __launch_bounds__(1024)
finish_pass(double *block_sums, uint32_t blocks, const uint32_t *__restrict__ sizes, uint32_t clusters, Status *status) {
    double before = 0;
    for (uint32_t first = 0; first < blocks; first += 1024) {
        const uint32_t at = first + threadIdx.x;
        double total;
        const double upto = block_scan<1024>(at < blocks ? block_sums[at] : 0.0, total);
        if (at < blocks) {
            block_sums[at] = before + upto;
        }
        before += total;
    }
    uint32_t empty = 0;
    for (uint32_t cluster = threadIdx.x; cluster < clusters; cluster += 1024) {
        empty += sizes[cluster] == 0;
    }
    empty = block_sum<1024>(empty);
    if (threadIdx.x == 0) {
        status->objective = before;
        status->empty = empty;
    }
}

// Random bits, by number: SplitMix64.
__device__ inline uint64_t random_bits(uint64_t seed, uint64_t number) {
    uint64_t x = seed + (number + 1) * 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

// From 0 up to, not including, 1.
__device__ inline double random_share(uint64_t seed, uint64_t number) {
    return static_cast<double>(random_bits(seed, number) >> 11) * 0x1p-53;
}

// The first of some rising sums that is above `target`.
__device__ inline uint32_t first_above(const double *sums, uint32_t count, double target) {
    uint32_t low = 0, high = count;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (sums[middle] > target) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

// The point at `target` of the whole, which is above 0, by a warp.
__device__ inline uint32_t point_at(const Odds &odds, uint32_t count, const double *sums, uint32_t blocks, double target) {
    uint32_t block = first_above(sums, blocks, target);
    if (block == blocks) {
        // Rounded up to the whole: where that is reached first.
        block = first_above(sums, blocks, sums[blocks - 1] * (1 - 0x1p-52));
    }
    uint32_t first, end, some;
    double own, upto;
    for (;; block = block + 1 < blocks ? block + 1 : 0) {
        // A lane looks at 32 points.
        first = block * ODDS_BLOCK + lane_id() * (ODDS_BLOCK / WARP);
        end = min(count, first + ODDS_BLOCK / WARP);
        own = 0;
        for (uint32_t point = first; point < end; ++point) {
            own += odds.of(point);
        }
        upto = (block == 0 ? 0 : sums[block - 1]) + warp_scan(own);
        some = __ballot_sync(ALL_LANES, own > 0);
        if (some != 0) {
            break;
        }
        // The blocks' sums round in different ways: a block without any can look as if it had some.
    }
    const uint32_t above = __ballot_sync(ALL_LANES, upto > target) & some;
    // Sums in another order round in another way: then it is the last lane, and of its points the last, that has any.
    const int chosen = above != 0 ? __ffs(above) - 1 : 31 - __clz(some);
    uint32_t point = NONE;
    if (lane_id() == chosen) {
        double sum = upto - own;
        for (uint32_t at = first; at < end; ++at) {
            const double odd = odds.of(at);
            sum += odd;
            if (odd > 0) {
                point = at;
                if (sum > target) {
                    break;
                }
            }
        }
    }
    return __shfl_sync(ALL_LANES, point, chosen);
}

// Draws candidates, a warp each. `least` is the square of the distance that others have to keep for a candidate to be kept.
extern "C" __global__ void draw(const float *__restrict__ weights, const float *__restrict__ distances, uint32_t count,
                                const double *__restrict__ sums, uint32_t blocks, uint64_t seed, uint64_t drawn, uint32_t candidates,
                                uint32_t *numbers, double *least) {
    const uint32_t candidate = blockIdx.x * (blockDim.x / WARP) + warp_id();
    if (candidate >= candidates) {
        return;
    }
    const uint64_t random = (drawn + candidate) * 2;
    const double whole = sums[blocks - 1];
    uint32_t point;
    double keep = -1;
    if (whole > 0) {
        point = point_at({weights, distances}, count, sums, blocks, random_share(seed, random) * whole);
        keep = distances ? random_share(seed, random + 1) * static_cast<double>(distances[point]) : 0;
    } else {
        // Every point is a centroid already: any will do, and none is too near.
        point = static_cast<uint32_t>(random_bits(seed, random) % count);
    }
    if (lane_id() == 0) {
        numbers[candidate] = point;
        least[candidate] = keep;
    }
}

// Copies those of the candidates that are among the points `first` to `first + count` of a batch. A block each.
extern "C" __global__ void gather(const float *__restrict__ points, uint32_t first, uint32_t count, uint32_t stride,
                                  const uint32_t *__restrict__ numbers, float *rows) {
    const uint32_t at = numbers[blockIdx.x] - first; // far above `count` where it is before the batch
    if (at >= count) {
        return;
    }
    for (uint32_t i = threadIdx.x; i < stride; i += blockDim.x) {
        rows[static_cast<size_t>(blockIdx.x) * stride + i] = points[static_cast<size_t>(at) * stride + i];
    }
}

// Whether candidate i is too near to candidate j, j < i: bit j of row i of `[candidates, 32]` words. A block of 256 is 32 by 32 of them.
extern "C" __global__ void __launch_bounds__(256)
compare(const float *__restrict__ rows, uint32_t candidates, uint32_t stride, const double *__restrict__ least, uint32_t *too_near) {
    constexpr int SIDE = 32, OF_WARP = 4;
    __shared__ float mine[SIDE][SIDE + 1], theirs[SIDE][SIDE + 1];
    const uint32_t first_i = blockIdx.y * SIDE, first_j = blockIdx.x * SIDE;
    if (first_j > first_i) {
        return; // only later ones, which nobody asks for
    }
    float sums[OF_WARP] = {};
    for (uint32_t from = 0; from < stride; from += SIDE) {
        __syncthreads();
        for (int row = warp_id(); row < SIDE; row += 256 / WARP) {
            const uint32_t at = from + lane_id(), i = first_i + row, j = first_j + row;
            mine[row][lane_id()] = i < candidates && at < stride ? rows[static_cast<size_t>(i) * stride + at] : 0;
            theirs[row][lane_id()] = j < candidates && at < stride ? rows[static_cast<size_t>(j) * stride + at] : 0;
        }
        __syncthreads();
        for (int at = 0; at < SIDE; ++at) {
#pragma unroll
            for (int r = 0; r < OF_WARP; ++r) {
                const float difference = mine[warp_id() * OF_WARP + r][at] - theirs[lane_id()][at];
                sums[r] += difference * difference;
            }
        }
    }
#pragma unroll
    for (int r = 0; r < OF_WARP; ++r) {
        const uint32_t i = first_i + warp_id() * OF_WARP + r, j = first_j + lane_id();
        const bool near = j < i && i < candidates && static_cast<double>(sums[r]) <= least[i];
        const uint32_t word = __ballot_sync(ALL_LANES, near);
        if (lane_id() == 0 && i < candidates) {
            too_near[i * WORDS + blockIdx.x] = word;
        }
    }
}

// Goes over the candidates and keeps up to `most`: their places, ascending. One warp, a word of the kept ones per lane.
extern "C" __global__ void __launch_bounds__(WARP)
keep(const uint32_t *__restrict__ too_near, uint32_t candidates, uint32_t most, uint32_t *kept, Status *status) {
    uint32_t mine = 0, count = 0;
    for (uint32_t first = 0; first < candidates && count < most; first += 32) {
        // Asked for together: one after the other, each would be waited for.
        uint32_t near[32];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const bool valid = first + i < candidates && lane_id() <= first / 32;
            near[i] = valid ? too_near[(first + i) * WORDS + lane_id()] : 0;
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const bool refused = __ballot_sync(ALL_LANES, (near[i] & mine) != 0) != 0;
            if (!refused && first + i < candidates && count < most) {
                if (lane_id() == first / 32) {
                    mine |= 1u << i;
                }
                if (lane_id() == 0) {
                    kept[count] = first + i;
                }
                ++count;
            }
        }
    }
    if (lane_id() == 0) {
        status->candidates = count;
    }
}

constexpr int APPEND_THREADS = 128;

// Makes centroids of the candidates that were kept, numbers `chosen` and up, a block each, and lists them.
extern "C" __global__ void __launch_bounds__(APPEND_THREADS)
append(const float *__restrict__ rows, uint32_t stride, const uint32_t *__restrict__ kept, const Status *__restrict__ status,
       uint32_t chosen, float *centroids, float *half_norms, uint32_t *list) {
    const uint32_t at = blockIdx.x;
    if (at >= status->candidates) {
        return;
    }
    const float *row = rows + static_cast<size_t>(kept[at]) * stride;
    float *centroid = centroids + static_cast<size_t>(chosen + at) * stride;
    double norm = 0;
    for (uint32_t i = threadIdx.x; i < stride; i += APPEND_THREADS) {
        centroid[i] = row[i];
        norm += static_cast<double>(row[i]) * row[i];
    }
    norm = block_sum<APPEND_THREADS>(norm);
    if (threadIdx.x == 0) {
        half_norms[chosen + at] = static_cast<float>(0.5 * norm);
        list[at] = chosen + at;
    }
}

} // namespace kmeans
