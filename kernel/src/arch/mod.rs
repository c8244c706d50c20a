//! The instruction sets: all the intrinsics, and nothing else. Each file makes one [`Simd`](crate::simd::Simd).
//!
//! | backend | needs | for |
//! |---|---|---|
//! | `avx512bf16` | AVX-512 F, BW, DQ, VL and BF16 | Zen 4 and later, Cooper Lake, Sapphire Rapids and later |
//! | `avx512` | AVX-512 F, BW, DQ, VL | Skylake-X, Ice Lake, Rocket Lake |
//! | `avx2` | AVX2, FMA, F16C | x86-64 since Haswell and Zen |
//! | `neonbf16` | NEON and FEAT_BF16 | Graviton 3 and 4, Neoverse V1 and N2, Apple M2 and later |
//! | `neon` | NEON (every AArch64) | Apple silicon, Graviton, Ampere, phones |
//! | `portable` | nothing | everything else, through `wide` |
#![allow(unsafe_code, reason = "intrinsics that read and write memory; every other file here is safe")]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512bf16;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neonbf16;
pub(crate) mod portable;
