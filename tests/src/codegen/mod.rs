//! Reads the assembly that the kernels compile to, and finds what tests of results cannot: code that is right and slow.
//!
//! The generic kernels are fast only if everything in them is inlined into the instruction set's entry and the sums of
//! a tile stay in registers. Neither is promised by the compiler; both were lost before without any test failing.
//!
//! | found | in | is |
//! |---|---|---|
//! | an intrinsic or a method of `Simd` as a function of its own | any function of a backend | a failure |
//! | packed arithmetic in a function without a loop: a piece of a kernel that was not inlined | same | a failure |
//! | packed arithmetic in instructions older than the backend: a function that lacks its features | same | a failure |
//! | a call, a spilled or reloaded vector register | an inner loop with multiply-adds | a failure |
//! | scalar or narrower multiply-adds beside those | same | a failure |
//! | other scalar or narrower arithmetic beside them | same | a warning |
//! | a backend, kernel or storage type without any such loop | the kernel table | a failure |
//! | a callback outlined, but without vectors in it | any function of a backend | a warning |
//!
//! A loop with multiply-adds around a loop without any, say of prefetches, is held to the same, with warnings.
//!
//! No list of allowed calls is needed: a kernel may call what it likes outside of its inner loops, as long as the
//! callee is no piece of a kernel, which the first three rows decide by what is in it. Panics do not disturb: code that
//! ends in one never comes back, so it is not part of a loop.
//!
//! The compiler's own comments in the assembly say which blocks form a loop and which accesses to the stack are spills.
//! They need an unstable option, which is switched on for the kernel crate alone. The code seen is that of the crate
//! by itself; a program linked with link-time optimization is optimized once more and may differ in details.

mod backends;
mod compile;
mod coverage;
mod finding;
mod listing;
mod loops;
mod names;
mod report;
mod rules;
mod syntax;
#[cfg(test)]
mod tests;

pub use report::Report;

use std::fs;
use syntax::Syntax;

/// Compiles the kernels for `target`, or this machine, and checks what came out.
///
/// # Errors
/// If the kernels cannot be compiled, the target is not an architecture with vector backends, or the assembly cannot
/// be read.
pub fn check(target: Option<&str>) -> Result<Report, String> {
    let syntax = Syntax::of_target(target.unwrap_or(std::env::consts::ARCH))?;
    let path = compile::assembly(target)?;
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Report::new(&path, syntax, listing::functions(&text, syntax)))
}
