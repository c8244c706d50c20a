//! k-means against the reference.

use a2ats_kernel::{
    Error, available,
    clustering::{Candidates, Clusterer, CpuClusterer, Nearest, Points, Settings},
};
use a2ats_tests::{
    backends::on_every_backend,
    clustering::{check_clouds, check_distinct, check_magnitude, clouds, cluster, settings},
    inputs::{Guarded, Noise, ROUNDING, config, lengths, offsets, row_counts},
    reference::{clustering::k_means, to_f64},
};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn half_norms(centroids: &[f32], dim: usize) -> Vec<f32> {
    let half_norm = |c: &[f32]| c.iter().map(|x| x * x).sum::<f32>() / 2.0;
    centroids.chunks_exact(dim).map(half_norm).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nearest_candidates_are_the_references(
        (count, candidates, dim) in (row_counts(), row_counts(), lengths()),
        (seed, offset) in (any::<u64>(), offsets()),
    ) {
        let mut noise = Noise::new(seed);
        let points = Guarded::new(&noise.vector(count * dim, 1.0), offset);
        let centroids = Guarded::new(&noise.vector(candidates * dim, 1.0), 15 - offset);
        let half_norms = half_norms(&centroids, dim);
        let before: Vec<f32> = (0..count).map(|_| if noise.below(3) == 0 { noise.below(3) as f32 } else { f32::NEG_INFINITY }).collect();
        on_every_backend(|kernels| {
            let (mut scores, mut numbers) = (Guarded::new(&before, offset), vec![u32::MAX; count]);
            let candidates = Candidates { centroids: &centroids, half_norms: &half_norms };
            kernels.nearest(&points, &candidates, &mut Nearest { scores: &mut scores, numbers: &mut numbers }).unwrap();
            for (number, point) in to_f64(&points).chunks_exact(dim).enumerate() {
                let score = |c: usize| {
                    let centroid = to_f64(&centroids[c * dim..(c + 1) * dim]);
                    point.iter().zip(&centroid).map(|(a, b)| a * b).sum::<f64>() - f64::from(half_norms[c])
                };
                let best = (0..half_norms.len()).map(score).fold(f64::from(before[number]), f64::max);
                let tolerance = ROUNDING * (4.0 + dim as f64) * (1.0 + dim as f64);
                let what = format!("{}: point {number} of {count}, {} candidates, dim {dim}", kernels.name(), half_norms.len());
                assert!((f64::from(scores[number]) - best).abs() <= tolerance, "{what}: {} for {best}", scores[number]);
                match numbers[number] {
                    u32::MAX => assert_eq!(scores[number], before[number], "{what}"),
                    c => assert!((score(c as usize) - best).abs() <= tolerance, "{what}: candidate {c}"),
                }
            }
        });
    }

    #[test]
    fn of_equal_candidates_the_first_is_taken(
        (count, dim, copies) in (1_usize..=60, lengths(), 2_usize..=40),
        seed in any::<u64>(),
    ) {
        let mut noise = Noise::new(seed);
        let points = noise.vector(count * dim, 1.0);
        let centroids = noise.vector(dim, 1.0).repeat(copies);
        let half_norms = half_norms(&centroids, dim);
        on_every_backend(|kernels| {
            let (mut scores, mut numbers) = (vec![f32::NEG_INFINITY; count], vec![u32::MAX; count]);
            let candidates = Candidates { centroids: &centroids, half_norms: &half_norms };
            kernels.nearest(&points, &candidates, &mut Nearest { scores: &mut scores, numbers: &mut numbers }).unwrap();
            assert_eq!(numbers, vec![0; count], "{}", kernels.name());
        });
    }

    #[test]
    fn clusterings_are_at_rest(
        (count, dim, clusters) in (1_usize..=400, 1_usize..=40, 1_usize..=50),
        (seed, weighted, far) in (any::<u64>(), any::<bool>(), any::<bool>()),
    ) {
        on_every_backend(|kernels| {
            check_clouds(&CpuClusterer { kernels }, kernels.name(), (count, dim, clusters), (seed, weighted, far));
        });
    }

    #[test]
    fn with_fewer_distinct_points_than_clusters_each_has_its_own(
        (distinct, copies, dim, clusters) in (1_usize..=20, 1_usize..=9, 1_usize..=30, 20_usize..=60),
        seed in any::<u64>(),
    ) {
        on_every_backend(|kernels| {
            check_distinct(&CpuClusterer { kernels }, kernels.name(), (distinct, copies, dim, clusters), seed);
        });
    }

    #[test]
    fn points_of_any_size_are_clustered(
        (count, dim, clusters) in (1_usize..=100, 1_usize..=40, 1_usize..=30),
        (seed, magnitude) in (any::<u64>(), proptest::sample::select(vec![1e15_f32, 1e8, 1e-20, 1e-38, 0.0])),
    ) {
        on_every_backend(|kernels| {
            check_magnitude(&CpuClusterer { kernels }, kernels.name(), (count, dim, clusters), (seed, magnitude));
        });
    }

    #[test]
    fn equal_weights_are_as_none(
        (count, dim, clusters, seed) in (1_usize..=200, 1_usize..=20, 1_usize..=30, any::<u64>()),
    ) {
        let points = clouds(&mut Noise::new(seed), count, dim);
        let weights = vec![4.0; count];
        let kernels = available()[0];
        let (plain, _) = cluster(&CpuClusterer { kernels }, &Points::new(&points, dim, None).unwrap(), &settings(clusters, seed));
        let (weighted, _) = cluster(&CpuClusterer { kernels }, &Points::new(&points, dim, Some(&weights)).unwrap(), &settings(clusters, seed));
        prop_assert_eq!(&plain.centroids, &weighted.centroids);
        prop_assert_eq!(4.0 * plain.objective, weighted.objective);
    }

    #[test]
    fn the_same_bits_on_any_number_of_threads(
        (count, dim, clusters, seed) in (1_usize..=2000, 1_usize..=20, 1_usize..=100, any::<u64>()),
    ) {
        let points = clouds(&mut Noise::new(seed), count, dim);
        let view = Points::new(&points, dim, None).unwrap();
        on_every_backend(|kernels| {
            let on = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| cluster(&CpuClusterer { kernels }, &view, &settings(clusters, seed)))
            };
            let alone = on(1);
            for threads in [2, 5] {
                assert_eq!(alone, on(threads), "{} on {threads} threads", kernels.name());
            }
        });
    }
}

