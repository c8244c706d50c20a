// From the best of the centroids that moved to the best of all: see `assign` of the CPU path, kernel/src/clustering/lloyd.rs.
#include "common.cuh"

namespace kmeans {

// `choices` hold each point's best among the centroids that moved, at first; what they hold at the end is final, but for the points
// that are put into `open`, whose own centroid moved away: they have to be compared with the others too.
extern "C" __global__ void decide(uint32_t count, const uint32_t *__restrict__ labels, const float *__restrict__ scores,
                                  const uint32_t *__restrict__ has_moved, uint32_t *choice_labels, float *choice_scores,
                                  uint32_t *open, uint32_t *open_count) {
    const uint32_t point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= count) {
        return;
    }
    const uint32_t own = labels[point];
    if (!has_moved[own]) {
        if (choice_scores[point] <= scores[point]) {
            choice_labels[point] = own;
            choice_scores[point] = scores[point];
        }
    } else if (choice_scores[point] < scores[point]) {
        // In whatever order: each is for itself.
        open[atomicAdd(open_count, 1)] = point;
    }
}

// ‖x − c‖² in every lane, by a warp.
__device__ inline float squared_distance(const float *x, const float *c, uint32_t stride) {
    float sum = 0;
    for (uint32_t at = lane_id() * 4; at < stride; at += WARP * 4) {
        const float4 a = *reinterpret_cast<const float4 *>(x + at), b = *reinterpret_cast<const float4 *>(c + at);
        const float d0 = a.x - b.x, d1 = a.y - b.y, d2 = a.z - b.z, d3 = a.w - b.w;
        sum += d0 * d0 + d1 * d1 + (d2 * d2 + d3 * d3);
    }
    return warp_sum(sum);
}

// Gives points to their choices, a warp each. Distances are taken anew where the centroid is another one or has moved: as such, not from
// the score, which has lost digits.
extern "C" __global__ void take(uint32_t count, const float *__restrict__ points, uint32_t stride, const float *__restrict__ centroids,
                                const uint32_t *__restrict__ has_moved, const uint32_t *__restrict__ choice_labels,
                                const float *__restrict__ choice_scores, uint32_t *labels, float *scores, float *distances,
                                uint32_t *changed, uint32_t *sizes) {
    const uint32_t point = blockIdx.x * (blockDim.x / WARP) + warp_id();
    if (point >= count) {
        return;
    }
    const uint32_t own = labels[point], choice = choice_labels[point];
    __syncwarp(); // all lanes have read what the first one writes
    const bool other = own != choice;
    if (other || has_moved[choice]) {
        const float *x = points + static_cast<size_t>(point) * stride, *c = centroids + static_cast<size_t>(choice) * stride;
        const float distance = squared_distance(x, c, stride);
        if (lane_id() == 0) {
            distances[point] = distance;
        }
    }
    if (lane_id() != 0) {
        return;
    }
    scores[point] = choice_scores[point];
    if (other) {
        labels[point] = choice;
        changed[choice] = 1;
        atomicAdd(&sizes[choice], 1);
        if (own != NONE) {
            changed[own] = 1;
            atomicSub(&sizes[own], 1);
        }
    }
}

} // namespace kmeans
