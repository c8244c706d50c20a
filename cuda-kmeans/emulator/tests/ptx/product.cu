// A product of matrices in tiles: copies run ahead of the products by one stage.
#include <cstdint>

constexpr int TILE = 32;
constexpr int DEPTH = 16;
// Rows are apart by more than their length, so that those of a matrix are in different banks.
constexpr int STRIDE = DEPTH + 4;

__device__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ void copy_tile(float* to, const float* from, int rows, int depth, int row, int column) {
    for (int piece = threadIdx.x; piece < TILE * DEPTH / 4; piece += blockDim.x) {
        int r = piece / (DEPTH / 4), c = piece % (DEPTH / 4) * 4;
        int bytes = row + r < rows ? 16 : 0;
        const float* source = from + static_cast<size_t>(bytes ? row + r : 0) * depth + column + c;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to + r * STRIDE + c)),
                     "l"(source), "r"(bytes));
    }
}

// The row of a matrix of which this lane gives the address, and the four floats of it.
__device__ void load(uint32_t (&to)[4], const float* tile, int row) {
    int lane = threadIdx.x % 32;
    const float* address = tile + (row + lane % 8 + lane / 8 % 2 * 8) * STRIDE + lane / 16 * 4;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(address)));
    for (uint32_t& value : to) {
        asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(value) : "f"(__uint_as_float(value)));
    }
}

__device__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Of each two rows of `a` and `b` the product. Two warps: each has 16 rows of the tile.
extern "C" __global__ void product(const float* a, const float* b, float* c, int rows, int columns, int depth) {
    __shared__ __align__(16) float tiles_a[2][TILE * STRIDE];
    __shared__ __align__(16) float tiles_b[2][TILE * STRIDE];
    int row = blockIdx.y * TILE, column = blockIdx.x * TILE;
    int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16;
    float sums[4][4] = {};
    copy_tile(tiles_a[0], a, rows, depth, row, 0);
    copy_tile(tiles_b[0], b, columns, depth, column, 0);
    asm volatile("cp.async.commit_group;");
    for (int at = 0, stage = 0; at < depth; at += DEPTH, stage ^= 1) {
        if (at + DEPTH < depth) {
            copy_tile(tiles_a[stage ^ 1], a, rows, depth, row, at + DEPTH);
            copy_tile(tiles_b[stage ^ 1], b, columns, depth, column, at + DEPTH);
        }
        asm volatile("cp.async.commit_group;");
#ifndef NO_WAIT
        asm volatile("cp.async.wait_group 1;");
#endif
        __syncthreads();
        for (int k = 0; k < DEPTH; k += 8) {
            uint32_t left[4], right[2][4];
            load(left, tiles_a[stage] + k, own);
            load(right[0], tiles_b[stage] + k, 0);
            load(right[1], tiles_b[stage] + k, 16);
            for (int n = 0; n < 4; n++) {
                multiply(sums[n], left, right[n / 2][n % 2], right[n / 2][n % 2 + 2]);
            }
        }
#ifndef NO_BARRIER
        __syncthreads();
#endif
    }
    for (int n = 0; n < 4; n++) {
        for (int i = 0; i < 4; i++) {
            int r = row + own + lane / 4 + i / 2 * 8, s = column + n * 8 + lane % 4 * 2 + i % 2;
            if (r < rows && s < columns) {
                c[static_cast<size_t>(r) * columns + s] = sums[n][i];
            }
        }
    }
}
