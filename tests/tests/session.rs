//! What a session refuses, and that it is then as it was.

use a2ats_kernel::{Dtype, decode::Sparsity};
use a2ats_model::{Attention, Codebooks, Model, Session};
use a2ats_tests::golden::{Golden, case};
use std::ops::ControlFlow;

const CASE: &str = "mha-d32-tied";

fn open(name: &str) -> (Model, Codebooks) {
    let model = Model::open(&case(name), a2ats_kernel::available()[0]).unwrap();
    let books =
        Codebooks::open(&case(name).join("codebooks_reference.safetensors"), &model, Dtype::F16).unwrap();
    (model, books)
}

fn a2ats() -> Attention {
    Attention::A2ats(Sparsity::default())
}

#[test]
fn an_id_outside_the_vocabulary_is_refused_before_anything_is_read() {
    let (model, books) = open(CASE);
    let mut session = Session::new(&model, Some(&books), a2ats(), Dtype::Bf16, 10).unwrap();
    let size = model.spec().vocab_size as u32;
    let mut ids = vec![3; 3000];
    ids[2999] = size;
    let error = session.prefill(&ids, |_| ControlFlow::Continue(())).unwrap_err().to_string();
    assert!(error.contains(&size.to_string()), "{error}");
    assert!(session.ids().is_empty() && session.cache().tokens() == 0);
    session.prefill(&[3, 4], |_| ControlFlow::Continue(())).unwrap();
    assert!(session.decode(size).is_err());
    session.decode(5).unwrap();
    assert_eq!(session.ids(), [3, 4, 5]);
}

#[test]
fn codebooks_of_a_model_of_another_shape_are_refused() {
    let (_, books) = open(CASE);
    let (other, _) = open("gqa4-d64");
    assert!(Session::new(&other, Some(&books), a2ats(), Dtype::Bf16, 10).is_err());
    assert!(Session::new(&other, None, a2ats(), Dtype::Bf16, 10).is_err());
    Session::new(&other, None, Attention::Dense, Dtype::Bf16, 10).unwrap();
}

#[test]
fn a_prefill_that_is_rewound_leaves_no_trace() {
    let (model, books) = open(CASE);
    let prompt = Golden::load(&case(CASE)).unwrap().prompt;
    let on = |_| ControlFlow::Continue(());
    let answer = |detour: bool| {
        let mut session = Session::new(&model, Some(&books), a2ats(), Dtype::Bf16, 1000).unwrap();
        session.prefill(&prompt, on).unwrap();
        session.decode(7).unwrap();
        let before = session.ids().len();
        if detour {
            session.prefill(&prompt[..50], on).unwrap();
            session.rewind(before).unwrap();
            assert!(session.prefill(&prompt[50..90], |_| ControlFlow::Break(())).unwrap().is_none());
        }
        assert_eq!(session.ids().len(), before);
        session.prefill(&[9, 10, 11], on).unwrap();
        session.decode(12).unwrap()
    };
    assert_eq!(answer(true), answer(false));
}
