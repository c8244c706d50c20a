//! Standard output and standard error, and what to do when nobody reads them any more.

use a2ats_model::{Error, Result};
use std::io::{self, ErrorKind, Write};

/// The name that errors about standard output go by.
const STDOUT: &str = "standard output";

/// Writes to standard output and flushes it.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Error::io(STDOUT))
}

/// Whether somebody closed the pipe that standard output goes to: the quiet end of `a2ats … | head`.
pub(super) fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { path, source } if path.as_os_str() == STDOUT && source.kind() == ErrorKind::BrokenPipe)
}

/// A line for the person at the terminal; nobody there is no error.
pub(super) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// What went wrong, in one line.
pub(super) fn say_error(error: &Error) {
    say(&format!("a2ats: {error}"));
}

/// A value as one JSON object on a line of its own.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::io(STDOUT)(error.into()))?;
    print(&format!("{text}\n"))
}

/// Bytes in the unit that reads best.
pub(super) fn human_bytes(bytes: f64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut scaled = bytes;
    let mut unit = 0;
    while scaled >= 1024.0 && unit + 1 < units.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{scaled:.0} {}", units[unit]) } else { format!("{scaled:.1} {}", units[unit]) }
}

/// Seconds in the unit that reads best.
pub(super) fn human_time(seconds: f64) -> String {
    match seconds {
        ..100.0 => format!("{seconds:.0} seconds"),
        ..6000.0 => format!("{:.0} minutes", seconds / 60.0),
        _ => format!("{:.1} hours", seconds / 3600.0),
    }
}
