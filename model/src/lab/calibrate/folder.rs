//! A folder of files that one process at a time works on, and that is removed in the end with nothing else in it lost.

use crate::error::{Error, Result};
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

/// Says by its number which process holds the folder; locked as long as that runs.
const LOCK: &str = "lock";

/// The folder, locked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Whether a file of that name is one of the calibration's.
    is_ours: fn(&str) -> bool,
    _lock: File,
}

impl Folder {
    /// Makes the folder or takes one that was left. `begun` is the file that each calibration makes first.
    ///
    /// # Errors
    /// If another process holds it, or somebody else's files are in it and no calibration's.
    pub(super) fn open(path: PathBuf, begun: &str, is_ours: fn(&str) -> bool) -> Result<Self> {
        loop {
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Error::io(&path)(error));
                }
                _ => {}
            }
            if !path.join(begun).exists() {
                refuse_foreign(&path, is_ours)?;
            }
            // Whoever held it may have removed it meanwhile.
            if let Some(lock) = lock(&path)? {
                return Ok(Self { path, is_ours, _lock: lock });
            }
        }
    }

    /// A file in it.
    pub(super) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Removes what is the calibration's, and the folder if nothing else is in it.
    pub(super) fn remove(self) -> Result<()> {
        let failed = Error::io(&self.path);
        let files = names(&self.path)?.into_iter().filter(|name| is_of(name, self.is_ours));
        let removed = files
            .map(|name| std::fs::remove_file(self.file(name)))
            .chain([std::fs::remove_file(self.file(LOCK))])
            .collect::<std::io::Result<()>>()
            .and_then(|()| std::fs::remove_dir(&self.path));
        match removed {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(failed(error)),
            _ => Ok(()),
        }
    }
}

fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
    Ok(entries.map_err(Error::io(folder))?.into_iter().map(|entry| entry.file_name()).collect())
}

/// Whether the name is one of a calibration's files, or of one that is being written.
fn is_of(name: &OsStr, is_ours: fn(&str) -> bool) -> bool {
    name.to_str().is_some_and(|name| is_ours(name.strip_suffix(".part").unwrap_or(name)))
}

fn refuse_foreign(folder: &Path, is_ours: fn(&str) -> bool) -> Result<()> {
    let foreign = names(folder)?.into_iter().find(|name| name != LOCK && !is_of(name, is_ours));
    foreign.map_or(Ok(()), |name| Err(is_foreign(folder, Path::new(&name))))
}

fn is_foreign(folder: &Path, name: &Path) -> Error {
    let problem = format!("holds {}, which no calibration made", name.display());
    Error::file(folder, problem, "move it elsewhere, or give another --out")
}

/// Locks the folder and writes down by whom; nothing if it is not there any more.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let mut file = match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Error::io(&path))?,
    };
    let holder = std::fs::read_to_string(&path).unwrap_or_else(|_| "unreadable".to_owned());
    if holder.chars().any(|c| !c.is_ascii_digit()) {
        return Err(is_foreign(folder, Path::new(LOCK)));
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let problem = format!("is in use by another calibration, process {holder}");
            return Err(Error::file(folder, problem, "wait until that has ended, or give another --out"));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error)),
    }
    if !path.exists() {
        return Ok(None);
    }
    let written = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    written.map_err(Error::io(&path))?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::Folder;

    fn is_ours(name: &str) -> bool {
        name == "plan" || name.starts_with("head-")
    }

    #[test]
    fn a_second_one_is_told_who_holds_it() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("work");
        let first = Folder::open(path.clone(), "plan", is_ours).unwrap();
        let error = Folder::open(path.clone(), "plan", is_ours).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        Folder::open(path.clone(), "plan", is_ours).unwrap().remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_others_put_there_is_never_removed() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("work");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("thesis"), "ten years of work").unwrap();
        let error = Folder::open(path.clone(), "plan", is_ours).unwrap_err().to_string();
        assert!(error.contains("thesis") && error.contains("no calibration made"), "{error}");
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "nothing is left there");

        std::fs::rename(path.join("thesis"), path.join("lock")).unwrap();
        let error = Folder::open(path.clone(), "plan", is_ours).unwrap_err().to_string();
        assert!(error.contains("holds lock"), "{error}");
        std::fs::rename(path.join("lock"), path.join("thesis")).unwrap();
        assert_eq!(std::fs::read(path.join("thesis")).unwrap(), b"ten years of work");

        std::fs::remove_file(path.join("thesis")).unwrap();
        let folder = Folder::open(path.clone(), "plan", is_ours).unwrap();
        for name in ["plan", "head-1", "head-2.part", "thesis"] {
            std::fs::write(folder.file(name), "x").unwrap();
        }
        folder.remove().unwrap();
        let left: Vec<_> =
            std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["thesis"]);
    }
}
