//! A bar for prefill, once it takes longer than two seconds.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);

/// Counts tokens; shows a bar on standard error where that is a terminal.
pub(super) struct Progress {
    started: Instant,
    total: usize,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(total: usize) -> Self {
        Self { started: Instant::now(), total, bar: None }
    }

    pub(super) fn show(&mut self, done: usize) {
        if self.bar.is_none() && self.started.elapsed() > PATIENCE && done < self.total {
            let style = ProgressStyle::with_template(
                "reading the prompt {wide_bar} {human_pos}/{human_len} tokens, {elapsed} of {duration}",
            );
            let bar = ProgressBar::new(self.total as u64).with_elapsed(self.started.elapsed());
            self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
