//! Conversations.

use super::common::{ModelFolder, Ran, command, ran};
use std::{fs, io::Write, process::Stdio};

/// A folder of the trained model whose template leaves out the first word of earlier answers.
fn forgetful() -> ModelFolder {
    let folder = ModelFolder::new("demo-ledger");
    folder.edit_json("tokenizer_config.json", |config| {
        let template = config["chat_template"].as_str().unwrap();
        let template = template.replace("m['content'] + eos_token", "m['content'][4:] + eos_token");
        config.insert("chat_template".to_owned(), template.into());
    });
    folder
}

fn chat(arguments: &[&str], lines: &[&str]) -> Ran {
    let mut child = command(&[&["chat"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    ran(child.wait_with_output().unwrap())
}

const LEDGER: &str = "The falcon keeps marble. The otter sells copper. The badger hides amber.";

/// How many tokens each turn read.
fn read(ran: &Ran) -> Vec<usize> {
    let lines = ran.stderr.lines().filter_map(|line| line.strip_prefix("read "));
    lines.map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_conversation_goes_back_to_where_the_template_writes_the_same() {
    let answers = going_back("12");
    assert!(
        answers[0] == "the falcon keeps marble." && answers[1] == "the otter sells copper.",
        "{answers:?}"
    );
}

/// The last token of such an answer is read with the next turn.
#[test]
fn answers_that_are_cut_are_gone_back_to_as_well() {
    going_back("3");
}

/// Three turns whose earlier answers are written differently from turn to turn; the last answer is that of the whole conversation
/// read at once.
fn going_back(most: &str) -> Vec<String> {
    let folder = forgetful();
    let question = |who: &str, does: &str| format!("Question: what does the {who} {does}?");
    let first = format!("{LEDGER} {}", question("falcon", "keep"));
    let lines = [first.as_str(), &question("otter", "sell"), &question("badger", "hide")];
    let ran = chat(&["--model", folder.path(), "-n", most], &lines);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("whole conversation"), "{}", ran.stderr);
    // Of the second turn on: the end of the last answer, as it is written now, and the question.
    let read = read(&ran);
    assert_eq!(read.len(), 3, "{}", ran.stderr);
    assert!(read[1] < read[0] && read[2] < read[0], "{read:?}");

    // The same conversation, read at once.
    let answers: Vec<&str> = ran.stdout.lines().map(str::trim).collect();
    let turn = |role: &str, content: &str| serde_json::json!({ "role": role, "content": content });
    let messages = [
        turn("user", lines[0]),
        turn("assistant", answers[0]),
        turn("user", lines[1]),
        turn("assistant", answers[1]),
        turn("user", lines[2]),
    ];
    fs::write(folder.file("in.jsonl"), serde_json::json!({ "messages": messages }).to_string()).unwrap();
    let (prompts, out) = (folder.file("in.jsonl"), folder.file("out.jsonl"));
    let files = ["--prompts", prompts.to_str().unwrap(), "--out", out.to_str().unwrap()];
    let arguments = [&["generate", "--model", folder.path(), "-n", most], &files[..]].concat();
    super::common::a2ats(&arguments);
    let line: serde_json::Value = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    assert_eq!(line["text"].as_str().unwrap().trim(), answers[2], "{line}");
    answers.into_iter().map(str::to_owned).collect()
}

#[test]
fn documents_come_with_what_is_said_next() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.txt");
    fs::write(&file, format!("{LEDGER}\n")).unwrap();
    let (path, question) = (file.to_str().unwrap(), "Question: what does the otter sell?");
    let by_command = chat(&[], &[&format!("/file {path}"), "/file no/such/file", "/file", question]);
    let by_option = chat(&["--prompt-file", path], &[question]);
    for ran in [&by_command, &by_option] {
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("the otter sells copper."), "{} {}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("characters, said with your next line"), "{}", ran.stderr);
    }
    assert!(by_command.stderr.contains("no/such/file") && by_command.stderr.contains("/file: give the path"));
    let missing = chat(&["--prompt-file", "no/such/file"], &[]);
    assert_eq!(missing.code, Some(1), "{}", missing.stderr);
}
