//! Takes the figures of `cuda-kmeans/README.md` on this machine's GPU.
//!
//! ```sh
//! cargo run --release -p a2ats-cuda-kmeans --features cuda --example figures
//! ```

use a2ats_cuda_kmeans::{CudaClusterer, driver};
use a2ats_kernel::clustering::{Clusterer, Points, Progress, Settings};
use a2ats_tests::{clustering::clouds, inputs::Noise};
use clap::Parser;
use std::{
    error::Error,
    ops::ControlFlow,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

/// Times k-means on this machine's GPU: the shape of all heads of an 8B model, unless told otherwise.
#[derive(Parser)]
struct Arguments {
    /// Heads to cluster.
    #[arg(long, default_value_t = 256)]
    heads: usize,
    /// Points of a head.
    #[arg(long, default_value_t = 80_000)]
    points: usize,
    /// Numbers of a point.
    #[arg(long, default_value_t = 128)]
    dim: usize,
    /// Clusters of a head.
    #[arg(long, default_value_t = 4096)]
    clusters: usize,
    /// Most iterations.
    #[arg(long, default_value_t = 300)]
    iterations: usize,
    /// Products of the measurement of the tensor cores, in rounds of 8 per warp.
    #[arg(long, default_value_t = 100_000)]
    rounds: u32,
    /// Different sets of points; heads take them in turn.
    #[arg(long, default_value_t = 8)]
    sets: u64,
    /// Writes the first set to a file, as f32 in the machine's order, for other programs to cluster.
    #[arg(long, value_name = "FILE")]
    write: Option<std::path::PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let gpu = CudaClusterer::new(0)?;
    let sets: Vec<Vec<f32>> = (0..arguments.sets)
        .map(|seed| clouds(&mut Noise::new(seed), arguments.points, arguments.dim))
        .collect();
    if let Some(file) = &arguments.write {
        std::fs::write(file, sets[0].iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>())?;
    }
    let peak = gpu.matrix_peak(arguments.rounds)?;
    let speed = gpu.assignment_speed(&Points::new(&sets[0], arguments.dim, None)?, arguments.clusters)?;
    let start = Instant::now();
    let (alone, iterations) = cluster(&gpu, &arguments, &sets[0], 0)?;
    let of_one = start.elapsed().as_secs_f64();
    let of_all = cluster_all(&gpu, &arguments, &sets)?;
    let figures = serde_json::json!({
        "card": gpu.name(),
        "driver": driver::version()?,
        "points": arguments.points,
        "dim": arguments.dim,
        "clusters": arguments.clusters,
        "tf32_peak_tflops": peak / 1e12,
        "assignment_tflops": speed / 1e12,
        // Three products of TF32 for one of f32.
        "assignment_share_of_peak": 3.0 * speed / peak,
        "one_head_seconds": of_one,
        "one_head_iterations": iterations,
        "one_head_objective": alone,
        "heads": arguments.heads,
        "all_heads_seconds": of_all,
    });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

/// The objective, and iterations.
fn cluster(
    gpu: &CudaClusterer,
    arguments: &Arguments,
    points: &[f32],
    seed: u64,
) -> a2ats_kernel::Result<(f64, usize)> {
    let settings = Settings {
        clusters: arguments.clusters,
        iterations: arguments.iterations,
        seed,
        ..Settings::default()
    };
    let keep_on = &mut |_: Progress| ControlFlow::Continue(());
    let found = gpu.cluster(&Points::new(points, arguments.dim, None)?, &settings, keep_on)?;
    Ok(found.map_or((0.0, 0), |found| (found.objective, found.iterations)))
}

/// Seconds for all heads, as many at a time as the clusterer wants.
fn cluster_all(gpu: &CudaClusterer, arguments: &Arguments, sets: &[Vec<f32>]) -> a2ats_kernel::Result<f64> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..gpu.at_a_time() {
            scope.spawn(|| {
                loop {
                    let head = next.fetch_add(1, Ordering::Relaxed);
                    if head >= arguments.heads {
                        return;
                    }
                    if let Err(error) = cluster(gpu, arguments, &sets[head % sets.len()], head as u64) {
                        next.store(arguments.heads, Ordering::Relaxed);
                        *failed.lock().expect("no thread panics with it") = Some(error);
                    }
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    failed.into_inner().expect("no thread panics with it").map_or(Ok(seconds), Err)
}
