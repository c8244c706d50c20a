//! `a2ats generate --prompts`: a file of prompts, many sequences at a time.

mod line;
mod output;

use super::{
    CommandResult, Outcome, interrupt,
    load::Loaded,
    options::{ModelOptions, SamplingArguments},
    output::{print_json, say},
    progress::Progress,
};
use a2ats_model::{
    Error, Result,
    engine::{End, Engine, Event, Kept, Request, RequestId},
};
use line::Line;
use output::Output;
use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::Path,
    time::Instant,
};

/// A beginning that prompts have in common is read once if it is as long as this, in tokens.
const SHORTEST_PREFIX: usize = 16;

/// What the command line says.
pub(super) struct Job<'a> {
    pub(super) prompts: &'a Path,
    pub(super) out: &'a Path,
    pub(super) batch: usize,
    pub(super) json: bool,
    pub(super) model: &'a ModelOptions,
    pub(super) sampling: &'a SamplingArguments,
}

/// What has been done; `--json` prints it.
#[derive(Debug, Default, Serialize)]
struct Summary {
    lines: usize,
    /// Of them, those that the output had already.
    skipped: usize,
    failed: usize,
    /// Tokens that all prompts have in common and that were read once.
    common_prefix_tokens: usize,
    prompt_tokens: usize,
    generated_tokens: usize,
    seconds: f64,
    generated_tokens_per_second: f64,
}

/// A line's place in the output.
enum Place {
    /// It is being worked on.
    Open,
    /// It waits for those before it.
    Done(Value),
}

impl Job<'_> {
    pub(super) fn run(&self, loaded: &Loaded) -> CommandResult {
        let lines = self.lines()?;
        let mut output = Output::open(self.out)?;
        let mut summary = Summary { lines: lines.len(), ..Summary::default() };
        let started = Instant::now();
        let mut engine = loaded.engine(self.model, self.batch)?;
        let prefix = common_prefix(&lines, loaded);
        let left: Vec<&Line> = lines.iter().filter(|line| !output.has(&line.id)).collect();
        summary.skipped = lines.len() - left.len();
        let kept = match left.len() {
            0 => None,
            _ => read_prefix(&mut engine, &prefix)?,
        };
        summary.common_prefix_tokens = kept.as_ref().map_or(0, Kept::len);
        let mut work = Work {
            job: self,
            loaded,
            kept,
            left: left.into(),
            places: VecDeque::new(),
            first: 0,
            running: HashMap::new(),
            progress: Progress::new(lines.len(), ("answering", "prompts")),
            summary,
            started,
        };
        let finished = work.run(&mut engine, &mut output)?;
        let summary = work.finish();
        self.report(&summary, finished)?;
        Ok(if finished { Outcome::Done } else { Outcome::Interrupted })
    }

    /// The lines of the input; of those with the same id all but the first are wrong.
    fn lines(&self) -> Result<Vec<Line>> {
        let text = super::prompt::file(self.prompts)?;
        let lines = text.lines().enumerate().filter(|(_, text)| !text.trim().is_empty());
        let mut lines: Vec<Line> = lines.map(|(number, text)| Line::parse(text, number + 1)).collect();
        let mut ids = HashSet::new();
        for line in &mut lines {
            if !ids.insert(line.id.to_string()) {
                line.refuse(format!("the id {} occurs more than once", line.id));
            }
        }
        if lines.is_empty() {
            let remedy = "put one JSON object with a prompt or messages on each line";
            return Err(Error::file(self.prompts, "has no lines", remedy));
        }
        Ok(lines)
    }

    fn report(&self, summary: &Summary, finished: bool) -> Result<()> {
        if self.json {
            return print_json(summary);
        }
        let answered = summary.lines - summary.skipped - summary.failed;
        say(&format!(
            "{}: {} of {} lines{}{}; {} tokens generated in {:.1} seconds, {:.1} tokens/s{}",
            self.out.display(),
            if finished {
                answered.to_string()
            } else {
                format!("stopped before the end, {answered} or fewer")
            },
            summary.lines,
            if summary.skipped > 0 { format!(", {} were there", summary.skipped) } else { String::new() },
            if summary.failed > 0 { format!(", {} failed", summary.failed) } else { String::new() },
            summary.generated_tokens,
            summary.seconds,
            summary.generated_tokens_per_second,
            if finished { "" } else { "; the same command goes on from there" }
        ));
        Ok(())
    }
}

/// The work on the lines.
struct Work<'a> {
    job: &'a Job<'a>,
    loaded: &'a Loaded,
    kept: Option<Kept>,
    left: VecDeque<&'a Line>,
    /// Lines that were begun and are not in the output yet, in their order; the first is number `first`.
    places: VecDeque<(&'a Line, Place)>,
    first: usize,
    running: HashMap<RequestId, (usize, String)>,
    progress: Progress,
    summary: Summary,
    started: Instant,
}

