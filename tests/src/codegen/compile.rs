//! Compiles the kernel crate to assembly.

use serde_json::Value;
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The crate's name in symbols and file names.
pub(super) const CRATE: &str = "a2ats_kernel";

/// The assembly of the kernel crate as released, for `target` or this machine.
///
/// It is built in a folder of its own beside the other build outputs, so that nothing else is built anew because of
/// it. A second call without a change compiles nothing.
pub(super) fn assembly(target: Option<&str>) -> Result<PathBuf, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["rustc", "--release", "--locked", "--package", "a2ats-kernel", "--lib"]);
    cargo.arg("--manifest-path").arg(manifest).arg("--target-dir").arg(build_folder()?);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.args(target.iter().flat_map(|target| ["--target", target]));
    // Comments name loops and spills. One unit, as in the release profile, so that one file holds everything.
    cargo.args(["--", "--emit=asm", "-Zverbose-asm", "-Ccodegen-units=1", "-Clto=off"]);
    cargo.env("RUSTC_BOOTSTRAP", CRATE).stderr(Stdio::inherit());
    let output = cargo.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cannot compile the kernels to assembly: cargo ended with {}", output.status));
    }
    assembly_of_messages(&String::from_utf8_lossy(&output.stdout))
        .ok_or_else(|| format!("cargo did not say where it put {CRATE}"))
}

/// Beside the profile's folder that this program was built in.
fn build_folder() -> Result<PathBuf, String> {
    let program = env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let target = program.ancestors().nth(2).ok_or("this program lies outside of a build folder")?;
    Ok(target.join("codegen"))
}

/// The assembly that lies beside the crate's metadata. Files of earlier compilers may lie there as well; cargo's
/// messages tell which one is meant.
fn assembly_of_messages(messages: &str) -> Option<PathBuf> {
    let mut artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let kernel = artifacts.find(|message| message["target"]["name"] == CRATE)?;
    let files = kernel["filenames"].as_array()?.iter().filter_map(Value::as_str).map(Path::new);
    let metadata = files.into_iter().find(|file| file.extension().is_some_and(|kind| kind == "rmeta"))?;
    let name = metadata.file_stem()?.to_str()?.strip_prefix("lib")?;
    Some(metadata.with_file_name(format!("{name}.s")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_assembly_beside_the_metadata() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","target":{"name":"half"},"filenames":["/t/libhalf-1.rmeta"]}"#,
            "\n",
            r#"{"reason":"compiler-artifact","target":{"name":"a2ats_kernel"},"#,
            r#""filenames":["/t/release/liba2ats_kernel.rlib","/t/release/deps/liba2ats_kernel-0f.rmeta"]}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
        );
        assert_eq!(assembly_of_messages(messages), Some("/t/release/deps/a2ats_kernel-0f.s".into()));
        assert_eq!(assembly_of_messages(""), None);
    }
}
