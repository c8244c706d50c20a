//! Runs the command as a user would, on model folders that are damaged on purpose.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// What a run of the command left.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `a2ats` without anything on standard input.
pub fn a2ats(arguments: &[&str]) -> Ran {
    ran(command(arguments).stdin(Stdio::null()).output().unwrap())
}

/// The command, to be run with something special.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_a2ats"));
    command.args(arguments);
    command
}

pub fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// One line on standard error, nothing on standard output, the exit code, and these words in the line.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        assert_eq!(self.stdout, "");
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "not one line: {}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
    }
}

/// A copy of a golden model folder, to be damaged.
pub struct ModelFolder(tempfile::TempDir);

impl ModelFolder {
    pub fn new(case: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case);
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
        Self(folder)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Rewrites config.json with one key set.
    pub fn set_config(&self, key: &str, value: serde_json::Value) {
        self.edit_json("config.json", |config| {
            config.insert(key.to_owned(), value);
        });
    }

    pub fn edit_json(&self, name: &str, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
        let file = self.file(name);
        let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        edit(json.as_object_mut().unwrap());
        fs::write(file, json.to_string()).unwrap();
    }

    /// Rewrites a safetensors file with its header edited as text; the data stay where they are.
    pub fn edit_header(&self, name: &str, edit: impl FnOnce(String) -> String) {
        let file = self.file(name);
        let bytes = fs::read(&file).unwrap();
        let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header = edit(String::from_utf8(bytes[8..8 + len].to_vec()).unwrap());
        let mut out = (header.len() as u64).to_le_bytes().to_vec();
        out.extend(header.as_bytes());
        out.extend(&bytes[8 + len..]);
        fs::write(file, out).unwrap();
    }

    /// Runs generate on the folder with a short prompt.
    pub fn generate(&self, more: &[&str]) -> Ran {
        let short: &[&str] = if more.contains(&"-n") { &[] } else { &["-n", "3"] };
        a2ats(&[&["generate", "--model", self.path(), "abc"], short, more].concat())
    }
}
