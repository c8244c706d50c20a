// The nearest of some centroids for each of some points: a matrix product on tensor cores of which only each point's maximum is kept.
//
// score = x·c − ½‖c‖², which is largest for the nearest centroid. A product of two f32 is three products of TF32: with x = x₁ + x₂,
// x₁ and x₂ rounded to TF32's 11 bits, x·c = x₁·c₁ + x₁·c₂ + x₂·c₁ + (what is below 2⁻²² of it). So scores are as exact as those of f32
// multiply-adds. One product of TF32 is off by up to 2⁻¹¹, three of BF16 (x₁ and x₂ of 8 bits) by 2⁻¹⁶: either would have to look
// again at all points with two centroids nearly as near as each other.
//
// A block of 8 warps holds 128 points and goes over the candidates 128 at a time, 16 coordinates (a slice) of both at a time,
// three slices in flight. A warp's part is 64 points by 32 candidates. 4096 candidates by 80,000 points by 128 coordinates are 625
// blocks that each read the candidates' 2 MiB from the L2 cache; nothing else is written than a label and a score per point.
#include "common.cuh"

namespace kmeans {

constexpr int TILE = 128;
constexpr int SLICE = 16;
constexpr int STAGES = 3;
constexpr int THREADS = 256;

// A warp's part of a tile, in pieces of the tensor cores' 16 points by 8 candidates.
constexpr int PIECES_M = 4;
constexpr int PIECES_N = 4;
constexpr int WARPS_N = TILE / (PIECES_N * 8);

// A row of a slice is four chunks of 16 bytes. They are permuted so that eight rows' chunks of the same coordinates, which
// `ldmatrix` reads together, lie in eight different groups of banks.
__device__ inline int place(int row, int chunk) { return row * SLICE + ((chunk ^ ((row >> 1) & 3)) << 2); }

__device__ inline uint32_t shared_address(const float *at) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// Copies 16 bytes in the background, or fills them with zeros.
__device__ inline void copy_chunk(float *to, const float *from, bool valid) {
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int PENDING> __device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four matrices of 8 rows by 16 bytes: lane l gets number l % 4 of row l / 4 of each.
__device__ inline void load_pieces(uint32_t (&to)[4], const float *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ inline uint32_t to_tf32(float x) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// x = high + low.
__device__ inline void split(uint32_t x, uint32_t &high, uint32_t &low) {
    high = to_tf32(__uint_as_float(x));
    low = to_tf32(__uint_as_float(x) - __uint_as_float(high));
}

__device__ inline void multiply_add(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

struct Sums {
    float of[PIECES_M][PIECES_N][4];

    __device__ void clear() {
        for (auto &row : of) {
            for (auto &piece : row) {
                for (float &sum : piece) {
                    sum = 0;
                }
            }
        }
    }

    // Adds the products of a slice; the pointers are to the warp's first rows.
    __device__ void add_slice(const float *points, const float *candidates, int first_point, int first_candidate) {
        const int lane = lane_id();
        uint32_t b[PIECES_N][4];
#pragma unroll
        for (int n = 0; n < PIECES_N; ++n) {
            load_pieces(b[n], candidates + place(first_candidate + n * 8 + lane % 8, lane / 8));
        }
#pragma unroll
        for (int step = 0; step < SLICE / 8; ++step) {
            uint32_t high[PIECES_M][4], low[PIECES_M][4];
#pragma unroll
            for (int m = 0; m < PIECES_M; ++m) {
                uint32_t a[4];
                load_pieces(a, points + place(first_point + m * 16 + lane % 16, step * 2 + lane / 16));
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    split(a[i], high[m][i], low[m][i]);
                }
            }
#pragma unroll
            for (int n = 0; n < PIECES_N; ++n) {
                uint32_t high0, low0, high1, low1;
                split(b[n][step * 2], high0, low0);
                split(b[n][step * 2 + 1], high1, low1);
                // The small ones first; pieces in turn, so that none waits for the one before.
#pragma unroll
                for (int m = 0; m < PIECES_M; ++m) {
                    multiply_add(of[m][n], low[m], high0, high1);
                }
#pragma unroll
                for (int m = 0; m < PIECES_M; ++m) {
                    multiply_add(of[m][n], high[m], low0, low1);
                }
#pragma unroll
                for (int m = 0; m < PIECES_M; ++m) {
                    multiply_add(of[m][n], high[m], high0, high1);
                }
            }
        }
    }
};

// A candidate, by its place among the candidates; of equals the first.
struct Best {
    float score;
    uint32_t at;

    __device__ void raise(float other, uint32_t other_at) {
        if (other > score || (other == score && other_at < at)) {
            score = other;
            at = other_at;
        }
    }
};

// Coordinates are `[n, stride]`, with `stride` a multiple of 16 and zeros beyond the dimension.
//
// The points are numbers 0 to `*point_count`, at most `most_points`, of `point_list`, or of `points` itself without one.
// Candidates are the first `*candidate_count` of `candidate_list`, ascending numbers of centroids. What a point has had
// (`had_labels`, `had_scores`, nothing without them) stays where no candidate is better. Results go to `labels` and `scores` by the
// point's number in `points`.
extern "C" __global__ void __launch_bounds__(THREADS)
nearest(const float *__restrict__ points, const uint32_t *__restrict__ point_list, const uint32_t *__restrict__ point_count,
        uint32_t most_points, const float *__restrict__ centroids, const float *__restrict__ half_norms,
        const uint32_t *__restrict__ candidate_list, const uint32_t *__restrict__ candidate_count, uint32_t stride,
        const uint32_t *had_labels, const float *had_scores, uint32_t *labels, float *scores) {
    // 48 KiB, all that a kernel has without asking.
    __shared__ alignas(128) float slices[STAGES][2][TILE * SLICE];

    const uint32_t count = point_count ? min(*point_count, most_points) : most_points;
    const uint32_t first_point = blockIdx.x * TILE;
    if (first_point >= count) {
        return;
    }
    const uint32_t candidates = *candidate_count;
    const int slices_of_row = stride / SLICE;
    const int total = (candidates + TILE - 1) / TILE * slices_of_row;
    const int lane = lane_id(), warp = warp_id();

    // What this thread copies of every slice: one chunk of two rows each.
    const int chunk = threadIdx.x % 4, row = threadIdx.x / 4;
    const float *point_rows[2], *candidate_rows[2];
    bool has_point[2], has_candidate[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const uint32_t at = first_point + row + r * (TILE / 2);
        has_point[r] = at < count;
        const uint32_t number = !has_point[r] ? 0 : point_list ? point_list[at] : at;
        point_rows[r] = points + static_cast<size_t>(number) * stride + chunk * 4;
    }
    int copied_tile = 0, copied_slice = 0;
    const auto copy_slice = [&](int stage) {
        if (copied_slice == 0) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const uint32_t at = copied_tile * TILE + row + r * (TILE / 2);
                has_candidate[r] = at < candidates;
                const uint32_t number = has_candidate[r] ? candidate_list[at] : 0;
                candidate_rows[r] = centroids + static_cast<size_t>(number) * stride + chunk * 4;
            }
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int to = place(row + r * (TILE / 2), chunk);
            copy_chunk(&slices[stage][0][to], point_rows[r] + copied_slice * SLICE, has_point[r]);
            copy_chunk(&slices[stage][1][to], candidate_rows[r] + copied_slice * SLICE, has_candidate[r]);
        }
        if (++copied_slice == slices_of_row) {
            copied_slice = 0;
            ++copied_tile;
        }
    };

    for (int stage = 0; stage < STAGES - 1; ++stage) {
        if (stage < total) {
            copy_slice(stage);
        }
        commit_copies();
    }

    const int warp_point = warp / WARPS_N * (PIECES_M * 16), warp_candidate = warp % WARPS_N * (PIECES_N * 8);
    Best best[PIECES_M][2];
#pragma unroll
    for (auto &piece : best) {
        piece[0] = piece[1] = {-INFINITY, NONE};
    }
    Sums sums;
    sums.clear();
    uint32_t tile = 0;
    int slice = 0;
    for (int step = 0; step < total; ++step) {
        wait_for_copies<STAGES - 2>();
        __syncthreads(); // all have this slice, and are done with the one whose place is filled next
        if (step + STAGES - 1 < total) {
            copy_slice((step + STAGES - 1) % STAGES);
        }
        commit_copies();

        const bool last = slice == slices_of_row - 1;
        float norms[PIECES_N][2];
        if (last) {
            // Asked for before the products, used after them.
#pragma unroll
            for (int n = 0; n < PIECES_N; ++n) {
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    const uint32_t at = tile * TILE + warp_candidate + n * 8 + lane % 4 * 2 + j;
                    norms[n][j] = at < candidates ? half_norms[candidate_list[at]] : INFINITY;
                }
            }
        }
        const auto &now = slices[step % STAGES];
        sums.add_slice(now[0], now[1], warp_point, warp_candidate);
        if (last) {
#pragma unroll
            for (int m = 0; m < PIECES_M; ++m) {
#pragma unroll
                for (int n = 0; n < PIECES_N; ++n) {
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const uint32_t at = tile * TILE + warp_candidate + n * 8 + lane % 4 * 2 + i % 2;
                        const float score = sums.of[m][n][i] - norms[n][i % 2];
                        // Places only rise within a thread.
                        if (score > best[m][i / 2].score) {
                            best[m][i / 2] = {score, at};
                        }
                    }
                }
            }
            sums.clear();
            ++tile;
        }
        slice = last ? 0 : slice + 1;
    }
    __syncthreads(); // the slices' memory is free now

    // A point's candidates are with the four lanes of a quad, in each of four warps.
    auto &by_warp = reinterpret_cast<Best(&)[WARPS_N][TILE]>(slices);
