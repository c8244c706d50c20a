//! Samples of a time, and how many threads take part.

use std::time::{Duration, Instant};

/// What sampling gave, in seconds per run.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub best: f64,
    pub median: f64,
}

/// How long to sample.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    pub time: Duration,
    pub samples: usize,
}

impl Budget {
    pub fn new(quick: bool) -> Self {
        Self {
            time: Duration::from_millis(if quick { 150 } else { 1500 }),
            samples: if quick { 3 } else { 15 },
        }
    }

    /// Times `run` on a pool's threads. It is told how often it ran before, so that it can take other inputs every time.
    /// At least `samples` samples of at least a millisecond each, until the time is over.
    pub fn time_on(&self, pool: &rayon::ThreadPool, run: impl FnMut(usize) + Send) -> Timing {
        // All of it on a thread of the pool: handing over single runs would be timed, too.
        pool.install(|| self.time(run))
    }

    /// As [`Budget::time_on`], on this thread.
    pub fn time(&self, mut run: impl FnMut(usize)) -> Timing {
        let mut count = 0;
        let mut sample = |runs: usize| {
            let start = Instant::now();
            for _ in 0..runs {
                run(count);
                count += 1;
            }
            start.elapsed().as_secs_f64() / runs as f64
        };
        let first = sample(1);
        let runs = (1e-3 / first.max(1e-9)).ceil().clamp(1.0, 1e6) as usize;
        let mut seconds = Vec::new();
        let start = Instant::now();
        while seconds.len() < self.samples || start.elapsed() < self.time {
            seconds.push(sample(runs));
        }
        seconds.sort_by(f64::total_cmp);
        Timing { best: seconds[0], median: seconds[seconds.len() / 2] }
    }
}

/// A pool of that many threads.
pub fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of threads can be started")
}
