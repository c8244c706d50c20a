//! The same points on the GPU and on the CPU.

use super::device::{gpu, sized};
use a2ats_kernel::{
    available,
    clustering::{Candidates, CpuClusterer, Nearest, Points, Settings},
};
use a2ats_tests::{
    clustering::{clouds, cluster, settings},
    inputs::Noise,
};

/// Labels are the CPU's for the same centroids, but where two of those are as near as rounding can tell.
#[test]
fn labels_are_the_cpus_for_the_same_centroids() {
    for (count, dim, clusters) in sized(
        vec![(1, 1, 1), (127, 16, 3), (129, 17, 129), (300, 64, 257), (1025, 33, 40)],
        vec![
            (1, 1, 1),
            (127, 16, 3),
            (129, 17, 129),
            (10_007, 64, 257),
            (30_000, 128, 4096),
            (100_000, 256, 1000),
        ],
    ) {
        let points = clouds(&mut Noise::new(count as u64), count, dim);
        let view = Points::new(&points, dim, None).unwrap();
        let (found, _) = cluster(gpu(), &view, &Settings { iterations: 300, ..settings(clusters, 1) });
        let center = view.mean();
        let less_center = |rows: &[f32]| -> Vec<f32> {
            rows.chunks_exact(dim)
                .flat_map(|row| row.iter().zip(&center).map(|(x, center)| x - center))
                .collect()
        };
        let (points, centroids) = (less_center(&points), less_center(&found.centroids));
        let half_norms: Vec<f32> =
            centroids.chunks_exact(dim).map(|c| c.iter().map(|x| x * x).sum::<f32>() / 2.0).collect();
        let (mut scores, mut labels) = (vec![f32::NEG_INFINITY; count], vec![0; count]);
        let candidates = Candidates { centroids: &centroids, half_norms: &half_norms };
        available()[0]
            .nearest(&points, &candidates, &mut Nearest { scores: &mut scores, numbers: &mut labels })
            .unwrap();
        for (number, point) in points.chunks_exact(dim).enumerate() {
            let (ours, cpus) = (found.labels[number] as usize, labels[number] as usize);
            let distance = |c: usize| -> f64 {
                let pairs = point.iter().zip(&centroids[c * dim..][..dim]);
                pairs.map(|(x, c)| (f64::from(*x) - f64::from(*c)).powi(2)).sum()
            };
            let size: f64 = point.iter().map(|x| f64::from(x * x)).sum();
            let rounding = 1e-6 * (size + distance(cpus));
            let (ours, cpus) = (distance(ours), distance(cpus));
            assert!(
                ours <= cpus + rounding,
                "{count} x {dim}, {clusters}: point {number} is {ours} away, on the CPU {cpus}"
            );
        }
    }
}

/// The sum over seeds: single runs differ by more, on either.
#[test]
fn objectives_are_the_cpus() {
    let ((count, dim, clusters), seeds, slack) =
        sized(((500, 16, 40), 6, 1.02), ((40_000, 128, 2000), 3, 1.001));
    let points = clouds(&mut Noise::new(77), count, dim);
    let view = Points::new(&points, dim, None).unwrap();
    let cpu = CpuClusterer { kernels: available()[0] };
    let few = |seed| Settings { iterations: sized(6, 300), ..settings(clusters, seed) };
    let ours: f64 = (0..seeds).map(|seed| cluster(gpu(), &view, &few(seed)).0.objective).sum();
    let cpus: f64 = (0..seeds).map(|seed| cluster(&cpu, &view, &few(seed)).0.objective).sum();
    assert!(ours <= slack * cpus && cpus <= slack * ours, "{ours} on the GPU, {cpus} on the CPU");
}
