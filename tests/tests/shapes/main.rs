//! No public function of the kernels' crate panics, whatever sizes its arguments have: what fits together is computed, what does not
//! is an error, and then nothing was written.
//!
//! Each case draws a call that fits, changes some of its arguments, and says whether what came of it fits still.

mod api;
mod attention;
mod bases;
mod clustering;
mod codebook;
mod decode;
mod draw;
mod elements;
mod elementwise;
mod estimate;
mod linear;
mod retrieval;
mod stores;

use a2ats_kernel::Kernels;
use a2ats_tests::{backends::on_every_backend, inputs::config};
use draw::{CHANGES, Draw};
use proptest::{collection::vec, prelude::*};
use std::collections::BTreeSet;

/// A function, and a call of it.
type Case = (&'static str, fn(&mut Draw<'_>));

/// The cases by module: the one list to extend.
const CASES: [&[Case]; 11] = [
    attention::CASES,
    bases::CASES,
    clustering::CASES,
    codebook::CASES,
    decode::CASES,
    elements::CASES,
    elementwise::CASES,
    estimate::CASES,
    linear::CASES,
    retrieval::CASES,
    stores::CASES,
];

/// Functions that need none, and why.
const WITHOUT_A_CASE: [(&str, &str); 3] = [
    ("Internals::select_codes", "takes a `Boundary`, which nobody else can make"),
    ("Points::point", "panics where indexing does, and says so"),
    ("Points::weight", "panics where indexing does, and says so"),
];

fn cases() -> impl Iterator<Item = Case> {
    CASES.into_iter().flatten().copied()
}

/// Tells, if a call panics, which one it was.
struct Told<'a>(&'a str, &'a str, &'a [u8], &'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} on {} with sizes {:?} and changes {:?}", self.0, self.1, self.2, self.3);
        }
    }
}

/// How many arguments there were to change, and whether they were accepted.
fn call(
    (name, case): Case,
    kernels: &'static dyn Kernels,
    sizes: &[u8],
    changes: &[u8],
) -> (usize, Option<bool>) {
    let _told = Told(name, kernels.name(), sizes, changes);
    let mut draw = Draw::new(kernels, sizes, changes);
    case(&mut draw);
    (draw.arguments, draw.accepted)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_does_not_fit_together_is_an_error_and_changes_nothing(
        sizes in vec(any::<u8>(), 24),
        changes in vec(prop_oneof![5 => Just(0), 1 => 1..=CHANGES], 16),
    ) {
        on_every_backend(|kernels| {
            for case in cases() {
                call(case, kernels, &sizes, &changes);
            }
        });
    }
}

/// Sizes for which every change of every argument is tried.
const SIZES: [&[u8]; 3] = [&[], &[2, 3, 1, 5, 1, 3, 2, 7, 1, 1], &[1, 2, 4, 30, 9, 2, 1, 6, 3, 5, 8]];

#[test]
fn each_change_by_itself_is_an_error_or_fits() {
    let (mut may_refuse, mut refused) = (BTreeSet::new(), BTreeSet::new());
    on_every_backend(|kernels| {
        for (case, sizes) in cases().flat_map(|case| SIZES.map(|sizes| (case, sizes))) {
            let (arguments, accepted) = call(case, kernels, sizes, &[]);
            assert_ne!(accepted, Some(false), "{}: nothing was changed", case.0);
            may_refuse.extend(accepted.map(|_| case.0));
            for argument in 0..arguments {
                for change in 1..=CHANGES {
                    let changes = [&vec![0; argument][..], &[change]].concat();
                    if call(case, kernels, sizes, &changes).1 == Some(false) {
                        refused.insert(case.0);
                    }
                }
            }
        }
    });
    assert_eq!(refused, may_refuse, "some refused nothing");
}

#[test]
fn every_public_function_with_arguments_has_a_case() {
    let functions = api::functions();
    for known in ["Kernels::attend", "Internals::nearest", "Store::append", "decode::decode_step", "Run::new"]
    {
        assert!(functions.iter().any(|function| function == known), "{known} was not found");
    }
    let has_one = |function: &String| {
        cases().map(|(name, _)| name).chain(WITHOUT_A_CASE.map(|(name, _)| name)).any(|name| name == function)
    };
    let missing: Vec<&String> = functions.iter().filter(|function| !has_one(function)).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
}
