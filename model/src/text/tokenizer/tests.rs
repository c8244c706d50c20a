use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Tokenizer;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

static LEDGER: LazyLock<Tokenizer> = LazyLock::new(|| golden("demo-ledger"));
static LLAMA: LazyLock<Tokenizer> = LazyLock::new(|| made(llama_decoder(), true));

fn golden(name: &str) -> Tokenizer {
    Tokenizer::from_file(&Path::new(GOLDEN).join(name).join("tokenizer.json")).unwrap()
}

/// The decoder of sentencepiece models with byte tokens.
fn llama_decoder() -> Value {
    json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]})
}

fn metaspace(prepend_scheme: &str) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": prepend_scheme, "split": false})
}

const WORDS: [&str; 14] =
    ["▁", "▁▁", "▁▁▁", "▁a", "a", "b", "ab", "é", "▁c", "c▁", "##b", "b</w>", "�", "<0xZZ>"];

/// A sentencepiece-style tokenizer: `<unk>`, `<s>` and `</s>`, 256 byte tokens if wanted, then the words.
fn description(decoder: Value, byte_tokens: bool) -> Value {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    if byte_tokens {
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    }
    tokens.extend(WORDS.map(str::to_owned));
    let vocabulary: serde_json::Map<String, Value> =
        tokens.into_iter().zip((0..).map(|id| json!(id))).collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocabulary, "merges": [["a", "b"], ["▁", "a"], ["▁", "▁"]]},
    })
}

fn load(description: &Value) -> Result<Tokenizer, String> {
    Tokenizer::from_bytes(description.to_string().as_bytes(), Path::new("tokenizer.json"))
        .map_err(|error| error.to_string())
}

fn made(decoder: Value, byte_tokens: bool) -> Tokenizer {
    load(&description(decoder, byte_tokens)).unwrap()
}

/// The texts of every push, then that of the finish.
fn streamed(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream();
    let mut texts: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap().unwrap_or_default()).collect();
    texts.push(stream.finish().unwrap());
    texts
}

fn assert_streamed(tokenizer: &Tokenizer, ids: &[u32]) {
    assert_eq!(streamed(tokenizer, ids).concat(), tokenizer.decode(ids).unwrap(), "{ids:?}");
}

/// Ids of `tokenizer` and some beyond it, from `0..1000`.
fn spread(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<u32> {
    ids.iter().map(|id| id * (tokenizer.inner.get_vocab_size(true) as u32 + 2) / 1000).collect()
}

/// Mostly words and special tokens, some bytes: for tokenizers that have 256 byte tokens after three others.
fn sentencepiece_ids() -> impl Strategy<Value = Vec<u32>> {
    let words = 259..259 + WORDS.len() as u32;
    let bytes = prop_oneof![
        Just(byte_ids(b"\xc3\xa9".to_vec())),
        any::<u8>().prop_map(|byte| vec![u32::from(byte) + 3])
    ];
    let ids =
        prop_oneof![4 => words.prop_map(|id| vec![id]), 2 => bytes, 1 => (0u32..3).prop_map(|id| vec![id])];
    prop::collection::vec(ids, 0..30).prop_map(|ids| ids.concat())
}

fn byte_ids(bytes: Vec<u8>) -> Vec<u32> {
    bytes.into_iter().map(|byte| u32::from(byte) + 3).collect()
}

proptest! {
    #[test]
    fn byte_level_streams_equal_the_whole(
        ids in prop::collection::vec(0u32..1000, 0..60),
        text in ".{0,40}",
    ) {
        assert_streamed(&LEDGER, &spread(&LEDGER, &ids));
        let ids = LEDGER.encode(&text, true).unwrap();
        assert_streamed(&LEDGER, &ids);
        prop_assert_eq!(LEDGER.decode(&ids).unwrap(), text);
    }

    #[test]
    fn byte_level_bytes_in_any_order_equal_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let characters = (0u32..0x144).filter_map(char::from_u32);
        let spelled: HashMap<_, _> = characters.map(|c| (super::byte_of(c), c.to_string())).collect();
        prop_assert_eq!(spelled.len(), 257);
        let ids: Vec<u32> =
            bytes.iter().filter_map(|&byte| LEDGER.inner.token_to_id(spelled.get(&Some(byte))?)).collect();
        assert_streamed(&LEDGER, &ids);
    }

    #[test]
    fn byte_fallback_streams_equal_the_whole(ids in sentencepiece_ids(), text in ".{0,40}") {
        assert_streamed(&LLAMA, &ids);
        let ids = LLAMA.encode(&text, false).unwrap();
        assert_streamed(&LLAMA, &ids);
    }

    #[test]
    fn other_decoders_stream_the_whole(ids in sentencepiece_ids()) {
        for tokenizer in OTHERS.iter() {
            assert_streamed(tokenizer, &ids);
        }
    }

    #[test]
    fn pushes_never_cut_a_character(text in "\\PC{0,40}") {
        let tokenizers: [&Tokenizer; 2] = [&LEDGER, &LLAMA];
        let text = text.replace('\u{fffd}', "");
        for tokenizer in tokenizers {
            let texts = streamed(tokenizer, &tokenizer.encode(&text, false).unwrap());
            prop_assert!(texts.iter().all(|text| !text.contains('\u{fffd}')), "{:?}", texts);
            prop_assert_eq!(texts.concat(), &text[..]);
        }
    }
}