/// As good as the plain algorithm after as many iterations, on average over seeds: single runs differ by more.
#[test]
fn objectives_are_those_of_plain_k_means() {
    let (count, dim, clusters, iterations, seeds) = (1500, 16, 60, 8, 6);
    let points = clouds(&mut Noise::new(77), count, dim);
    let view = Points::new(&points, dim, None).unwrap();
    let wide = to_f64(&points);
    let plain =
        |seed| k_means(&wide, &vec![1.0; count], clusters, iterations, &mut Noise::new(seed)).objective;
    let want: f64 = (0..seeds).map(plain).sum();
    on_every_backend(|kernels| {
        let ours = |seed| {
            cluster(&CpuClusterer { kernels }, &view, &Settings { iterations, ..settings(clusters, seed) })
                .0
                .objective
        };
        let got: f64 = (0..seeds).map(ours).sum();
        assert!(got <= 1.01 * want, "{}: {got} where plain k-means has {want}", kernels.name());
    });
}

#[test]
fn what_cannot_be_clustered_is_refused() {
    let refused = |points: &[f32], weights: Option<&[f32]>| Points::new(points, 2, weights).unwrap_err();
    assert!(matches!(refused(&[0.0, f32::NAN], None), Error::Unsupported { .. }));
    assert!(matches!(refused(&[0.0, f32::INFINITY], None), Error::Unsupported { .. }));
    assert!(matches!(refused(&[0.0, -1.1e15], None), Error::Unsupported { .. }));
    assert!(matches!(refused(&[], None), Error::Unsupported { .. }));
    assert!(matches!(refused(&[0.0; 3], None), Error::Length { .. }));
    assert!(matches!(refused(&[0.0; 4], Some(&[1.0])), Error::Length { .. }));
    for weight in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(matches!(refused(&[0.0; 4], Some(&[1.0, weight])), Error::Unsupported { .. }), "{weight}");
    }
    assert!(Points::new(&[0.0; 4], 0, None).is_err());
    let view = Points::new(&[0.0; 4], 2, None).unwrap();
    let clusterer = CpuClusterer { kernels: available()[0] };
    for settings in [settings(0, 0), Settings { tolerance: f64::NAN, ..settings(1, 0) }] {
        assert!(clusterer.cluster(&view, &settings, &mut |_| ControlFlow::Continue(())).is_err());
    }
}

#[test]
fn breaking_off_gives_nothing() {
    let points = clouds(&mut Noise::new(3), 100, 4);
    let view = Points::new(&points, 4, None).unwrap();
    let clusterer = CpuClusterer { kernels: available()[0] };
    let mut steps = 0;
    let mut count = |_| {
        steps += 1;
        ControlFlow::Continue(())
    };
    clusterer.cluster(&view, &settings(10, 0), &mut count).unwrap().expect("a clustering");
    for until in 1..=steps {
        let mut step = 0;
        let mut stop = |_| {
            step += 1;
            if step == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(clusterer.cluster(&view, &settings(10, 0), &mut stop).unwrap().is_none(), "step {until}");
    }
}
