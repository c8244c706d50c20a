//! Many requests at once: each gets what it gets alone, whatever happens to the others.

use a2ats_kernel::{Dtype, decode::Sparsity};
use a2ats_model::{
    Attention, Codebooks, Model, demo,
    engine::{End, Engine, Event, Options, Request, RequestId, Stop, sampling::SamplingOptions},
    families,
    files::safetensors::Tensors,
    text::tokenizer::Tokenizer,
};
use a2ats_tests::{
    golden::case,
    inputs::{Noise, config},
};
use proptest::prelude::*;
use std::{collections::BTreeMap, ops::ControlFlow, sync::Arc};

struct Loaded {
    model: Model,
    tokenizer: Tokenizer,
    books: Arc<Codebooks>,
}

fn demo_model() -> Loaded {
    let model = demo::model(a2ats_kernel::available()[0]).unwrap();
    let books = Arc::new(demo::codebooks(&model, Dtype::F16).unwrap());
    Loaded { model, tokenizer: demo::tokenizer().unwrap(), books }
}

impl Loaded {
    fn engine(&self, batch: usize) -> Engine<'_> {
        let options = Options {
            codebooks: Some(Arc::clone(&self.books)),
            attention: Attention::A2ats(Sparsity { retrieve: 0.1, ..Sparsity::default() }),
            kv_dtype: Dtype::Bf16,
            end_of_sequence: Vec::new(),
            batch,
        };
        Engine::new(&self.model, &self.tokenizer, options).unwrap()
    }
}

/// How requests ended: the tokens, and the end or the error.
#[derive(Default)]
struct Told {
    ids: BTreeMap<RequestId, Vec<u32>>,
    text: BTreeMap<RequestId, String>,
    ends: BTreeMap<RequestId, Result<End, String>>,
}

impl Told {
    fn take(&mut self, event: Event) {
        match event {
            Event::Reading { done, of, .. } => assert!(done <= of),
            Event::Token { request, id, text } => {
                assert!(!self.ends.contains_key(&request), "nothing comes after the end");
                self.ids.entry(request).or_default().push(id);
                self.text.entry(request).or_default().push_str(&text);
            }
            Event::Finished { request, end } => {
                self.text.entry(request).or_default().push_str(&end.text);
                assert!(self.ends.insert(request, Ok(*end)).is_none(), "one end each");
            }
            Event::Failed { request, error } => {
                assert!(self.ends.insert(request, Err(error.to_string())).is_none(), "one end each");
            }
        }
    }

    fn run(&mut self, engine: &mut Engine<'_>) {
        while !engine.is_idle() {
            assert!(
                engine.step(&mut |event| self.take(event), &mut || ControlFlow::Continue(())).is_continue()
            );
        }
    }
}

