//! `generate --prompts`: a file of prompts, many at a time.

use super::common::{Ran, a2ats, command};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread::sleep,
    time::{Duration, Instant},
};

/// A folder with an input of so many lines: questions about one ledger, of different lengths, some of them chats.
struct Files(tempfile::TempDir);

impl Files {
    fn new(lines: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("in.jsonl"), lines.join("\n") + "\n").unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let (prompts, out) = (self.path("in.jsonl"), self.path(out));
        // What is measured may differ from run to run.
        let files = [
            "generate",
            "--attention",
            "a2ats",
            "--prompts",
            prompts.to_str().unwrap(),
            "--out",
            out.to_str().unwrap(),
        ];
        files.iter().chain(more).map(|&argument| argument.to_owned()).collect()
    }

    fn run(&self, out: &str, more: &[&str]) -> Ran {
        let arguments = self.arguments(out, more);
        a2ats(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

const THINGS: [&str; 8] = ["marble", "copper", "amber", "velvet", "cedar", "quartz", "linen", "pepper"];
const WHO: [&str; 8] = ["falcon", "otter", "badger", "heron", "marten", "lynx", "raven", "beaver"];

/// The same beginning for all, then fewer or more facts, then a question about one.
fn questions(count: usize) -> Vec<String> {
    let fact = |i: usize| format!("The {} keeps {}. ", WHO[i % 8], THINGS[(i * 3 + i / 8) % 8]);
    let common: String = (0..8).map(fact).collect();
    let line = |i: usize| {
        let more: String = (8..8 + i % 5).map(|_| "The wren sells cork. ".to_owned()).collect();
        let question = format!("{common}{more}Question: what does the {} keep?", WHO[i % 8]);
        let json = match i % 3 {
            0 => {
                serde_json::json!({ "id": format!("m{i}"), "messages": [{ "role": "user", "content": question }] })
            }
            1 => {
                serde_json::json!({ "id": format!("q{i}"), "prompt": question + " Answer:", "max_new_tokens": 1 + i % 7 })
            }
            _ => serde_json::json!({ "prompt": question + " Answer:", "temperature": 0.7, "seed": i }),
        };
        json.to_string()
    };
    (0..count).map(line).collect()
}

#[test]
fn answers_do_not_depend_on_the_batch() {
    let files = Files::new(&questions(32));
    for (out, batch) in [("one", "1"), ("eight", "8"), ("all", "100")] {
        let ran = files.run(out, &["--batch", batch, "-n", "12"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.contains("32 of 32 lines"), "{}", ran.stderr);
    }
    let one = files.read("one");
    assert_eq!(one, files.read("eight"));
    assert_eq!(one, files.read("all"));
    let lines: Vec<serde_json::Value> = one.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 32);
    assert_eq!((&lines[0]["id"], &lines[1]["id"], &lines[2]["id"]), (&"m0".into(), &"q1".into(), &3.into()));
    assert_eq!(lines[0]["text"], " the falcon keeps marble.");
    assert_eq!((&lines[1]["generated_tokens"], &lines[1]["stop"]), (&2.into(), &"length".into()));
}

#[test]
fn what_all_prompts_begin_with_is_read_once() {
    let files =
        Files::new(&questions(9)[1..2].iter().chain(&questions(9)[4..5]).cloned().collect::<Vec<_>>());
    let ran = files.run("out", &["--json"]);
    let summary: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(summary["common_prefix_tokens"].as_u64().unwrap() > 40, "{summary}");
    let whole: u64 = files
        .read("out")
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["prompt_tokens"].as_u64().unwrap()
        })
        .sum();
    let common = summary["common_prefix_tokens"].as_u64().unwrap();
    assert_eq!(whole, summary["prompt_tokens"].as_u64().unwrap() + 2 * common, "{summary}");
}

#[test]
fn a_bad_line_becomes_one_with_an_error_and_stops_nothing() {
    let good = r#"{"id": "good", "prompt": "The falcon keeps", "max_new_tokens": 2, "stop": ["x"]}"#;
    let lines = [
        "{",
        good,
        r#"{"id": "b"}"#,
        r#"{"id": "good", "prompt": "twice"}"#,
        r#"{"id": "c", "prompt": "a", "temprature": 1}"#,
        r#"{"id": "d", "prompt": "a", "top_p": 7}"#,
    ];
    let files = Files::new(&lines.map(str::to_owned));
    let ran = files.run("out", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("5 failed"), "{}", ran.stderr);
    let out: Vec<serde_json::Value> =
        files.read("out").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = |line: usize| out[line]["error"].as_str().unwrap_or_default();
    assert_eq!((&out[0]["id"], out[1]["error"].is_null()), (&1.into(), true));
    assert!(error(2).contains("prompt or messages") && error(3).contains("more than once"), "{out:?}");
    assert!(error(4).contains("temprature") && error(5).contains("top-p 7"), "{out:?}");
}

#[test]
fn a_run_that_is_killed_goes_on_and_leaves_the_same_file() {
    let files = Files::new(&questions(32));
    let more = ["--batch", "4", "-n", "40", "--threads", "1"];
    assert_eq!(files.run("whole", &more).code, Some(0));
    let mut kills = 0;
    loop {
        let mut child =
            command(&files.arguments("killed", &more).iter().map(String::as_str).collect::<Vec<_>>())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
        let (out, before) = (files.path("killed"), lines(&files.path("killed")));
        let started = Instant::now();
        while child.try_wait().unwrap().is_none() && lines(&out) < before + 5 {
            assert!(started.elapsed() < Duration::from_secs(60), "no line in a minute");
            sleep(Duration::from_millis(1));
        }
        if child.try_wait().unwrap().is_some() {
            break;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        // As if it had been in the middle of a line.
        if kills == 2 {
            let mut text = files.read("killed");
            text.push_str("{\"id\":\"half");
            fs::write(&out, text).unwrap();
        }
    }
    assert!(kills >= 2, "it was to be killed a few times");
    assert_eq!(files.read("killed"), files.read("whole"));
}

fn lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

#[test]
fn a_file_of_somebody_else_is_not_written_to() {
    let files = Files::new(&questions(1));
    for foreign in ["dear diary\n", "{\"id\":1,\"text\":\"\"}\nabc\n", "{\"text\":\"\"}\n", "half a line"] {
        fs::write(files.path("out"), foreign).unwrap();
        files.run("out", &[]).refused(1, &["out", "none that this command writes", "--out"]);
        assert_eq!(files.read("out"), foreign);
    }
    fs::remove_file(files.path("in.jsonl")).unwrap();
    files.run("new", &[]).refused(1, &["in.jsonl"]);
    assert!(!files.path("new").exists());
}
