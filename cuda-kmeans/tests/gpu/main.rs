//! Clustering on a GPU, held to the reference and to the CPU's clusterer.
//!
//! On an emulated GPU, which interprets the kernels and checks every access of memory; with `A2ATS_TEST_GPU=1` on the machine's own, where
//! shapes are larger.

mod against_cpu;
mod alone;
mod device;
