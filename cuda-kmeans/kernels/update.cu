// Centroids to the means of their points.
#include "common.cuh"

namespace kmeans {

constexpr int UPDATE_THREADS = 128;

// Adds up the points of a cluster, a block each, in the order of their numbers: `sums` is `[clusters, dim]`, `totals` are weights. Goes
// on from what is there, unless this is the first batch. Clusters that are as they were are left out.
extern "C" __global__ void __launch_bounds__(UPDATE_THREADS, 8)
add_members(const float *__restrict__ points, const float *__restrict__ weights, uint32_t stride, uint32_t dim,
            const uint32_t *__restrict__ members, const uint32_t *__restrict__ starts, const uint32_t *__restrict__ changed,
            uint32_t is_first, double *sums, double *totals) {
    const uint32_t cluster = blockIdx.x;
    if (!changed[cluster]) {
        return;
    }
    const uint32_t begin = starts[cluster], end = starts[cluster + 1];
    for (uint32_t at = threadIdx.x; at < dim; at += UPDATE_THREADS) {
        double *place = sums + static_cast<size_t>(cluster) * dim + at;
        double sum = is_first ? 0 : *place, total = is_first || at != 0 ? 0 : totals[cluster];
#pragma unroll 4
        for (uint32_t i = begin; i < end; ++i) {
            const uint32_t point = members[i];
            const double weight = weights ? weights[point] : 1;
            sum += weight * static_cast<double>(points[static_cast<size_t>(point) * stride + at]);
            total += weight;
        }
        *place = sum;
        if (at == 0) {
            totals[cluster] = total;
        }
    }
}

// Moves a centroid, a block each, and says whether and how far it moved.
extern "C" __global__ void __launch_bounds__(UPDATE_THREADS)
move_centroids(const double *__restrict__ sums, const double *__restrict__ totals, uint32_t stride, uint32_t dim, uint32_t *changed,
               float *centroids, float *half_norms, uint32_t *has_moved, double *ways) {
    const uint32_t cluster = blockIdx.x;
    const bool is_new = changed[cluster] && totals[cluster] > 0;
    __syncthreads();
    float *centroid = centroids + static_cast<size_t>(cluster) * stride;
    double way = 0, norm = 0;
    if (is_new) {
        for (uint32_t at = threadIdx.x; at < dim; at += UPDATE_THREADS) {
            const float mean = static_cast<float>(sums[static_cast<size_t>(cluster) * dim + at] / totals[cluster]);
            const double step = mean - centroid[at];
            way += step * step;
            norm += static_cast<double>(mean) * mean;
            centroid[at] = mean;
        }
    }
    way = sqrt(block_sum<UPDATE_THREADS>(way));
    norm = block_sum<UPDATE_THREADS>(norm);
    if (threadIdx.x == 0) {
        if (way > 0) {
            half_norms[cluster] = static_cast<float>(0.5 * norm);
        }
        changed[cluster] = 0;
        has_moved[cluster] = way > 0;
        ways[cluster] = way;
    }
}

// The numbers of the centroids that moved, and of the others, both ascending; and the sum of the ways. One block.
extern "C" __global__ void __launch_bounds__(1024)
list_moved(uint32_t clusters, const uint32_t *__restrict__ has_moved, const double *__restrict__ ways, uint32_t *moved, uint32_t *others,
           Status *status) {
    double way = 0;
    uint32_t before = 0;
    for (uint32_t first = 0; first < clusters; first += 1024) {
        const uint32_t cluster = first + threadIdx.x;
        const bool valid = cluster < clusters;
        const uint32_t own = valid ? has_moved[cluster] : 0;
        uint32_t total;
        const uint32_t upto = before + block_scan<1024>(own, total);
        if (own) {
            moved[upto - 1] = cluster;
        } else if (valid) {
            others[cluster - upto] = cluster;
        }
        before += total;
        way += valid ? ways[cluster] : 0;
    }
    way = block_sum<1024>(way);
    if (threadIdx.x == 0) {
        status->candidates = before;
        status->others = clusters - before;
        status->way = way;
    }
}

} // namespace kmeans
