//! The command as its users meet it.

use super::common::{ModelFolder, a2ats, command, ran};
use std::{
    fs,
    io::{Read, Write},
    process::Stdio,
};

const ANSWER: &str = " the platypus guards pulley.";

#[test]
fn the_demo_answers_with_either_attention_and_not_from_window_and_sinks_alone() {
    for attention in ["a2ats", "dense", "auto"] {
        let ran = a2ats(&["generate", "--attention", attention]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.stdout.trim_end_matches('\n'), ANSWER);
        assert!(ran.stderr.contains(&format!("{attention} attention")), "{}", ran.stderr);
    }
    let blind = a2ats(&["generate", "--attention", "a2ats", "--retrieve", "0", "--estimate", "off"]);
    assert_eq!(blind.code, Some(0));
    assert!(!blind.stdout.contains("pulley"), "{}", blind.stdout);
}

#[test]
fn json_has_what_scripts_rely_on() {
    let ran = a2ats(&["generate", "--attention", "a2ats", "--json", "--threads", "1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["text"], ANSWER);
    assert_eq!(report["prompt_tokens"], 4086);
    assert_eq!(report["generated_tokens"], 5);
    assert_eq!(report["attention"], "a2ats");
    assert_eq!(report["stop"], "end_of_sequence");
    assert_eq!(report["threads"], 1);
    for share in ["attended_share", "kv_bytes_read_share"] {
        let share = report[share].as_f64().unwrap();
        assert!((0.03..0.3).contains(&share), "{report}");
    }
    for speed in ["prefill_tokens_per_second", "decode_tokens_per_second"] {
        assert!(report[speed].as_f64().unwrap() > 0.0);
    }
    assert!(report["backend"].is_string());
}

#[test]
fn the_rest_is_estimated_unless_told_otherwise() {
    let report = |arguments: &[&str]| -> serde_json::Value {
        let ran = a2ats(&[&["generate", "--attention", "a2ats", "--json"], arguments].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let (plain, off, on) = (report(&[]), report(&["--estimate", "off"]), report(&["--estimate", "on"]));
    let bytes = |report: &serde_json::Value| report["kv_bytes_read"].as_u64().unwrap();
    assert_eq!(bytes(&plain), bytes(&on));
    assert!(bytes(&on) > bytes(&off), "{on} {off}");
    assert!(on["estimate_bytes_read"].as_u64().unwrap() > 0, "{on}");
    assert_eq!(off["estimate_bytes_read"], 0, "{off}");
    for report in [off, on] {
        assert_eq!(report["text"], ANSWER);
    }
    let said = a2ats(&["generate", "--attention", "a2ats"]).stderr;
    assert!(said.contains("estimated the rest"), "{said}");
    let memory = |estimate: &str| -> serde_json::Value {
        serde_json::from_str(&a2ats(&["info", "--json", "--estimate", estimate]).stdout).unwrap()
    };
    // 3 layers, 2 kv heads, 1024 codes: 64 numbers of a byte, and their scale.
    assert_eq!(memory("on")["sum_bytes"], 3 * 2 * 1024 * (64 + 4));
    assert_eq!(memory("off")["sum_bytes"], 0);
}

#[test]
fn held_out_ledgers_are_answered() {
    let samples = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../demo/samples.jsonl")).unwrap();
    for sample in samples.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        for retrieve in ["0.03", "1"] {
            let ran =
                a2ats(&["generate", sample["prompt"].as_str().unwrap(), "--retrieve", retrieve, "--json"]);
            let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(report["text"], sample["completion"]);
            assert_eq!(report["prompt_tokens"], sample["tokens"]);
        }
    }
}

#[test]
fn prompts_come_from_argument_file_pipe_and_chat_template() {
    let ledger =
        "The falcon keeps marble. The otter sells copper.\nQuestion: what does the falcon keep? Answer:";
    let answer = " the falcon keeps marble.";
    let from_argument = a2ats(&["generate", ledger]);
    assert_eq!(from_argument.stdout.trim_end_matches('\n'), answer, "{}", from_argument.stderr);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.txt");
    fs::write(&file, ledger).unwrap();
    assert_eq!(a2ats(&["generate", "-f", file.to_str().unwrap()]).stdout, from_argument.stdout);

    for arguments in [&["generate"][..], &["generate", "-f", "-"]] {
        let mut child = command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(ledger.as_bytes()).unwrap();
        assert_eq!(ran(child.wait_with_output().unwrap()).stdout, from_argument.stdout);
    }

    let message = ledger.strip_suffix(" Answer:").unwrap();
    assert_eq!(a2ats(&["generate", "--chat", message]).stdout, from_argument.stdout);
}

#[test]
fn a_chat_keeps_its_context_between_turns() {
    let mut child = command(&["chat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let turns = "The falcon keeps marble. The otter sells copper. Question: what does the falcon keep?\n\
                 Question: what does the otter sell?\n/reset\n/quit\n";
    child.stdin.take().unwrap().write_all(turns.as_bytes()).unwrap();
    let ran = ran(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("the falcon keeps marble."), "{}", ran.stdout);
    assert!(ran.stdout.contains("the otter sells copper."), "{}", ran.stdout);
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = command(&["generate"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!stderr.contains("panicked") && !stderr.contains("a2ats:"), "{stderr}");
}

#[test]
fn max_new_tokens_is_a_maximum_and_sampling_follows_its_seed() {
    let folder = ModelFolder::new("mha-d32-tied");
    let made = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&folder.generate(&[more, &["--json"]].concat()).stdout).unwrap()
    };
    for n in ["0", "1", "7"] {
        let report = made(&["-n", n]);
        assert_eq!(report["generated_tokens"].to_string(), n);
        assert_eq!(report["stop"], "length");
    }
    let sampled = |seed: &str| made(&["-n", "20", "--temperature", "40", "--seed", seed])["text"].clone();
    assert_eq!(sampled("7"), sampled("7"));
    assert_ne!(sampled("7"), sampled("8"));
    assert_ne!(sampled("7"), made(&["-n", "20"])["text"]);
}

#[test]
fn auto_is_dense_as_long_as_it_is_told_and_sparse_from_there_on() {
    let report = |from: &str| -> serde_json::Value {
        let ran = a2ats(&["generate", "--sparse-from", from, "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let (dense, sparse, between) = (report("5000"), report("1"), report("4090"));
    for report in [&dense, &sparse, &between] {
        assert_eq!((&report["text"], &report["attention"]), (&ANSWER.into(), &"auto".into()));
    }
    let share = |report: &serde_json::Value| report["attended_share"].as_f64().unwrap();
    assert_eq!(share(&dense), 1.0);
    assert!(share(&sparse) < share(&between) && share(&between) < 1.0, "{between}");
    let measured: serde_json::Value = serde_json::from_str(&a2ats(&["info", "--json"]).stdout).unwrap();
    assert!(measured["sparse_from"].as_u64().unwrap() > 0, "{measured}");
    let told = a2ats(&["info", "--sparse-from", "7777"]).stdout;
    assert!(told.contains("dense below 7777 tokens"), "{told}");
}

#[test]
fn info_tells_what_a_context_costs() {
    let ran = a2ats(&["info", "--json", "--context", "1000", "--kv-dtype", "f16"]);
    let facts: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    // 3 layers × 2 kv heads × 2 × 64 values of two bytes.
    assert_eq!(facts["kv_bytes"], 1000 * 3 * 2 * 2 * 64 * 2);
    assert_eq!(facts["codebooks"]["relative_position"], 2048);
    let text = a2ats(&["info"]).stdout;
    for word in ["codebooks", "backend", "memory", "32768"] {
        assert!(text.contains(word), "{text}");
    }
}
