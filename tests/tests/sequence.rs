//! Sequences in batches: what they refuse, that they are then as they were, and that they do not see each other.

use a2ats_kernel::{
    Dtype, Kernels,
    decode::{Estimate, Sparsity},
};
use a2ats_model::{Attention, Batch, Chunk, Codebooks, Model, Sequence, Wanted, Workspace};
use a2ats_tests::{
    backends::on_every_backend,
    golden::{Golden, case},
    inputs::Noise,
    reader::Reader,
};
use std::{ops::ControlFlow, sync::Arc};

const CASE: &str = "mha-d32-tied";

fn open_with(name: &str, kernels: &'static dyn Kernels) -> (Model, Arc<Codebooks>) {
    let model = Model::open(&case(name), kernels).unwrap();
    let file = case(name).join("codebooks_reference.safetensors");
    let books = Codebooks::open(&file, model.owner(), Dtype::F16).unwrap();
    (model, Arc::new(books))
}

fn open(name: &str) -> (Model, Arc<Codebooks>) {
    open_with(name, a2ats_kernel::available()[0])
}

fn a2ats() -> Attention {
    Attention::A2ats(Sparsity::default())
}

fn on(_: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn an_id_outside_the_vocabulary_is_refused_before_anything_is_read() {
    let (model, books) = open(CASE);
    let mut reader = Reader::new(&model, Some(&books), a2ats(), Dtype::Bf16, 4000).unwrap();
    let size = model.spec().vocab_size as u32;
    let mut ids = vec![3; 3000];
    ids[2999] = size;
    let error = reader.read(&ids).unwrap_err().to_string();
    assert!(error.contains(&size.to_string()), "{error}");
    assert!(reader.sequence().is_empty() && reader.sequence().codes(0, 0).is_empty());
    reader.read(&[3, 4]).unwrap();
    assert!(reader.step(size).is_err());
    reader.step(5).unwrap();
    assert_eq!(reader.sequence().ids(), [3, 4, 5]);
}

#[test]
fn a_sequence_takes_no_more_tokens_than_it_was_made_for() {
    let (model, books) = open(CASE);
    let mut reader = Reader::new(&model, Some(&books), a2ats(), Dtype::Bf16, 3).unwrap();
    assert!(reader.read(&[1, 2, 3, 4]).is_err());
    reader.read(&[1, 2, 3]).unwrap();
    assert!(reader.step(4).unwrap_err().to_string().contains('4'));
    assert_eq!(reader.sequence().ids(), [1, 2, 3]);
}

#[test]
fn codebooks_of_a_model_of_another_shape_are_refused() {
    let (_, books) = open(CASE);
    let (other, _) = open("gqa4-d64");
    let new = |books, attention| Sequence::new(other.spec(), books, attention, Dtype::Bf16, 10);
    assert!(new(Some(books), a2ats()).is_err());
    assert!(new(None, a2ats()).is_err());
    new(None, Attention::Dense).unwrap();
}

#[test]
fn a_prefill_that_is_rewound_leaves_no_trace() {
    let (model, books) = open(CASE);
    let prompt = Golden::load(&case(CASE)).unwrap().prompt;
    let answer = |detour: bool| {
        let mut reader = Reader::new(&model, Some(&books), a2ats(), Dtype::Bf16, 1000).unwrap();
        reader.read(&prompt).unwrap();
        reader.step(7).unwrap();
        let before = reader.sequence().len();
        if detour {
            reader.read(&prompt[..50]).unwrap();
            reader.sequence().rewind(model.kernels(), before).unwrap();
            reader.break_off(&prompt[50..90]).unwrap();
        }
        assert_eq!(reader.sequence().len(), before);
        reader.read(&[9, 10, 11]).unwrap();
        reader.step(12).unwrap()
    };
    assert_eq!(answer(true), answer(false));
}

/// Ways to attend that come together in a batch.
fn ways() -> [Attention; 5] {
    let sparse =
        |retrieve, estimate| Attention::A2ats(Sparsity { retrieve, estimate, ..Sparsity::default() });
    [
        sparse(0.1, Estimate::Fixed),
        Attention::Dense,
        sparse(0.3, Estimate::Averaged),
        sparse(0.05, Estimate::Off),
        // Dense first: its prompt has 254 tokens.
        Attention::Auto(Sparsity { retrieve: 0.1, ..Sparsity::default() }, 256),
    ]
}

/// A few steps of `count` sequences of different lengths and ways to attend, and of a prompt read in chunks meanwhile: all together, or
/// each alone. Gives the logits of each.
fn run(model: &Model, books: &[Arc<Codebooks>], count: usize, together: bool) -> Vec<Vec<f32>> {
    const STEPS: usize = 3;
    let mut noise = Noise::new(5);
    let mut ids =
        |len: usize| -> Vec<u32> { (0..len).map(|_| noise.below(model.spec().vocab_size) as u32).collect() };
    let mut workspace = Workspace::default();
    let mut sequences = Vec::new();
    for number in 0..count {
        let (attention, books) = (ways()[number % 5], &books[number % books.len()]);
        let mut sequence =
            Sequence::new(model.spec(), Some(Arc::clone(books)), attention, Dtype::Bf16, 700).unwrap();
        let read = model.prefill(&mut sequence, &ids(90 + 41 * number), None, &mut workspace, &mut on);
        assert!(read.unwrap().is_continue());
        sequences.push(sequence);
    }
    let prompt = ids(STEPS * 60);
    let mut reading =
        Sequence::new(model.spec(), Some(Arc::clone(&books[0])), a2ats(), Dtype::Bf16, 700).unwrap();
    let mut logits = vec![Vec::new(); count + 1];
    for step in 0..STEPS {
        let tokens = ids(count);
        let mut forward = |batch: &mut Batch<'_>, rows: &[usize]| {
            assert!(model.forward(batch, &mut workspace, &mut on).unwrap().is_continue());
            for (row, &to) in rows.iter().enumerate() {
                logits[to].extend_from_slice(workspace.logits(row));
            }
        };
        let chunk = &prompt[step * 60..(step + 1) * 60];
        let chunk = Chunk { sequence: &mut reading, ids: chunk, logits: Wanted::Last, observer: None };
        if together {
            let rows: Vec<usize> = (0..=count).collect();
            forward(&mut Batch { steps: &mut sequences, ids: &tokens, chunk: Some(chunk) }, &rows);
        } else {
            for number in 0..count {
                let (steps, ids) = (&mut sequences[number..=number], &tokens[number..=number]);
                forward(&mut Batch { steps, ids, chunk: None }, &[number]);
            }
            forward(&mut Batch { chunk: Some(chunk), ..Batch::default() }, &[count]);
        }
        sequences.iter_mut().for_each(|sequence| sequence.sort_some(model.kernels()).unwrap());
    }
    logits
}

