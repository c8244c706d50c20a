//! The inner loops that kernels are made of.
//!
//! - `dot`: a few queries times a few rows, sums in registers along the rows. The lanes of a sum are added up in the end.
//! - `broadcast`: many vectors, one a lane; elements of rows are broadcast to all lanes.
//! - `panel`: a few vectors times rows that lie in panels, one a lane: codewords.
//! - `block`: rows in blocks, wherever they lie; `rows`: those times queries, by `dot`.
//! - `prefetch`: which lines of memory are prefetched during an inner loop, apart from its arithmetic.
//! - `walk`: walks over rows whose bounds are checked once, before the loop.

pub(crate) mod block;
pub(crate) mod broadcast;
pub(crate) mod dot;
pub(crate) mod panel;
pub(crate) mod prefetch;
#[cfg(test)]
pub(crate) mod recording;
pub(crate) mod rows;
pub(crate) mod walk;
