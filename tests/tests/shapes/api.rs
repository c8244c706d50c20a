//! The public functions of the kernels' crate, as its sources have them.

use std::{fs, path::Path};

/// Files whose `pub` is seen by the crate alone, since their modules are private.
const PRIVATE: [&str; 3] = ["simd.rs", "element.rs", "broadcast.rs"];

/// The public functions that have arguments, each with its type or trait, or else the module it is in.
pub fn functions() -> Vec<String> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernel/src");
    let mut found = Vec::new();
    add_folder(&sources, None, &mut found);
    found
}

fn add_folder(folder: &Path, module: Option<&str>, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            add_folder(&path, Some(module.unwrap_or(stem)), found);
        } else if !PRIVATE.iter().any(|file| path.ends_with(file)) {
            add_file(&fs::read_to_string(&path).unwrap(), module.unwrap_or(stem), found);
        }
    }
}

/// Goes over a file line by line: rustfmt puts what is not nested at the beginning of a line.
fn add_file(source: &str, module: &str, found: &mut Vec<String>) {
    let (mut owner, mut keyword) = (module, "pub ");
    let mut rest = source;
    while let Some((line, after)) = rest.split_once('\n') {
        if line == "}" {
            (owner, keyword) = (module, "pub ");
        } else if let Some(name) = line.strip_prefix("pub trait ") {
            (owner, keyword) = (identifier(name), "");
        } else if line.starts_with("impl") && line.ends_with('{') {
            owner = implemented(line);
        } else if let Some(function) = function(line.trim_start(), keyword) {
            let arguments = rest.split_once('(').map_or("", |(_, arguments)| arguments.trim_start());
            if !["&self)", "&mut self)", "self)", ")"].iter().any(|none| arguments.starts_with(none)) {
                found.push(format!("{owner}::{}", identifier(function)));
            }
        }
        rest = after;
    }
}

/// What follows `fn`, where a public function begins.
fn function<'a>(line: &'a str, keyword: &str) -> Option<&'a str> {
    let line = line.strip_prefix(keyword)?;
    line.strip_prefix("const ").unwrap_or(line).strip_prefix("fn ")
}

/// The type of `impl<...> Type<...> {`.
fn implemented(line: &str) -> &str {
    let line = line.trim_start_matches("impl");
    identifier(if line.starts_with('<') {
        line.split_once("> ").map_or("", |(_, name)| name)
    } else {
        line.trim()
    })
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("")
}