impl<'a> Work<'a> {
    /// Answers all lines; false if it was interrupted.
    fn run(&mut self, engine: &mut Engine<'_>, output: &mut Output) -> Result<bool> {
        loop {
            while engine.requests() < self.job.batch
                && let Some(line) = self.left.pop_front()
            {
                self.begin(line, engine);
            }
            self.write(output)?;
            if engine.is_idle() && self.left.is_empty() {
                return Ok(true);
            }
            let mut events = Vec::new();
            let flow = engine.step(&mut |event| events.push(event), &mut interrupt::flow);
            events.into_iter().for_each(|event| self.take(event));
            if flow.is_break() || interrupt::requested() {
                self.write(output)?;
                return Ok(false);
            }
        }
    }

    /// Begins with a line.
    fn begin(&mut self, line: &'a Line, engine: &mut Engine<'_>) {
        let number = self.first + self.places.len();
        self.places.push_back((line, Place::Open));
        let submitted = line.tokens(self.loaded).and_then(|tokens| {
            let shared = self.kept.as_ref().map_or(0, Kept::len);
            let mut request = line.request(tokens[shared..].to_vec(), self.job.sampling);
            let fork = self.kept.as_ref().map(Kept::fork).transpose();
            request.behind = fork.map_err(|error| error.to_string())?;
            engine.submit(request).map_err(|error| error.to_string())
        });
        match submitted {
            Ok(id) => {
                self.running.insert(id, (number, String::new()));
            }
            Err(problem) => self.fail(number, &problem),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Reading { .. } => {}
            Event::Token { request, text, .. } => {
                if let Some((_, whole)) = self.running.get_mut(&request) {
                    whole.push_str(&text);
                }
            }
            Event::Finished { request, end } => {
                if let Some((number, text)) = self.running.remove(&request) {
                    self.finish_line(number, text, *end);
                }
            }
            Event::Failed { request, error } => {
                if let Some((number, _)) = self.running.remove(&request) {
                    self.fail(number, &error.to_string());
                }
            }
        }
    }

    fn finish_line(&mut self, number: usize, text: String, end: End) {
        self.summary.prompt_tokens += end.prompt_tokens;
        self.summary.generated_tokens += end.generated_tokens;
        let (line, place) = &mut self.places[number - self.first];
        *place = Place::Done(json!({
            "id": line.id,
            "text": text + &end.text,
            "stop": end.stop,
            "prompt_tokens": self.kept.as_ref().map_or(0, Kept::len) + end.prompt_tokens,
            "generated_tokens": end.generated_tokens,
        }));
    }

    fn fail(&mut self, number: usize, problem: &str) {
        self.summary.failed += 1;
        let (line, place) = &mut self.places[number - self.first];
        *place = Place::Done(json!({ "id": line.id, "error": problem }));
    }

    /// Writes what is done and has nothing unfinished before it: so that a run that is killed and begun again leaves the same file.
    fn write(&mut self, output: &mut Output) -> Result<()> {
        while let Some((_, Place::Done(line))) = self.places.front() {
            output.add(line)?;
            self.places.pop_front();
            self.first += 1;
        }
        self.progress.show(self.summary.skipped + self.first);
        let seconds = self.started.elapsed().as_secs_f64();
        let speed = self.summary.generated_tokens as f64 / seconds;
        self.progress.say(format!("; {speed:.1} tokens/s"));
        Ok(())
    }

    fn finish(mut self) -> Summary {
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        self.summary.generated_tokens_per_second =
            self.summary.generated_tokens as f64 / self.summary.seconds;
        self.summary
    }
}

/// The tokens that all prompts begin with, at least one less than the shortest has. It is that of all lines, also of those that are
/// done, so that a run that goes on reads what it had read before.
fn common_prefix(lines: &[Line], loaded: &Loaded) -> Vec<u32> {
    let shared = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    // Each keeps its last token to itself.
    let without_last = |line: &Line| {
        let mut tokens = line.tokens(loaded).ok()?;
        tokens.pop();
        Some((1, tokens))
    };
    let common = lines.par_iter().filter_map(without_last).reduce_with(|(a, mut common), (b, other)| {
        common.truncate(shared(&common, &other));
        (a + b, common)
    });
    match common {
        Some((2.., common)) if common.len() >= SHORTEST_PREFIX => common,
        _ => Vec::new(),
    }
}

/// Reads the common beginning, if there is one.
fn read_prefix(engine: &mut Engine<'_>, prefix: &[u32]) -> Result<Option<Kept>> {
    if prefix.is_empty() {
        return Ok(None);
    }
    let request = Request { prompt: prefix.to_vec(), keep: true, ..Request::default() };
    let end = super::answer::answer(engine, request, &mut |_| Ok(()))?;
    // After Ctrl-C there is a part of it at most.
    Ok(end.kept.filter(|kept| kept.len() == prefix.len()))
}
