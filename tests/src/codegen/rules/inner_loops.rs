//! What an inner loop with multiply-adds must not hold.

use crate::codegen::{
    backends::Backend,
    finding::Finding,
    loops::{self, Loop},
    syntax::{Arithmetic, Width},
};

/// What is wrong in a loop. Loops that have others inside of them come with what is done once for each of those, so
/// they only get warnings.
pub(super) fn findings(backend: &Backend, at: &Loop<'_>) -> Vec<Finding> {
    let less = |multiply_add: bool| {
        let wanted = |found: Arithmetic| found.multiply_add == multiply_add && is_less(found.width, backend);
        at.select(|one| one.effects.arithmetic.is_some_and(wanted))
    };
    let rules = [
        (false, "calls a function", at.select(|one| one.effects.call)),
        (
            false,
            "vector registers go to the stack and back",
            at.select(|one| one.spill && one.effects.vector),
        ),
        (false, "multiply-adds of less than a register beside whole ones", less(true)),
        // The sum of a register's lanes looks like this too, and is in place where a loop finishes a row per turn.
        (true, "other arithmetic on less than a register", less(false)),
    ];
    let broken = rules.iter().filter(|(.., lines)| !lines.is_empty());
    let own = broken.map(|(mild, what, lines)| {
        Finding::in_loop(backend, at, what, lines).lenient(*mild || !at.innermost)
    });
    own.chain(calls_inside(backend, at)).collect()
}

/// What loops inside of a loop with multiply-adds call: they have none themselves, but run as often.
fn calls_inside(backend: &Backend, at: &Loop<'_>) -> Vec<Finding> {
    let calls = |inner: &Loop<'_>| {
        let lines = inner.select(|one| one.effects.call);
        (!lines.is_empty())
            .then(|| Finding::in_loop(backend, inner, "calls a function beside multiply-adds", &lines))
    };
    loops::inside(at.function, at.header).iter().filter_map(calls).collect()
}

fn is_less(width: Width, backend: &Backend) -> bool {
    match width {
        Width::Scalar => true,
        Width::Packed(bits) => bits < backend.bits,
    }
}
