//! Where everything lies in the one piece of device memory that a clustering takes, and how many points of a batch fit.

use crate::error::DeviceError;
use std::marker::PhantomData;

/// Most candidates of a round of k-means++, as in `kernels/seeding.cu`.
pub const CANDIDATES: usize = 1024;

/// Keys of a block of the sort, as in `kernels/sort.cu`.
pub const KEYS_PER_BLOCK: usize = 2048;

/// Values of a digit of the sort.
pub const DIGITS: usize = 256;

/// Points of a block of the probabilities, as in `kernels/seeding.cu`.
pub const ODDS_BLOCK: usize = 1024;

/// Coordinates of a slice, as in `kernels/nearest.cu`: rows are filled up to whole ones with zeros.
const SLICE: usize = 16;

/// Arrays begin at multiples of this.
const ALIGNMENT: usize = 256;

/// Batches are whole multiples of this, the last one excepted.
const BATCH_STEP: usize = 1024;

/// Kernels number points and their threads with 32 bits.
const MOST_POINTS: usize = (1 << 32) - (1 << 12);

/// What is to be clustered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// How many points.
    pub count: usize,
    /// Numbers of a point.
    pub dim: usize,
    /// How many centroids.
    pub clusters: usize,
    /// Whether points count differently.
    pub weighted: bool,
}

impl Shape {
    /// Numbers of a row, points and centroids alike.
    pub const fn stride(&self) -> usize {
        self.dim.next_multiple_of(SLICE)
    }
}

