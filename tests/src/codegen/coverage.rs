//! Whether there was anything to check: every kernel must reach inner loops with multiply-adds.

use super::{backends::Backend, finding::Finding, listing::Function, loops, names};
use std::collections::{BTreeSet, HashMap};

/// The storage types, each of which has loops of its own.
const STORAGE: [&str; 3] = ["f32", "half::binary16::f16", "half::bfloat::bf16"];

/// Methods that loop without multiply-adds: they compare and count, rearrange, or add.
const WITHOUT_PRODUCTS: [&str; 4] = ["select_codes", "prepare", "pack", "sum_values"];

/// The kernels of a backend, by method of the kernel table, that have no inner loop with multiply-adds, or none for
/// one of the storage types that they are compiled for.
///
/// Methods that repeat nothing are no kernels.
pub(super) fn findings(backend: &Backend, functions: &[Function]) -> Vec<Finding> {
    let calls = Calls::new(functions);
    let mut findings = Vec::new();
    for (method, entry) in &backend.table {
        let reached: Vec<&Function> = calls
            .reached(*entry)
            .into_iter()
            .map(|at| &functions[at])
            .filter(|at| backend.owns(at))
            .collect();
        if WITHOUT_PRODUCTS.contains(&method.as_str()) || !reached.iter().any(|function| function.has_loop())
        {
            continue;
        }
        let place = format!("{}: {method}", backend.name);
        let looping = |function: &&&Function| !loops::multiply_add_loops(function).is_empty();
        if reached.iter().find(looping).is_none() {
            findings.push(Finding::of(&place, "no inner loop with multiply-adds"));
            continue;
        }
        for storage in STORAGE {
            let mut of_storage =
                reached.iter().filter(|function| names::mentions(&function.name, storage)).peekable();
            if of_storage.peek().is_some() && of_storage.find(looping).is_none() {
                findings.push(Finding::of(&place, format!("no inner loop with multiply-adds for {storage}")));
            }
        }
    }
    findings
}

/// Which functions name which.
struct Calls {
    of: Vec<Vec<usize>>,
}

impl Calls {
    fn new(functions: &[Function]) -> Self {
        let index: HashMap<&str, usize> =
            functions.iter().enumerate().map(|(index, function)| (function.symbol.as_str(), index)).collect();
        let symbols = |function: &Function| {
            function
                .instructions()
                .flat_map(|one| one.symbols())
                .filter_map(|name| index.get(name).copied())
                .collect()
        };
        Self { of: functions.iter().map(symbols).collect() }
    }

    /// The function `entry` and all that run because of it.
    fn reached(&self, entry: usize) -> BTreeSet<usize> {
        let mut reached = BTreeSet::from([entry]);
        let mut todo = vec![entry];
        while let Some(at) = todo.pop() {
            todo.extend(self.of[at].iter().copied().filter(|&next| reached.insert(next)));
        }
        reached
    }
}
