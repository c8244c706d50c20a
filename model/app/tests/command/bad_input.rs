//! Bad input gets one line that names the file and the remedy, and the right exit code; never a panic.

use super::common::{ModelFolder, Ran, a2ats, command, ran};
use safetensors::SafeTensors;
use serde_json::json;
use std::{fs, io::Read, process::Stdio};

const CASE: &str = "mha-d32-tied";

#[test]
fn the_undamaged_folder_works() {
    let ran = ModelFolder::new(CASE).generate(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn folders_that_are_no_models() {
    a2ats(&["generate", "--model", "no/such/folder", "x"]).refused(1, &["no/such/folder", "does not exist"]);
    let empty = tempfile::tempdir().unwrap();
    let path = empty.path().to_str().unwrap();
    a2ats(&["generate", "--model", path, "x"]).refused(1, &["config.json"]);
    let folder = ModelFolder::new(CASE);
    fs::remove_file(folder.file("model.safetensors")).unwrap();
    folder.generate(&[]).refused(1, &["neither model.safetensors", "Hugging Face"]);
    let folder = ModelFolder::new(CASE);
    fs::remove_file(folder.file("tokenizer.json")).unwrap();
    folder.generate(&[]).refused(1, &["tokenizer.json"]);
}

#[test]
fn configurations_that_cannot_be() {
    for (key, value, words) in [
        ("model_type", json!("gpt2"), &["config.json", "gpt2", "llama"][..]),
        ("hidden_size", json!(0), &["config.json", "hidden_size"]),
        ("num_hidden_layers", json!(1_000_000_000_u64), &["config.json", "num_hidden_layers"]),
        ("head_dim", json!(33), &["config.json", "head_dim"]),
        ("num_key_value_heads", json!(3), &["config.json", "num_key_value_heads"]),
        ("vocab_size", json!(u64::MAX), &["config.json"]),
        ("rms_norm_eps", json!(-1.0), &["config.json", "rms_norm_eps"]),
        ("hidden_act", json!("gelu"), &["config.json", "gelu"]),
        ("rope_scaling", json!({"rope_type": "yarn", "factor": 4.0}), &["config.json", "yarn"]),
        ("quantization_config", json!({"quant_method": "gptq"}), &["config.json", "gptq"]),
    ] {
        let folder = ModelFolder::new(CASE);
        folder.set_config(key, value);
        folder.generate(&[]).refused(1, words);
    }
    let folder = ModelFolder::new(CASE);
    fs::write(folder.file("config.json"), "{").unwrap();
    folder.generate(&[]).refused(1, &["config.json"]);
}

#[test]
fn a_sliding_window_shorter_than_the_context() {
    let folder = ModelFolder::new(CASE);
    folder.set_config("model_type", json!("mistral"));
    folder.set_config("sliding_window", json!(2));
    folder.generate(&[]).refused(1, &["sliding window of 2", "shorten"]);
    folder.set_config("sliding_window", json!(null));
    assert_eq!(folder.generate(&[]).code, Some(0));
}

#[test]
fn checkpoints_that_are_cut_or_lie() {
    let cut = |keep: usize| {
        let folder = ModelFolder::new(CASE);
        let bytes = fs::read(folder.file("model.safetensors")).unwrap();
        fs::write(folder.file("model.safetensors"), &bytes[..keep.min(bytes.len() - 1)]).unwrap();
        folder
    };
    for keep in [0, 4, 8, 100, usize::MAX] {
        cut(keep).generate(&[]).refused(1, &["model.safetensors", "download it again"]);
    }
    let folder = ModelFolder::new(CASE);
    let mut bytes = fs::read(folder.file("model.safetensors")).unwrap();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(folder.file("model.safetensors"), bytes).unwrap();
    folder.generate(&[]).refused(1, &["model.safetensors", "download it again"]);

    let lie = |from: &'static str, to: &'static str, words: &[&str]| {
        let folder = ModelFolder::new(CASE);
        folder.edit_header("model.safetensors", |header| {
            assert!(header.contains(from), "{header}");
            header.replacen(from, to, 1)
        });
        folder.generate(&[]).refused(1, &[&["model.safetensors"], words].concat());
    };
    lie("model.norm.weight", "model.morn.weight", &["no tensor model.norm.weight"]);
    lie("\"shape\":[320,96]", "\"shape\":[96,320]", &["model.embed_tokens.weight", "[96, 320]", "[320, 96]"]);
    lie("\"dtype\":\"F32\",\"shape\":[96]", "\"dtype\":\"F64\",\"shape\":[48]", &["F64"]);
    lie("\"dtype\":\"F32\"", "\"dtype\":\"U32\"", &["U32", "quantized"]);
    lie("\"data_offsets\":[0,", "\"data_offsets\":[4,", &["download it again"]);
    lie("\"data_offsets\":[0,", "\"data_offsets\":[18446744073709551615,", &["download it again"]);
}

#[test]
fn shards_that_are_missing_or_elsewhere() {
    let folder = ModelFolder::new(CASE);
    fs::rename(folder.file("model.safetensors"), folder.file("part-1.safetensors")).unwrap();
    let index = |text: &str| fs::write(folder.file("model.safetensors.index.json"), text).unwrap();
    index(r#"{"weight_map": {"a": "part-1.safetensors"}}"#);
    assert_eq!(folder.generate(&[]).code, Some(0));
    index(r#"{"weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}"#);
    folder.generate(&[]).refused(1, &["part-2.safetensors"]);
    index(r#"{"weight_map": {"a": "../../etc/passwd"}}"#);
    folder.generate(&[]).refused(1, &["index.json", "outside"]);
    index("[]");
    folder.generate(&[]).refused(1, &["index.json"]);
}

#[test]
fn weights_that_are_not_numbers() {
    let folder = ModelFolder::new(CASE);
    let file = folder.file("model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    // The last tensor of the file is a norm's weights; the first, the embeddings.
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    folder.generate(&[]).refused(1, &["model.safetensors", "NaN"]);

    let folder = ModelFolder::new(CASE);
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for word in bytes[8 + len..8 + len + 320 * 96 * 4].chunks_exact_mut(4) {
        word.copy_from_slice(&f32::NAN.to_le_bytes());
    }
    bytes[end - 4..].copy_from_slice(&1_f32.to_le_bytes());
    fs::write(folder.file("model.safetensors"), &bytes).unwrap();
    folder.generate(&[]).refused(1, &["model.safetensors", "not a number"]);
}

#[test]
fn queries_and_keys_that_are_not_numbers_or_whose_products_are_none() {
    for (projection, number) in
        [("q_proj", f32::NAN), ("k_proj", f32::NAN), ("q_proj", f32::INFINITY), ("k_proj", 1e38)]
    {
        let folder = ModelFolder::new(CASE);
        let file = folder.file("model.safetensors");
        let mut bytes = fs::read(&file).unwrap();
        let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let tensor = metadata.info(&format!("model.layers.0.self_attn.{projection}.weight")).unwrap();
        assert_eq!(tensor.dtype, safetensors::Dtype::F32);
        let at = 8 + header + tensor.data_offsets.0;
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        fs::write(&file, &bytes).unwrap();
        for attention in ["dense", "a2ats"] {
            // One token is decoded at least.
            let ran = folder.generate(&["--attention", attention]);
            ran.refused(1, &["model.safetensors", "not a number", "undamaged"]);
        }
    }
}

#[test]
fn codebooks_of_another_model() {
    let other = ModelFolder::new("gqa4-d64");
    let books = other.file("codebooks_reference.safetensors");
    let folder = ModelFolder::new(CASE);
    let arguments = ["--codebooks", books.to_str().unwrap()];
    folder
        .generate(&arguments)
        .refused(1, &["codebooks_reference.safetensors", "shape", "codebooks for this model"]);
    let weights = other.file("model.safetensors");
    let arguments = ["--codebooks", weights.to_str().unwrap()];
    folder.generate(&arguments).refused(1, &["model.safetensors", "not a codebook file"]);

    let folder = ModelFolder::new(CASE);
    fs::remove_file(folder.file("codebooks_reference.safetensors")).unwrap();
    assert_eq!(folder.generate(&[]).code, Some(0));
    folder.generate(&["--attention", "a2ats"]).refused(2, &["--codebooks", "--attention dense"]);
}

#[test]
fn templates_that_are_broken() {
    let folder = ModelFolder::new(CASE);
    folder.generate(&["--chat"]).refused(2, &["no chat template"]);
    fs::write(folder.file("chat_template.jinja"), "{% for m in messages %}").unwrap();
    folder.generate(&["--chat"]).refused(1, &["chat_template.jinja"]);
    fs::write(folder.file("chat_template.jinja"), "{{ raise_exception('only cats') }}").unwrap();
    folder.generate(&["--chat"]).refused(1, &["chat_template.jinja", "only cats"]);
}

#[test]
fn tokens_outside_the_vocabulary_and_tokenizers_that_are_none() {
    let folder = ModelFolder::new(CASE);
    folder.edit_json("tokenizer.json", |tokenizer| {
        let added = tokenizer["added_tokens"].as_array_mut().unwrap();
        added.push(
            json!({"id": 5000, "content": "abc", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}),
        );
        let vocabulary = tokenizer["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.insert("abc".to_owned(), json!(5000));
    });
    folder.generate(&[]).refused(2, &["token 5000", "vocabulary of 320"]);
    fs::write(folder.file("tokenizer.json"), "{}").unwrap();
    folder.generate(&[]).refused(1, &["tokenizer.json"]);
}

#[test]
fn prompts_that_are_too_long_or_unreadable() {
    let folder = ModelFolder::new(CASE);
    folder.set_config("max_position_embeddings", json!(100));
    let long = "abc ".repeat(200);
    a2ats(&["generate", "--model", folder.path(), &long]).refused(1, &["100 positions", "shorten"]);
    folder.set_config("max_position_embeddings", json!(1 << 24));
    let endless = ["--max-new-tokens", "16000000", "--kv-dtype", "f32"];
    a2ats(&[&["generate", "--model", folder.path(), "abc"], &endless[..]].concat())
        .refused(1, &["GiB", "shorten"]);
    let prompt = folder.file("prompt.txt");
    fs::write(&prompt, b"caf\xe9").unwrap();
    let file = prompt.to_str().unwrap();
    a2ats(&["generate", "--prompt-file", file]).refused(1, &["prompt.txt", "UTF-8", "byte 3"]);
    a2ats(&["generate", "--prompt-file", "no/such/prompt"]).refused(1, &["no/such/prompt"]);
}

#[test]
fn options_out_of_range() {
    for (arguments, word) in [
        (&["--temperature", "NaN"][..], "--temperature"),
        (&["--top-p", "1.5"], "--top-p"),
        (&["--retrieve", "-0.5"], "--retrieve"),
        (&["--retrieve", "inf"], "--retrieve"),
        (&["--window", "0"], "--window"),
        (&["--threads", "0"], "--threads"),
        (&["--threads", "100000"], "--threads 100000: give 1 to"),
    ] {
        a2ats(&[&["generate", "abc"], arguments].concat()).refused(2, &[word]);
    }
    for arguments in [&["--kv-dtype", "int3"][..], &["--attention", "sparse"], &["--no-such-option"]] {
        let ran = a2ats(&[&["generate", "abc"], arguments].concat());
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains(arguments[0]), "{}", ran.stderr);
    }
    let unknown = command(&["generate"]).env("A2ATS_ISA", "abacus").stdin(Stdio::null()).output().unwrap();
    ran(unknown).refused(2, &["A2ATS_ISA", "abacus", "portable"]);
}

/// A run that has begun to answer when its weights are cut short.
#[cfg(unix)]
fn cut_short(weights: &str) -> Ran {
    let folder = ModelFolder::new("mha-d32-tied");
    let arguments =
        ["generate", "--model", folder.path(), "abc", "-n", "4000", "--weights", weights, "--threads", "1"];
    let mut child = command(&arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    fs::OpenOptions::new().write(true).open(folder.file("model.safetensors")).unwrap().set_len(4096).unwrap();
    ran(child.wait_with_output().unwrap())
}

#[cfg(unix)]
#[test]
fn weights_that_are_cut_short_end_the_program_with_a_word_or_not_at_all() {
    let mapped = cut_short("map");
    assert_eq!(mapped.code, Some(1), "{}", mapped.stderr);
    for word in ["a2ats: ", "model.safetensors", "cut short", "--weights copy"] {
        assert!(mapped.stderr.contains(word), "{}", mapped.stderr);
    }
    let copied = cut_short("copy");
    assert_eq!(copied.code, Some(0), "{}", copied.stderr);
    assert!(copied.stderr.contains("generated 4000 tokens"), "{}", copied.stderr);
}