/// An array of `T` in the memory.
#[derive(Debug)]
pub struct Region<T> {
    /// Bytes before it.
    pub offset: usize,
    /// How many.
    pub len: usize,
    of: PhantomData<T>,
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Region<T> {}

impl<T> Region<T> {
    /// The same memory as an array of another type.
    pub fn same_bytes<U>(from: Region<U>) -> Self {
        Self { offset: from.offset, len: from.len * size_of::<U>() / size_of::<T>(), of: PhantomData }
    }
}

/// Lays arrays one behind the other.
#[derive(Default)]
struct Builder {
    bytes: usize,
}

impl Builder {
    fn array<T>(&mut self, len: usize) -> Region<T> {
        let offset = self.bytes;
        self.bytes = offset
            .saturating_add(len.saturating_mul(size_of::<T>()))
            .div_ceil(ALIGNMENT)
            .saturating_mul(ALIGNMENT);
        Region { offset, len, of: PhantomData }
    }
}

/// All arrays of a clustering. Those without another word are `[n]`, `[batch]` or `[clusters]`, see the kernels.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the kernels, which have the same names, say what is in them")]
pub struct Layout {
    /// Points of a batch.
    pub batch: usize,
    /// Batches in memory at a time: one, if it is all points, else two.
    pub slots: usize,
    /// Of everything.
    pub bytes: usize,
    // Of all points.
    pub weights: Region<f32>,
    pub labels: Region<u32>,
    pub scores: Region<f32>,
    pub distances: Region<f32>,
    pub block_sums: Region<f64>,
    // Of a batch.
    /// `[slots, batch, stride]`
    pub points: Region<f32>,
    pub choice_labels: Region<u32>,
    pub choice_scores: Region<f32>,
    pub open: Region<u32>,
    pub open_count: Region<u32>,
    pub keys: [Region<u32>; 2],
    pub members: [Region<u32>; 2],
    pub digit_counts: Region<u32>,
    // Of clusters.
    /// `[clusters, stride]`
    pub centroids: Region<f32>,
    pub half_norms: Region<f32>,
    pub changed: Region<u32>,
    pub has_moved: Region<u32>,
    pub sizes: Region<u32>,
    /// `[clusters + 1]`
    pub starts: Region<u32>,
    /// `[clusters, dim]`
    pub sums: Region<f64>,
    pub totals: Region<f64>,
    pub ways: Region<f64>,
    pub moved: Region<u32>,
    pub others: Region<u32>,
    // Of a round of k-means++.
    pub numbers: Region<u32>,
    pub least: Region<f64>,
    pub rows: Region<f32>,
    pub too_near: Region<u32>,
    pub kept: Region<u32>,
    /// `Status`, in units of its alignment.
    pub status: Region<u64>,
}

impl Layout {
    /// Chooses the largest batch for which everything fits into `memory` bytes.
    ///
    /// # Errors
    /// [`DeviceError::TooLittleMemory`] if none does.
    pub fn new(shape: &Shape, memory: usize) -> Result<Self, DeviceError> {
        let whole = Self::with_batch(shape, shape.count, 1);
        if whole.bytes <= memory && shape.count <= MOST_POINTS {
            return Ok(whole);
        }
        let steps = shape.count.min(MOST_POINTS).div_ceil(BATCH_STEP);
        // Bytes rise with the batch.
        let (mut fits, mut too_many) = (0, steps + 1);
        while too_many - fits > 1 {
            let middle = fits.midpoint(too_many);
            if Self::with_batch(shape, middle * BATCH_STEP, 2).bytes <= memory {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        if fits == 0 || shape.count > MOST_POINTS {
            let Shape { count, dim, clusters, .. } = *shape;
            return Err(DeviceError::TooLittleMemory {
                clusters,
                count,
                dim,
                need: Self::least(shape),
                have: memory,
            });
        }
        Ok(Self::with_batch(shape, fits * BATCH_STEP, 2))
    }

    /// Bytes without which there is no clustering.
    pub fn least(shape: &Shape) -> usize {
        let whole = Self::with_batch(shape, shape.count, 1);
        Self::with_batch(shape, BATCH_STEP, 2).bytes.min(whole.bytes)
    }

    /// Lays everything out for batches of `batch` points.
    fn with_batch(shape: &Shape, batch: usize, slots: usize) -> Self {
        let Shape { count, dim, clusters, weighted } = *shape;
        let mut at = Builder::default();
        let mut layout = Self {
            batch,
            slots,
            bytes: 0,
            weights: at.array(if weighted { count } else { 0 }),
            labels: at.array(count),
            scores: at.array(count),
            distances: at.array(count),
            block_sums: at.array(count.div_ceil(ODDS_BLOCK)),
            points: at.array(slots.saturating_mul(batch).saturating_mul(shape.stride())),
            choice_labels: at.array(batch),
            choice_scores: at.array(batch),
            open: at.array(batch),
            open_count: at.array(1),
            keys: [at.array(batch), at.array(batch)],
            members: [at.array(batch), at.array(batch)],
            digit_counts: at.array(DIGITS * batch.div_ceil(KEYS_PER_BLOCK)),
            centroids: at.array(clusters.saturating_mul(shape.stride())),
            half_norms: at.array(clusters),
            changed: at.array(clusters),
            has_moved: at.array(clusters),
            sizes: at.array(clusters),
            starts: at.array(clusters + 1),
            sums: at.array(clusters.saturating_mul(dim)),
            totals: at.array(clusters),
            ways: at.array(clusters),
            moved: at.array(clusters),
            others: at.array(clusters),
            numbers: at.array(CANDIDATES),
            least: at.array(CANDIDATES),
            rows: at.array(shape.stride().saturating_mul(CANDIDATES)),
            too_near: at.array(CANDIDATES * CANDIDATES / 32),
            kept: at.array(CANDIDATES),
            status: at.array(8),
        };
        layout.bytes = at.bytes;
        layout
    }

    /// The points of a batch.
    pub fn range(&self, count: usize, batch: usize) -> std::ops::Range<usize> {
        let first = batch * self.batch;
        first..count.min(first + self.batch)
    }
}

/// Passes that sort labels of so many clusters, eight bits at a time; at least one.
pub fn sort_passes(clusters: usize) -> u32 {
    (usize::BITS - (clusters - 1).leading_zeros()).div_ceil(8).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { count: 80_000, dim: 128, clusters: 4096, weighted: false };

    #[test]
    fn all_points_are_one_batch_where_they_fit() {
        let layout = Layout::new(&SHAPE, 1 << 30).unwrap();
        assert_eq!((layout.batch, layout.slots), (80_000, 1));
        // The points are most of it.
        assert!(layout.bytes < 2 * 4 * 80_000 * 128, "{}", layout.bytes);
    }

    #[test]
    fn batches_are_as_large_as_the_memory_allows() {
        for memory in [16_000_000, 20_000_000, 40_000_001] {
            let layout = Layout::new(&SHAPE, memory).unwrap();
            assert!(layout.bytes <= memory && layout.batch < SHAPE.count, "{memory}: {}", layout.batch);
            let larger = Layout::with_batch(&SHAPE, layout.batch + BATCH_STEP, 2);
            assert!(larger.bytes > memory, "{memory}: {} are too few", layout.batch);
        }
    }

    #[test]
    fn too_little_memory_says_how_much_it_takes() {
        let Err(DeviceError::TooLittleMemory { need, have, .. }) = Layout::new(&SHAPE, 1_000_000) else {
            panic!()
        };
        assert_eq!(have, 1_000_000);
        assert!(Layout::new(&SHAPE, need).is_ok() && Layout::new(&SHAPE, need - 1).is_err());
    }

    #[test]
    fn sizes_beyond_all_memory_do_not_overflow() {
        let shape = Shape { count: usize::MAX / 2, dim: usize::MAX / 64, clusters: 1 << 31, weighted: true };
        assert!(matches!(Layout::new(&shape, usize::MAX / 2), Err(DeviceError::TooLittleMemory { .. })));
    }

    #[test]
    fn arrays_lie_apart() {
        for shape in [SHAPE, Shape { count: 3, dim: 17, clusters: 1, weighted: true }] {
            let Layout {
                batch,
                slots,
                weights,
                labels,
                distances,
                points,
                centroids,
                sums,
                starts,
                status,
                bytes,
                ..
            } = Layout::new(&shape, 1 << 30).unwrap();
            assert_eq!(shape.stride() % SLICE, 0);
            assert_eq!(points.len, slots * batch * shape.stride());
            let ends = [
                (weights.offset, weights.len * 4),
                (labels.offset, labels.len * 4),
                (distances.offset, distances.len * 4),
                (points.offset, points.len * 4),
                (centroids.offset, centroids.len * 4),
                (starts.offset, starts.len * 4),
                (sums.offset, sums.len * 8),
                (status.offset, status.len * 8),
                (bytes, 0),
            ];
            for two in ends.windows(2) {
                assert!(two[0].0 + two[0].1 <= two[1].0, "{two:?}");
                assert_eq!(two[0].0 % ALIGNMENT, 0);
            }
        }
    }

    #[test]
    fn ranges_cover_all_points_once() {
        let layout = Layout::new(&SHAPE, 20_000_000).unwrap();
        let batches = SHAPE.count.div_ceil(layout.batch);
        let ranges: Vec<_> = (0..batches).map(|batch| layout.range(SHAPE.count, batch)).collect();
        assert!(batches > 1 && ranges[0].start == 0 && ranges[batches - 1].end == SHAPE.count);
        assert!(ranges.windows(2).all(|two| two[0].end == two[1].start && !two[1].is_empty()));
    }

    #[test]
    fn labels_are_sorted_by_all_their_bits() {
        for (clusters, passes) in [(1, 1), (2, 1), (256, 1), (257, 2), (4096, 2), (65536, 2), (65537, 3)] {
            assert_eq!(sort_passes(clusters), passes, "{clusters}");
        }
    }
}
