use std::path::Path;

use serde_json::{Value, json};

use super::{GenerationConfig, from_json, load};
use crate::{rope::RopeScaling, spec::Spec};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");

fn small() -> Value {
    json!({
        "model_type": "llama", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    })
}

fn with(changes: Value) -> Value {
    let mut config = small();
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn read(config: &Value) -> Result<Spec, String> {
    from_json(config.to_string().as_bytes(), Path::new("config.json")).map_err(|error| error.to_string())
}

/// The one-line error that `changes` lead to, which must contain every one of `parts`.
fn refused(changes: Value, parts: &[&str]) {
    let error = read(&with(changes)).unwrap_err();
    assert!(error.starts_with("config.json: ") && error.contains("; "), "{error}");
    assert!(!error.contains('\n'), "{error}");
    assert!(parts.iter().all(|part| error.contains(part)), "{error} lacks one of {parts:?}");
}

#[test]
fn golden_folders_are_read() {
    let ledger = load(&Path::new(GOLDEN).join("demo-ledger")).unwrap();
    assert_eq!((ledger.hidden_size, ledger.num_hidden_layers, ledger.vocab_size), (128, 3, 1893));
    assert_eq!((ledger.head_dim, ledger.group(), ledger.rope_theta), (64, 2, 500000.0));
    assert_eq!((ledger.rope_scaling, ledger.tie_word_embeddings), (RopeScaling::Default, true));
    let stretched = load(&Path::new(GOLDEN).join("gqa4-d64")).unwrap();
    assert!(matches!(stretched.rope_scaling, RopeScaling::Llama3 { factor: 8.0, .. }));
    for name in ["gqa4-d128-f16", "mha-d32-tied"] {
        let folder = Path::new(GOLDEN).join(name);
        let config = load(&folder).unwrap();
        assert_eq!(GenerationConfig::load(&folder, &config).unwrap().eos_token_ids, [2]);
    }
}

#[test]
fn absent_keys_take_their_defaults() {
    let mut config = small();
    config.as_object_mut().unwrap().remove("num_key_value_heads");
    let config = read(&config).unwrap();
    assert_eq!((config.num_key_value_heads, config.group(), config.head_dim), (4, 1, 32));
    assert_eq!((config.rope_theta, config.rope_scaling), (10000.0, RopeScaling::Default));
    assert!(!config.tie_word_embeddings && !config.attention_bias && !config.mlp_bias);
    assert_eq!((config.sliding_window, config.bos_token_id), (None, None));
    assert_eq!(
        read(&with(json!({"rope_scaling": null, "eos_token_id": null}))).unwrap(),
        read(&small()).unwrap()
    );
}

#[test]
fn missing_keys_are_named() {
    for key in small().as_object().unwrap().keys().filter(|key| *key != "num_key_value_heads") {
        let mut config = small();
        config.as_object_mut().unwrap().remove(key);
        let error = read(&config).unwrap_err();
        assert!(error.contains(&format!("{key} is missing")), "{error}");
    }
}

#[test]
fn what_cannot_be_computed_is_refused() {
    refused(json!({"model_type": "gpt2"}), &["model_type \"gpt2\"", "llama", "mistral"]);
    refused(json!({"hidden_act": "gelu"}), &["hidden_act \"gelu\"", "silu"]);
    refused(json!({"hidden_activation": "relu"}), &["hidden_activation \"relu\""]);
    refused(json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), &["\"gptq\"", "bfloat16"]);
    refused(json!({"quantization_config": {"bits": 4}}), &["unnamed"]);
    refused(json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor 0.5"]);
    refused(json!({"rope_parameters": {"partial_rotary_factor": 0.25}}), &["partial_rotary_factor 0.25"]);
    refused(json!({"rope_scaling": {"type": "yarn", "factor": 2}}), &["\"yarn\"", "llama3"]);
    refused(json!({"rope_scaling": {"factor": 2}}), &["no rope_type"]);
}

#[test]
fn absurd_numbers_are_refused() {
    let sizes =
        ["hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "vocab_size"];
    for key in sizes {
        refused(json!({key: 0}), &[&format!("{key} is 0")]);
        refused(json!({key: (1u64 << 24) + 1}), &[key, "16777217"]);
        refused(json!({key: u64::MAX}), &[key]);
        refused(json!({key: -1}), &["-1"]);
    }
    refused(json!({"num_hidden_layers": 1025}), &["num_hidden_layers is 1025"]);
    refused(json!({"max_position_embeddings": 0}), &["max_position_embeddings is 0"]);
    refused(json!({"num_attention_heads": 6, "num_key_value_heads": 4}), &["6", "multiple", "4"]);
    refused(json!({"num_attention_heads": 34, "head_dim": 16, "num_key_value_heads": 2}), &["34", "16"]);
    refused(json!({"num_attention_heads": 12}), &["hidden_size 128", "12"]);
    for head_dim in [0, 15, 14, 17, 33, 257, 258] {
        refused(json!({"head_dim": head_dim}), &[&format!("head_dim is {head_dim}")]);
    }
    let heads = 1 << 20;
    refused(
        json!({"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 64}),
        &["too large"],
    );
}

#[test]
fn bad_floats_are_refused() {
    for value in [json!(0), json!(-1e-5), json!(-0.0)] {
        refused(json!({"rms_norm_eps": value}), &["rms_norm_eps", "not a positive number"]);
        refused(json!({"rope_theta": value}), &["rope_theta", "not a positive number"]);
        refused(json!({"rope_parameters": {"rope_theta": value}}), &["rope_theta"]);
        refused(json!({"rope_scaling": {"type": "linear", "factor": value}}), &["factor"]);
    }
    refused(json!({"rope_scaling": {"type": "linear", "factor": 0.5}}), &["0.5", "below 1"]);
    refused(json!({"rope_scaling": {"type": "linear"}}), &["factor is missing"]);
    for text in ["1e999", "NaN", "Infinity", "\"1\""] {
        let config = with(json!({"rms_norm_eps": 0.125})).to_string().replace("0.125", text);
        let error = from_json(config.as_bytes(), Path::new("config.json")).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("download"), "{error}");
    }
}

#[test]
fn text_that_is_not_a_configuration_is_refused() {
    for text in ["", "[]", "{", "null", "{\"hidden_size\":"] {
        let error = from_json(text.as_bytes(), Path::new("config.json")).unwrap_err().to_string();
        assert!(error.starts_with("config.json: ") && !error.contains('\n'), "{error}");
    }
    let error = load(Path::new("/no/such/folder")).unwrap_err().to_string();
    assert!(error.contains("/no/such/folder/config.json"), "{error}");
}

#[test]
fn sliding_windows_shorter_than_the_context_are_reported() {
    let window = |changes| read(&with(changes)).unwrap().sliding_window;
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": null})), None);
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": 4096})), None);
    assert_eq!(window(json!({"model_type": "mistral", "sliding_window": 4095})), Some(4095));
    assert_eq!(window(json!({"sliding_window": 5})), None);
    refused(json!({"model_type": "mistral", "sliding_window": 0}), &["sliding_window is 0"]);
}

const LLAMA3: [(&str, f64); 4] = [
    ("factor", 8.0),
    ("low_freq_factor", 1.0),
    ("high_freq_factor", 4.0),
    ("original_max_position_embeddings", 8192.0),
];

fn llama3(rope_type: &str) -> Value {
    let mut rope: Value = LLAMA3.iter().map(|&(key, value)| (key.to_owned(), json!(value as u64))).collect();
    rope["rope_type"] = json!(rope_type);
    rope
}

#[test]
fn old_and_new_rope_keys_mean_the_same() {
    let old = read(&with(json!({"rope_theta": 500000.0, "rope_scaling": llama3("llama3")}))).unwrap();
    let mut rope = llama3("llama3");
    rope["rope_theta"] = json!(500000.0);
    assert_eq!(read(&with(json!({"rope_parameters": rope}))).unwrap(), old);
    let plain = read(&with(json!({"rope_parameters": {"rope_theta": 7.5, "rope_type": "default"}}))).unwrap();
    assert_eq!((plain.rope_theta, plain.rope_scaling), (7.5, RopeScaling::Default));
    let unnamed = read(&with(json!({"rope_parameters": {"rope_theta": 7.5}}))).unwrap();
    assert_eq!(unnamed.rope_scaling, RopeScaling::Default);
    let linear = RopeScaling::Linear { factor: 2.0 };
    for key in ["type", "rope_type"] {
        assert_eq!(
            read(&with(json!({"rope_scaling": {key: "linear", "factor": 2}}))).unwrap().rope_scaling,
            linear
        );
    }
    for (key, _) in LLAMA3 {
        let mut rope = llama3("llama3");
        rope.as_object_mut().unwrap().remove(key);
        refused(json!({"rope_scaling": rope}), &[key, "missing"]);
    }
    let mut rope = llama3("llama3");
    rope["low_freq_factor"] = json!(4);
    refused(json!({"rope_scaling": rope}), &["low_freq_factor 4", "high_freq_factor 4"]);
}

#[test]
fn rope_frequencies_are_those_of_the_reference() {
    let plain = read(&with(json!({"rope_theta": 10000.0, "head_dim": 64}))).unwrap().rope_frequencies();
    assert_eq!(plain.len(), 32);
    assert_eq!((plain[0], plain[16]), (1.0, 10000f64.powf(-0.5)));
    let scaling = json!({"rope_type": "linear", "factor": 4.0});
    let linear = read(&with(json!({"head_dim": 64, "rope_scaling": scaling}))).unwrap().rope_frequencies();
    assert!(plain.iter().zip(&linear).all(|(plain, linear)| plain / 4.0 == *linear));
    let stretched = with(json!({"rope_theta": 500000.0, "head_dim": 64, "rope_scaling": llama3("llama3")}));
    let stretched = read(&stretched).unwrap().rope_frequencies();
    for (pair, frequency) in EXPECTED_LLAMA3 {
        assert!((stretched[pair] / frequency - 1.0).abs() < 1e-14, "{pair}: {} {frequency}", stretched[pair]);
    }
}

/// Pair and frequency, from the NumPy reference: kept, interpolated and divided wavelengths.
const EXPECTED_LLAMA3: [(usize, f64); 8] = [
    (0, 1.0),
    (1, 0.6636012376960885),
    (14, 0.003211445994752591),
    (15, 0.0013718935677611381),
    (16, 0.0005248461609929547),
    (17, 0.0001785078127679964),
    (18, 7.78465527393245e-05),
    (31, 3.767322690173964e-07),
];

#[test]
fn generation_configuration_overrides_the_model_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let load = |config: Value, generation: Option<&str>| {
        let path = folder.path().join("generation_config.json");
        match generation {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
        GenerationConfig::load(folder.path(), &read(&with(config)).unwrap())
            .map(|tokens| (tokens.bos_token_id, tokens.eos_token_ids))
            .map_err(|error| error.to_string())
    };
    let one = json!({"bos_token_id": 5, "eos_token_id": 7});
    assert_eq!(load(json!({}), None).unwrap(), (None, vec![]));
    assert_eq!(load(one.clone(), None).unwrap(), (Some(5), vec![7]));
    assert_eq!(load(json!({"eos_token_id": [8, 9]}), Some("{}")).unwrap(), (None, vec![8, 9]));
    assert_eq!(load(one.clone(), Some(r#"{"eos_token_id": null}"#)).unwrap(), (Some(5), vec![7]));
    assert_eq!(load(one.clone(), Some(r#"{"eos_token_id": [1, 2]}"#)).unwrap(), (Some(5), vec![1, 2]));
    assert_eq!(load(one.clone(), Some(r#"{"eos_token_id": []}"#)).unwrap(), (Some(5), vec![7]));
    let outside = load(one.clone(), Some(r#"{"eos_token_id": [1, 100]}"#)).unwrap_err();
    assert!(
        outside.contains("generation_config.json: eos_token_id is 100") && outside.contains("100 tokens")
    );
    let outside = load(json!({"bos_token_id": 4294967295u32}), None).unwrap_err();
    assert!(outside.contains("/config.json: bos_token_id is 4294967295"), "{outside}");
    for text in
        ["[", r#"{"eos_token_id": "x"}"#, r#"{"eos_token_id": -1}"#, r#"{"bos_token_id": 4294967296}"#]
    {
        let error = load(one.clone(), Some(text)).unwrap_err();
        assert!(error.contains("generation_config.json: ") && error.contains("download"), "{error}");
    }
}
