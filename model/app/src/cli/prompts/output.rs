//! The file of answers: whole lines in the order of the input, and nothing twice.

use a2ats_model::{Error, Result};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// How each line begins.
const BEGINNING: &str = "{\"id\":";

/// The file, and which lines it has.
pub(super) struct Output {
    path: PathBuf,
    file: File,
    /// Ids as JSON writes them.
    done: HashSet<String>,
}

impl Output {
    /// Opens a file, or makes one. A line that was not finished, by a program that was killed, is cut off.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let options = OpenOptions::new().read(true).append(true).create(true).open(path);
        let mut file = options.map_err(Error::io(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let problem = "another program writes to it";
                return Err(Error::file(path, problem, "wait for it, or give another --out"));
            }
            Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        let foreign = |number: usize| {
            let problem = format!("line {number} is none that this command writes");
            Error::file(path, problem, "give another --out")
        };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (lines, rest) = bytes.split_at(whole);
        let mut done = HashSet::new();
        let text = std::str::from_utf8(lines).map_err(|_| foreign(1))?;
        for (number, line) in text.lines().enumerate() {
            let id = Some(line).filter(|line| line.starts_with(BEGINNING));
            let id = id.and_then(|line| serde_json::from_str::<Value>(line).ok()?.get("id").cloned());
            done.insert(id.ok_or_else(|| foreign(number + 1))?.to_string());
        }
        if !rest.is_empty() {
            let shared = rest.len().min(BEGINNING.len());
            if rest[..shared] != BEGINNING.as_bytes()[..shared] {
                return Err(foreign(done.len() + 1));
            }
            file.set_len(whole as u64).map_err(Error::io(path))?;
            file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        }
        Ok(Self { path: path.to_owned(), file, done })
    }

    /// Whether it has the line of that id.
    pub(super) fn has(&self, id: &Value) -> bool {
        self.done.contains(&id.to_string())
    }

    /// Adds a line, whole, and sees to it that it survives the program.
    pub(super) fn add(&mut self, line: &Value) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).map_err(Error::io(&self.path))
    }
}
