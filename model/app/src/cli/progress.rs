//! A bar for what takes longer than two seconds.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(2);

/// Counts what is done; shows a bar on standard error where that is a terminal.
pub(super) struct Progress {
    started: Instant,
    total: usize,
    /// What is done, and what is counted.
    what: (&'static str, &'static str),
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(super) fn new(total: usize, what: (&'static str, &'static str)) -> Self {
        Self { started: Instant::now(), total, what, bar: None }
    }

    /// A bar for a prompt of so many tokens.
    pub(super) fn of_prompt(tokens: usize) -> Self {
        Self::new(tokens, ("reading the prompt", "tokens"))
    }

    pub(super) fn show(&mut self, done: usize) {
        if self.bar.is_none() && self.started.elapsed() > PATIENCE && done < self.total {
            let (doing, unit) = self.what;
            let style = ProgressStyle::with_template(&format!(
                "{doing} {{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{elapsed}} of {{duration}}{{msg}}"
            ));
            let bar = ProgressBar::new(self.total as u64).with_elapsed(self.started.elapsed());
            self.bar = Some(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        }
    }

    /// Says more beside the bar.
    pub(super) fn say(&self, more: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(more);
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