#[test]
fn sequences_have_the_same_bits_alone_and_in_a_batch_on_any_number_of_threads() {
    on_every_backend(|kernels| {
        for name in [CASE, "gqa4-d64"] {
            let (model, books) = open_with(name, kernels);
            let (_, others) = open_with(name, kernels);
            let books = [Arc::clone(&books), Arc::clone(&books), books, others];
            let count = 7;
            let alone = run(&model, &books, count, false);
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let together = pool.install(|| run(&model, &books, count, true));
                for (number, (alone, together)) in alone.iter().zip(&together).enumerate() {
                    let same = alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(
                        same && alone.len() == together.len(),
                        "{} {name}: sequence {number}",
                        kernels.name()
                    );
                }
            }
        }
    });
}

#[test]
fn logits_of_all_tokens_are_those_of_the_steps() {
    let (model, books) = open(CASE);
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 90).collect();
    let sequence =
        || Sequence::new(model.spec(), Some(Arc::clone(&books)), Attention::Dense, Dtype::F32, 50).unwrap();
    let mut workspace = Workspace::default();
    let mut all = sequence();
    let chunk = Some(Chunk { sequence: &mut all, ids: &ids, logits: Wanted::All, observer: None });
    assert!(
        model
            .forward(&mut Batch { chunk, ..Batch::default() }, &mut workspace, &mut on)
            .unwrap()
            .is_continue()
    );
    let mut steps = Workspace::default();
    let mut stepping = [sequence()];
    for (row, id) in ids.iter().enumerate() {
        let mut batch = Batch { steps: &mut stepping, ids: &[*id], chunk: None };
        assert!(model.forward(&mut batch, &mut steps, &mut on).unwrap().is_continue());
        let (got, want) = (workspace.logits(row), steps.logits(0));
        let error: f32 = got.iter().zip(want).map(|(a, b)| (a - b).abs()).sum();
        let size: f32 = want.iter().map(|x| x.abs()).sum();
        assert!(error <= 1e-3 * size, "token {row}: off by {error} of {size}");
    }
}

