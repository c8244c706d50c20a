//! Decode steps allocate nothing once their working memory has grown to its size.
#![allow(
    unsafe_code,
    reason = "an allocator that counts is unsafe to implement; each call goes to the system's"
)]

use a2ats_kernel::{
    Codebook, Dtype,
    decode::{Estimate, Sparsity, StepInput, StepScratch, decode_step},
    store::Store,
};
use a2ats_model::{Attention, Batch, Codebooks, Model, Sequence, Workspace};
use a2ats_tests::{
    backends::on_every_backend,
    golden::case,
    inputs::{Noise, unit_matrix},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    ops::ControlFlow,
    sync::Arc,
};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: the system's allocator, called with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn steps_allocate_nothing_but_what_a_log_grows_by() {
    let (head_dim, group, codes, steps) = (32, 4, 100, 50);
    for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
        let sparsity = Sparsity { estimate, ..Sparsity::default() };
        on_every_backend(|kernels| {
            let mut noise = Noise::new(3);
            let codewords = noise.vector(codes * head_dim, 1.0);
            let book = Codebook::new(&codewords, &unit_matrix(head_dim), head_dim, Dtype::Bf16).unwrap();
            let mut store = Store::new(sparsity.layout(Dtype::Bf16, head_dim, codes), 10_000).unwrap();
            let numbers = noise.vector(1000 * head_dim, 1.0);
            store.append(&numbers, &numbers, &noise.codes(1000, codes)).unwrap();
            store.sort(kernels).unwrap();
            let (mut scratch, mut out) = (StepScratch::default(), vec![0.0; group * head_dim]);
            let inputs: Vec<Vec<f32>> = (0..17).map(|_| noise.vector(group * head_dim, 1.0)).collect();
            let mut step = |number: usize| {
                let queries = &inputs[number % inputs.len()];
                let key = &inputs[number * 7 % inputs.len()][..head_dim];
                let averaged_queries = if estimate == Estimate::Averaged { &queries[..] } else { &[] };
                let input = StepInput {
                    queries,
                    windowed_queries: queries,
                    averaged_queries,
                    key,
                    rotated_key: key,
                    value: key,
                };
                decode_step(kernels, &book, &mut store, &sparsity, &input, 0.125, &mut scratch, &mut out)
                    .unwrap();
            };
            (0..100).for_each(&mut step);
            let before = ALLOCATIONS.get();
            (100..100 + steps).for_each(&mut step);
            // Codes and entries of the log, each of which doubles now and then, and what is corrected by them.
            let allocations = ALLOCATIONS.get() - before;
            assert!(allocations <= 5, "{}: {allocations} allocations in {steps} steps", kernels.name());
        });
    }
}

/// A batch of three sequences, one of them dense; on one thread, whose allocations are counted.
#[test]
fn a_batch_allocates_nothing_in_steady_state() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for estimate in [Estimate::Off, Estimate::Fixed, Estimate::Averaged] {
        on_every_backend(|kernels| {
            let model = Model::open(&case("gqa4-d64"), kernels).unwrap();
            let file = case("gqa4-d64").join("codebooks_reference.safetensors");
            let books = Arc::new(Codebooks::open(&file, model.owner(), Dtype::F16).unwrap());
            let sparse = Attention::A2ats(Sparsity { estimate, ..Sparsity::default() });
            let (mut workspace, prompt) = (Workspace::default(), vec![5; 400]);
            let mut on = |_| ControlFlow::Continue(());
            let mut sequences = [sparse, Attention::Dense, sparse].map(|attention| {
                let books = Some(Arc::clone(&books));
                let mut sequence = Sequence::new(model.spec(), books, attention, Dtype::Bf16, 2000).unwrap();
                assert!(
                    model
                        .prefill(&mut sequence, &prompt, None, &mut workspace, &mut on)
                        .unwrap()
                        .is_continue()
                );
                sequence
            });
            let mut step = |number: u32| {
                let ids = [number % 400, number * 7 % 400, number * 13 % 400];
                let mut batch = Batch { steps: &mut sequences, ids: &ids, chunk: None };
                assert!(model.forward(&mut batch, &mut workspace, &mut on).unwrap().is_continue());
            };
            let allocations = pool.install(|| {
                (0..60).for_each(&mut step);
                let before = ALLOCATIONS.get();
                (60..100).for_each(&mut step);
                ALLOCATIONS.get() - before
            });
            // Lists of the logs double now and then. What came with every token would be 40 at least.
            assert!(allocations < 40, "{}: {allocations} allocations in 40 steps", kernels.name());
        });
    }
}