#pragma unroll
    for (int m = 0; m < PIECES_M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            Best &mine = best[m][half];
#pragma unroll
            for (int other = 1; other < 4; other *= 2) {
                const float score = __shfl_xor_sync(ALL_LANES, mine.score, other);
                const uint32_t at = __shfl_xor_sync(ALL_LANES, mine.at, other);
                mine.raise(score, at);
            }
            if (lane % 4 == 0) {
                by_warp[warp % WARPS_N][warp_point + m * 16 + half * 8 + lane / 4] = mine;
            }
        }
    }
    __syncthreads();
    const uint32_t at = first_point + threadIdx.x;
    if (threadIdx.x < TILE && at < count) {
        Best found = by_warp[0][threadIdx.x];
        for (int other = 1; other < WARPS_N; ++other) {
            found.raise(by_warp[other][threadIdx.x].score, by_warp[other][threadIdx.x].at);
        }
        const uint32_t point = point_list ? point_list[at] : at;
        const uint32_t had = had_labels ? had_labels[point] : NONE;
        const float had_score = had_scores ? had_scores[point] : -INFINITY;
        const bool better = found.score > had_score;
        labels[point] = better ? candidate_list[found.at] : had;
        scores[point] = better ? found.score : had_score;
    }
}

} // namespace kmeans