#[test]
fn a_fork_goes_its_own_way() {
    let (model, books) = open(CASE);
    let prompt = Golden::load(&case(CASE)).unwrap().prompt;
    let mut workspace = Workspace::default();
    let mut first = Sequence::new(model.spec(), Some(books), a2ats(), Dtype::Bf16, 1000).unwrap();
    assert!(model.prefill(&mut first, &prompt, None, &mut workspace, &mut on).unwrap().is_continue());
    let second = first.fork().unwrap();
    let mut both = [first, second];
    let mut step = |sequences: &mut [Sequence], ids: &[u32]| -> Vec<f32> {
        let mut batch = Batch { steps: sequences, ids, chunk: None };
        assert!(model.forward(&mut batch, &mut workspace, &mut on).unwrap().is_continue());
        workspace.logits(0).to_vec()
    };
    step(&mut both, &[5, 9]);
    assert_eq!((both[0].ids().last(), both[1].ids().last()), (Some(&5), Some(&9)));
    let [mut first, second] = both;
    // The first goes back, and takes the other's way.
    first.rewind(model.kernels(), prompt.len()).unwrap();
    let mut both = [first, second];
    step(&mut both[..1], &[9]);
    assert_eq!(both[0].ids(), both[1].ids());
    let first = step(&mut both[..1], &[11]);
    assert_eq!(first, step(&mut both[1..], &[11]));
}

#[test]
fn an_error_in_the_middle_leaves_all_sequences_as_they_were() {
    let (model, books) = open(CASE);
    let new = |capacity| {
        Sequence::new(model.spec(), Some(Arc::clone(&books)), a2ats(), Dtype::Bf16, capacity).unwrap()
    };
    let mut workspace = Workspace::default();
    let mut sequences = [new(100), new(100)];
    for sequence in &mut sequences {
        assert!(model.prefill(sequence, &[1, 2, 3], None, &mut workspace, &mut on).unwrap().is_continue());
    }
    let mut layers = 0;
    let mut batch = Batch { steps: &mut sequences, ids: &[4, 5], chunk: None };
    let broken = model.forward(&mut batch, &mut workspace, &mut |_| {
        layers += 1;
        ControlFlow::Break(())
    });
    assert!(broken.unwrap().is_break() && layers == 1);
    assert!(sequences.iter().all(|sequence| sequence.ids() == [1, 2, 3] && sequence.codes(0, 0).len() == 3));
    let mut batch = Batch { steps: &mut sequences, ids: &[4], chunk: None };
    assert!(model.forward(&mut batch, &mut workspace, &mut on).is_err(), "as many tokens as sequences");
}

/// Dense steps put codes off; they are those of a sequence that looked each up at once, also after going back and in a fork.
#[test]
fn codes_that_were_put_off_are_the_right_ones() {
    on_every_backend(|kernels| {
        let (model, books) = open_with("gqa4-d64", kernels);
        for window in [1, 5, 64] {
            let sparsity = Sparsity { retrieve: 1.0, window, ..Sparsity::default() };
            let read = |attention| {
                let mut reader = Reader::new(&model, Some(&books), attention, Dtype::F32, 300).unwrap();
                reader.read(&[5; 20]).unwrap();
                for id in 0..150 {
                    reader.step(id * 7 % 400).unwrap();
                }
                // Back into what has no codes yet, and on.
                let back = reader.sequence().len() - 3;
                reader.sequence().rewind(model.kernels(), back).unwrap();
                let fork = reader.sequence().fork().unwrap();
                *reader.sequence() = fork;
                for id in [9, 8, 7, 6] {
                    reader.step(id).unwrap();
                }
                let heads = model.spec().num_key_value_heads;
                let layers = 0..model.spec().num_hidden_layers;
                let all = layers.flat_map(|layer| (0..heads).map(move |head| (layer, head)));
                all.flat_map(|(layer, head)| reader.sequence().codes(layer, head)).collect::<Vec<u16>>()
            };
            // The last step but one is dense, the last one is not.
            let (put_off, at_once) = (read(Attention::Auto(sparsity, 171)), read(Attention::A2ats(sparsity)));
            assert_eq!(put_off.len(), at_once.len());
            let different = put_off.iter().zip(&at_once).filter(|(a, b)| a != b).count();
            // Rows in another order round in another way, and near ties may go either way.
            assert!(different * 100 <= put_off.len(), "{}: {different} of {}", kernels.name(), put_off.len());
        }
    });
}