static OTHERS: LazyLock<Vec<Tokenizer>> = LazyLock::new(|| {
    let strip = |start: usize| json!({"type": "Strip", "content": " ", "start": start, "stop": 0});
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let sequence = |steps: &[&Value]| json!({"type": "Sequence", "decoders": steps});
    let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    let decoders = [
        Value::Null,
        metaspace("always"),
        metaspace("first"),
        metaspace("never"),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        sequence(&[&fallback, &metaspace("first")]),
        sequence(&[&sequence(&[&replace, &fallback]), &strip(1)]),
        sequence(&[&replace, &fallback, &fuse, &strip(3)]),
    ];
    decoders.into_iter().map(|decoder| made(decoder, true)).collect()
});

#[test]
fn a_metaspace_tokenizer_keeps_its_spaces() {
    let tokenizer = made(metaspace("first"), false);
    let ids =
        ["<s>", "▁a", "b", "▁a", "▁", "▁c", "</s>"].map(|token| tokenizer.inner.token_to_id(token).unwrap());
    assert_eq!(streamed(&tokenizer, &ids), ["", "a", "b", " a", " ", " c", "", ""]);
}

#[test]
fn byte_fallback_waits_for_the_end_of_the_bytes() {
    let bytes = |text: &str| byte_ids(text.as_bytes().to_vec());
    let word = |token| LLAMA.inner.token_to_id(token).unwrap();
    let ids = [vec![word("▁a")], bytes("€"), vec![word("▁a")]].concat();
    assert_eq!(streamed(&LLAMA, &ids), ["a", "", "", "", "€ a", ""]);
    assert_eq!(streamed(&LLAMA, &bytes("€")), ["", "", "", "€"]);
    assert_eq!(streamed(&LLAMA, &bytes("€")[..2]), ["", "", "��"]);
    let undone = [byte_ids(vec![0xc3, 0xa9, 0xe2]), vec![word("a")]].concat();
    assert_eq!(streamed(&LLAMA, &undone), ["", "", "", "���a", ""]);
}

#[test]
fn byte_level_waits_for_the_rest_of_a_character() {
    let ids: Vec<u32> = ["ð", "Ł", "ĺ", "Ģ"].map(|token| LEDGER.inner.token_to_id(token).unwrap()).to_vec();
    assert_eq!(streamed(&LEDGER, &ids), ["", "", "", "😀", ""]);
    assert_eq!(streamed(&LEDGER, &ids[..3]), ["", "", "", "\u{fffd}"]);
    let broken = [ids[0], ids[1], LEDGER.inner.token_to_id("a").unwrap(), ids[1]];
    assert_eq!(streamed(&LEDGER, &broken), ["", "", "\u{fffd}a", "\u{fffd}", ""]);
}

#[test]
fn a_long_stream_keeps_a_short_memory() {
    for (tokenizer, token) in [(&*LEDGER, "Ġthe"), (&*LLAMA, "▁"), (&*LLAMA, "▁a"), (&OTHERS[1], "▁")]
    {
        let id = tokenizer.inner.token_to_id(token).or_else(|| tokenizer.inner.token_to_id("a")).unwrap();
        let mut stream = tokenizer.stream();
        for _ in 0..10_000 {
            stream.push(id).unwrap();
            assert!(stream.ids.len() <= 2 && stream.pending.len() <= 3 && stream.shown.len() <= 20);
        }
    }
}

#[test]
fn ids_and_spellings_belong_together() {
    assert_eq!(LEDGER.inner.get_vocab_size(true), 1893);
    assert_eq!(
        (LEDGER.inner.token_to_id("<s>"), LEDGER.inner.id_to_token(1).as_deref()),
        (Some(0), Some("</s>"))
    );
    assert_eq!((LEDGER.inner.token_to_id("no such token"), LEDGER.inner.id_to_token(1893)), (None, None));
    assert_eq!(LEDGER.encode("Hi", true).unwrap()[0], 0);
    assert_ne!(LEDGER.encode("Hi", false).unwrap()[0], 0);
    assert_eq!(LEDGER.encode("</s>", false).unwrap(), [1]);
    for name in ["gqa4-d64", "gqa4-d128-f16", "mha-d32-tied"] {
        let tokenizer = golden(name);
        let text = "Grüße, 東京 😀";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, true).unwrap()).unwrap(), text);
    }
}

#[test]
fn truncation_and_padding_are_ignored() {
    let mut cut = description(llama_decoder(), true);
    cut["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    cut["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
                            "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
    assert_eq!(load(&cut).unwrap().encode("a b a b a b", false).unwrap().len(), 9);
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff", b"{\"model\": {\"type\": \"BPE\"}}"] {
        let error = Tokenizer::from_bytes(bytes, Path::new("tokenizer.json")).err().unwrap().to_string();
        assert!(
            error.starts_with("tokenizer.json: not a tokenizer: ") && error.contains("; download"),
            "{error}"
        );
        assert!(!error.contains('\n'), "{error}");
    }
    let error = Tokenizer::from_file(Path::new("/no/such/tokenizer.json")).err().unwrap().to_string();
    assert!(error.starts_with("/no/such/tokenizer.json: "), "{error}");
    let strip = json!({"type": "Strip", "content": " ", "start": 0, "stop": 1});
    let ctc = json!({"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": true});
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let (fuse, replace) =
        (json!({"type": "Fuse"}), json!({"type": "Replace", "pattern": {"String": "a"}, "content": ""}));
    for (steps, part) in [
        (vec![&strip], "strips 1"),
        (vec![&ctc], "CTC"),
        (vec![&fuse, &replace], "Fuse"),
        (vec![&fuse, &byte_level], "ByteLevel"),
    ] {
        let error = load(&description(json!({"type": "Sequence", "decoders": steps}), true)).err().unwrap();
        assert!(error.contains(part) && error.contains("use a tokenizer with"), "{error}");
    }
}
