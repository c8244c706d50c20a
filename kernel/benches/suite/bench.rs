//! A run in progress: what it is run on, and what it has found.

use super::{
    machine::{Reading, Stream, cpu_name},
    options::Options,
    peaks, report,
    results::{Machine, Measurement, Parts, Run, Shape},
    table,
    timing::{Budget, Timing, pool},
};
use a2ats_kernel::Kernels;
use std::{fs, path::Path, process::ExitCode};

/// What bounds an operation, and how much of it a run needs.
#[derive(Debug, Clone, Copy)]
pub enum Work {
    /// Bytes that have to be read from memory.
    Bytes(usize),
    /// Two per multiply-add that the operation's definition has.
    Flops(usize),
    /// Neither: the time is the figure.
    Time,
}

/// A run in progress.
pub struct Bench {
    pub options: Options,
    pub budget: Budget,
    /// The backends, best first.
    pub kernels: Vec<&'static dyn Kernels>,
    /// One thread, and all if that is more than one.
    pub pools: Vec<rayon::ThreadPool>,
    stream: Stream,
    machine: Machine,
    /// Read bandwidths over the run, in the order of the machine's fields.
    bandwidths: Vec<[f64; 4]>,
    results: Vec<(Measurement, Work)>,
}

impl Bench {
    pub fn new(options: Options, kernels: Vec<&'static dyn Kernels>) -> Self {
        let all =
            options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let pools: Vec<_> = if all == 1 { vec![pool(1)] } else { vec![pool(1), pool(all)] };
        let samples = if options.quick { 5 } else { 20 };
        eprintln!("measuring the peak of each backend's multiply-add");
        let peaks = kernels
            .iter()
            .filter_map(|kernels| peaks::measure(kernels.name(), &pools[pools.len() - 1], samples));
        let machine = Machine {
            cpu: cpu_name(),
            threads: all,
            read_bandwidth_1: 0.0,
            read_bandwidth_all: 0.0,
            gather_bandwidth_1: 0.0,
            gather_bandwidth_all: 0.0,
            peaks: peaks.collect(),
        };
        let budget = Budget::new(options.quick);
        let mut bench = Self {
            options,
            budget,
            kernels,
            pools,
            stream: Stream::new(),
            machine,
            bandwidths: Vec::new(),
            results: Vec::new(),
        };
        bench.measure_bandwidth();
        bench
    }

    /// The pool of all threads.
    pub fn all_threads(&self) -> &rayon::ThreadPool {
        &self.pools[self.pools.len() - 1]
    }

    /// Reads memory again: each time the best of several passes, and of the times the median. (The best of a whole run
    /// is a moment in which the neighbours of a virtual machine were quiet, which no operation met.)
    fn measure_bandwidth(&mut self) {
        let passes = if self.options.quick { 2 } else { 5 };
        let Self { stream, pools, .. } = self;
        let mut read = |reading, pool| stream.read_bandwidth(reading, pool, passes);
        let (first, last) = (&pools[0], &pools[pools.len() - 1]);
        let (one, all) = (read(Reading::Streaming, first), read(Reading::Streaming, last));
        let (gather_one, gather_all) = (read(Reading::Gathering, first), read(Reading::Gathering, last));
        eprintln!(
            "read bandwidth {:.1} GB/s on one thread, {:.1} on all; rows here and there {:.1} and {:.1}",
            one / 1e9,
            all / 1e9,
            gather_one / 1e9,
            gather_all / 1e9
        );
        self.bandwidths.push([one, all, gather_one, gather_all]);
        let median = |which: usize| {
            let mut of: Vec<f64> = self.bandwidths.iter().map(|taken| taken[which]).collect();
            of.sort_by(f64::total_cmp);
            of[of.len() / 2]
        };
        self.machine.read_bandwidth_1 = median(0);
        self.machine.read_bandwidth_all = median(1);
        self.machine.gather_bandwidth_1 = median(2);
        self.machine.gather_bandwidth_all = median(3);
    }

    /// Whether an operation is wanted; if so, announces it.
    pub fn begins(&mut self, operation: &str) -> bool {
        let wanted = self.options.wants(operation);
        if wanted {
            self.measure_bandwidth();
            eprintln!("{operation}");
        }
        wanted
    }

    /// Takes down a result.
    pub fn record(
        &mut self,
        operation: &str,
        backend: &str,
        threads: usize,
        shape: Shape,
        timing: Timing,
        work: Work,
    ) {
        let measurement = Measurement {
            operation: operation.to_owned(),
            backend: backend.to_owned(),
            threads,
            shape,
            seconds: timing.best,
            median_seconds: timing.median,
            bytes_per_second: None,
            flops_per_second: None,
            roofline_ratio: None,
            parts: None,
        };
        self.results.push((measurement, work));
    }

    /// Says how the last result's time divides.
    pub fn add_parts(&mut self, parts: Parts) {
        if let Some((last, _)) = self.results.last_mut() {
            last.parts = Some(parts);
        }
    }

    /// Holds every result against the walls, prints the table and writes the files that were asked for.
    pub fn finish(mut self) -> ExitCode {
        self.measure_bandwidth();
        let machine = self.machine;
        let results =
            self.results.into_iter().map(|(result, work)| against_walls(result, work, &machine)).collect();
        let run = Run { machine, results };
        print!("{}", table::render(&run));
        let options = self.options;
        let json = || serde_json::to_string_pretty(&run).expect("numbers and strings become JSON");
        let written = write(options.json.as_deref(), json)
            .and_then(|()| write(options.report.as_deref(), || report::render(&run)))
            .and_then(|()| write(options.figure.as_deref(), || report::figure(&run)));
        match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                eprintln!("{message}");
                ExitCode::FAILURE
            }
        }
    }
}

fn against_walls(mut result: Measurement, work: Work, machine: &Machine) -> Measurement {
    let alone = result.threads == 1;
    match work {
        Work::Bytes(bytes) => {
            let rate = bytes as f64 / result.seconds;
            let wall = if alone { machine.read_bandwidth_1 } else { machine.read_bandwidth_all };
            result.bytes_per_second = Some(rate);
            result.roofline_ratio = Some(rate / wall);
        }
        Work::Flops(flops) => {
            let rate = flops as f64 / result.seconds;
            let peak = machine.peaks.iter().find(|peak| peak.backend == result.backend);
            let wall =
                peak.map(|peak| if alone { peak.flops_per_second_1 } else { peak.flops_per_second_all });
            result.flops_per_second = Some(rate);
            result.roofline_ratio = wall.map(|wall| rate / wall);
        }
        Work::Time => {}
    }
    result
}

/// Writes a file whole or not at all.
fn write(path: Option<&Path>, content: impl FnOnce() -> String) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let temporary = path.with_extension("partial");
    fs::write(&temporary, content())
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