fn request(noise: &mut Noise, vocabulary: usize) -> Request {
    let prompt = (0..1 + noise.below(300)).map(|_| noise.below(vocabulary) as u32).collect();
    let sampling =
        SamplingOptions { temperature: noise.below(2) as f32, seed: 3, ..SamplingOptions::default() };
    Request { prompt, sampling, max_new_tokens: noise.below(9), ..Request::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases.div_ceil(16), ..config() })]

    #[test]
    fn requests_get_the_same_whatever_else_is_in_the_batch(
        (batch, count) in (2_usize..=5, 2_usize..=7),
        cancelled in prop::collection::vec((0_usize..7, 0_usize..12), 0..3),
        seed in any::<u64>(),
    ) {
        let loaded = demo_model();
        let vocabulary = loaded.model.spec().vocab_size;
        let alone: Vec<Vec<u32>> = {
            let mut noise = Noise::new(seed);
            (0..count).map(|_| {
                let (mut engine, mut told) = (loaded.engine(1), Told::default());
                let id = engine.submit(request(&mut noise, vocabulary)).unwrap();
                told.run(&mut engine);
                told.ids.remove(&id).unwrap_or_default()
            }).collect()
        };
        let (mut engine, mut told, mut noise) = (loaded.engine(batch), Told::default(), Noise::new(seed));
        let ids: Vec<RequestId> = (0..count).map(|_| engine.submit(request(&mut noise, vocabulary)).unwrap()).collect();
        let mut steps = 0;
        while !engine.is_idle() {
            for (number, _) in cancelled.iter().filter(|(number, at)| *number < count && *at == steps) {
                engine.cancel(ids[*number], &mut |event| told.take(event));
            }
            // Every third step is broken off, and taken again.
            let mut layers = 0;
            let _ = engine.step(&mut |event| told.take(event), &mut || {
                layers += 1;
                if steps % 3 == 2 && layers == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            steps += 1;
        }
        for (number, (id, alone)) in ids.iter().zip(&alone).enumerate() {
            let got = told.ids.remove(id).unwrap_or_default();
            let end = told.ends.remove(id).unwrap().unwrap();
            if end.stop == Stop::Interrupted {
                prop_assert!(cancelled.iter().any(|(cancelled, _)| *cancelled == number));
                prop_assert!(alone.starts_with(&got));
            } else {
                prop_assert_eq!(&got, alone, "request {}", number);
                prop_assert_eq!(end.generated_tokens, got.len());
            }
        }
    }
}

#[test]
fn a_sequence_that_is_kept_goes_on_where_it_was() {
    let loaded = demo_model();
    let prompt: Vec<u32> = (0..400).map(|i| i * 13 % 900).collect();
    let (mut engine, mut told) = (loaded.engine(2), Told::default());
    let whole = Request { prompt: prompt.clone(), max_new_tokens: 6, ..Request::default() };
    let whole = engine.submit(whole).unwrap();
    told.run(&mut engine);
    let first = Request { prompt, max_new_tokens: 3, keep: true, ..Request::default() };
    let first = engine.submit(first).unwrap();
    told.run(&mut engine);
    let kept = told.ends.remove(&first).unwrap().unwrap().kept.unwrap();
    assert_eq!((kept.len(), kept.sequence().len()), (403, 402), "its last token is not read yet");
    let forked = kept.fork().unwrap();
    for behind in [kept, forked] {
        let rest =
            engine.submit(Request { behind: Some(behind), max_new_tokens: 3, ..Request::default() }).unwrap();
        told.run(&mut engine);
        assert_eq!([&told.ids[&first][..], &told.ids[&rest][..]].concat(), told.ids[&whole]);
    }
}

/// The golden model whose output matrix is not its embedding, with an embedding that is no number for one token.
fn damaged(bad: u32) -> Loaded {
    let folder = case("gqa4-d64");
    let mut bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let names: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    let embedding = names["model.embed_tokens.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    let spec = families::load(&folder).unwrap();
    let row = header + embedding + bad as usize * spec.hidden_size * size_of::<u16>();
    bytes[row..row + spec.hidden_size * size_of::<u16>()].fill(0xff);
    let tensors = Tensors::embedded(bytes.leak(), &folder.join("model.safetensors")).unwrap();
    let model = Model::from_parts(spec, tensors, a2ats_kernel::available()[0]).unwrap();
    let books = Codebooks::open(&folder.join("codebooks_reference.safetensors"), model.owner(), Dtype::F16);
    let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json")).unwrap();
    Loaded { model, tokenizer, books: Arc::new(books.unwrap()) }
}

/// Who reads the damaged token fails, and nobody else.
#[test]
fn what_goes_wrong_with_one_request_does_not_touch_the_others() {
    const BAD: u32 = 7;
    let loaded = damaged(BAD);
    let prompt = |number: u32, bad: bool| -> Vec<u32> {
        let ids = (0..100 + 10 * number).map(|i| 10 + (i * 31 + number) % 400);
        ids.map(|id| if bad && id % 50 == 0 { BAD } else { id }).collect()
    };
    for bad in [&[1_u32][..], &[0, 3], &[4], &[]] {
        let (mut engine, mut told) = (loaded.engine(4), Told::default());
        let submit = |number: u32, engine: &mut Engine<'_>| {
            let prompt = prompt(number, bad.contains(&number));
            engine.submit(Request { prompt, max_new_tokens: 5, ..Request::default() }).unwrap()
        };
        let ids: Vec<RequestId> = (0..6).map(|number| submit(number, &mut engine)).collect();
        told.run(&mut engine);
        for (number, id) in (0..).zip(ids) {
            let end = told.ends.remove(&id).unwrap();
            if bad.contains(&number) {
                assert!(end.unwrap_err().contains("NaN"), "request {number}");
                continue;
            }
            let (mut alone, mut told_alone) = (loaded.engine(1), Told::default());
            let id_alone = submit(number, &mut alone);
            told_alone.run(&mut alone);
            assert_eq!(end.unwrap().generated_tokens, 5);
            assert_eq!(told.ids[&id], told_alone.ids[&id_alone], "request {number}");
        }
    }
}

#[test]
fn requests_that_cannot_be_met_are_refused() {
    let loaded = demo_model();
    let mut engine = loaded.engine(1);
    let size = loaded.model.spec().vocab_size as u32;
    let longest = loaded.model.spec().max_position_embeddings;
    for (prompt, word) in [(vec![], "empty"), (vec![size], "vocabulary"), (vec![1; longest + 1], "positions")]
    {
        let error = engine.submit(Request { prompt, ..Request::default() }).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let sampling = SamplingOptions { top_p: 2.0, ..SamplingOptions::default() };
    assert!(engine.submit(Request { prompt: vec![1], sampling, ..Request::default() }).is_err());
    assert!(engine.is_idle());
}

#[test]
fn a_stop_string_ends_the_text_in_front_of_it() {
    let loaded = demo_model();
    let answer = |stop: &[&str]| {
        let (mut engine, mut told) = (loaded.engine(1), Told::default());
        let prompt = loaded.tokenizer.encode("The falcon keeps marble. The otter sells", true).unwrap();
        let stop = stop.iter().map(|&stop| stop.to_owned()).collect();
        let id = engine.submit(Request { prompt, stop, max_new_tokens: 30, ..Request::default() }).unwrap();
        told.run(&mut engine);
        (told.text.remove(&id).unwrap(), told.ends.remove(&id).unwrap().unwrap())
    };
    let (whole, end) = answer(&[]);
    assert_eq!(end.stop, Stop::Length);
    let middle = whole.char_indices().nth(whole.chars().count() / 2).unwrap().0;
    let stop = &whole[middle..][..whole[middle..].char_indices().nth(3).unwrap().0];
    let (text, end) = answer(&["nowhere to be found", stop]);
    assert_eq!((text.as_str(), end.stop), (&whole[..whole.find(stop).unwrap()], Stop::StopString));
}
