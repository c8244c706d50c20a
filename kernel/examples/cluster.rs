//! Clusters the points of a file: for comparisons with other programs, see `benches/peers/clustering.py`.
//!
//! ```sh
//! cargo run --release -p a2ats-kernel --features clustering --example cluster -- points.f32 128 4096
//! ```
//!
//! The file holds f32 in the machine's order, `[n, dim]`. Each step is a line of JSON: seconds since the points were read, and the
//! objective.

use a2ats_kernel::clustering::{Clusterer, CpuClusterer, Points, Progress, Settings};
use std::{error::Error, fs::File, io::Read, ops::ControlFlow, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, file, dim, clusters] = &arguments[..] else {
        return Err("usage: cluster FILE DIM CLUSTERS".into());
    };
    let mut file = File::open(file)?;
    let mut coordinates = vec![0.0_f32; file.metadata()?.len() as usize / size_of::<f32>()];
    file.read_exact(bytemuck::cast_slice_mut(&mut coordinates))?;
    let settings = Settings { clusters: clusters.parse()?, ..Settings::default() };
    let points = Points::new(&coordinates, dim.parse()?, None)?;
    let start = Instant::now();
    let mut show = |progress| {
        let seconds = start.elapsed().as_secs_f64();
        match progress {
            Progress::Seeding { chosen, clusters } if chosen == clusters => {
                println!("{{\"step\": \"seeding\", \"seconds\": {seconds}}}");
            }
            Progress::Seeding { .. } => {}
            Progress::Iteration { number, moved, objective, .. } => println!(
                "{{\"step\": \"iteration {number}\", \"seconds\": {seconds}, \"moved\": {moved}, \"objective\": {objective}}}"
            ),
        }
        ControlFlow::Continue(())
    };
    CpuClusterer { kernels: a2ats_kernel::select()? }.cluster(&points, &settings, &mut show)?;
    Ok(())
}
