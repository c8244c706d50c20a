//! Pieces of kernels that should have been inlined, and were not.

use crate::codegen::{
    backends::Backend,
    compile::CRATE,
    finding::{Finding, text_of},
    listing::{Function, Instruction},
    names,
    syntax::{Arithmetic, Width},
};

/// What a function has to do with pieces of kernels: using some, or being one.
pub(super) fn findings(backend: &Backend, function: &Function) -> Vec<Finding> {
    let mut findings: Vec<Finding> = uses_of_pieces(backend, function).into_iter().collect();
    let packed = packed_arithmetic(function, |_| true);
    if !packed.is_empty() && !function.has_loop() {
        let what = "vector arithmetic without a loop: a piece of a kernel that was not inlined, called for a few \
                    registers at a time";
        findings.push(Finding::in_function(backend, &function.name, what, text_of(&packed)));
    }
    let outdated = packed_arithmetic(function, |arithmetic| arithmetic.outdated);
    if !outdated.is_empty() {
        let what = "arithmetic in instructions older than the backend: compiled without its features";
        findings.push(Finding::in_function(backend, &function.name, what, text_of(&outdated)));
    }
    findings
}

/// Callbacks that are functions of their own, but have no vectors to lose.
pub(super) fn callbacks(backend: &Backend, functions: &[Function]) -> Option<Finding> {
    let outlined: Vec<&Function> = functions
        .iter()
        .filter(|function| backend.owns(function) && names::is_callback(&function.name, CRATE))
        .filter(|function| packed_arithmetic(function, |_| true).is_empty())
        .collect();
    let what =
        format!("{} callbacks were not inlined; there is no vector arithmetic in them", outlined.len());
    (!outlined.is_empty()).then(|| Finding::of_functions(backend, &what, &outlined))
}

/// Intrinsics and methods of `Simd` that are called, or whose address is taken to be called.
fn uses_of_pieces(backend: &Backend, function: &Function) -> Option<Finding> {
    let mut lines = Vec::new();
    for instruction in function.instructions() {
        for name in instruction.symbols().map(names::demangled) {
            if names::is_intrinsic(&name) || names::is_simd_method(&name) {
                lines.push((instruction.line, names::short(&name)));
            }
        }
    }
    let what = "intrinsics or methods of Simd that were not inlined and are called as functions";
    (!lines.is_empty()).then(|| Finding::in_function(backend, &function.name, what, lines))
}

fn packed_arithmetic(function: &Function, like: impl Fn(Arithmetic) -> bool) -> Vec<&Instruction> {
    let packed = |found: Arithmetic| matches!(found.width, Width::Packed(_)) && like(found);
    function.instructions().filter(|one| one.effects.arithmetic.is_some_and(packed)).collect()
}
