//! Clusterings against the f64 reference, and against each other.

use super::device::{gpu, gpu_with, sized};
use a2ats_cuda_kmeans::layout::{Layout, Shape};
use a2ats_kernel::clustering::{Clusterer, Points, Settings};
use a2ats_tests::{
    clustering::{check_at_rest, check_clouds, check_distinct, check_magnitude, clouds, cluster, settings},
    inputs::{Noise, config},
};
use proptest::prelude::*;
use std::ops::ControlFlow;

/// As many cases as take seconds.
fn cases() -> ProptestConfig {
    ProptestConfig { cases: sized(10, 100), ..config() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn clusterings_are_at_rest(
        (count, dim, clusters) in (1..=sized(300_usize, 5000), 1..=sized(40_usize, 260), 1..=sized(150_usize, 1500)),
        (seed, weighted, far) in (any::<u64>(), any::<bool>(), any::<bool>()),
    ) {
        check_clouds(gpu(), gpu().name(), (count, dim, clusters), (seed, weighted, far));
    }

    #[test]
    fn with_fewer_distinct_points_than_clusters_each_has_its_own(
        (distinct, copies, dim, clusters) in (1_usize..=20, 1_usize..=9, 1_usize..=30, 20_usize..=60),
        seed in any::<u64>(),
    ) {
        check_distinct(gpu(), gpu().name(), (distinct, copies, dim, clusters), seed);
    }

    #[test]
    fn points_of_any_size_are_clustered(
        (count, dim, clusters) in (1_usize..=100, 1_usize..=40, 1_usize..=30),
        (seed, magnitude) in (any::<u64>(), proptest::sample::select(vec![1e15_f32, 1e8, 1e-20, 1e-38, 0.0])),
    ) {
        check_magnitude(gpu(), gpu().name(), (count, dim, clusters), (seed, magnitude));
    }

    #[test]
    fn batches_of_points_make_the_same_bits_as_all_at_once(
        (batches, dim, clusters) in (3_usize..=4, 1..=sized(20_usize, 130), 1..=sized(20_usize, 500)),
        (seed, weighted) in (any::<u64>(), any::<bool>()),
    ) {
        let mut noise = Noise::new(seed);
        let count = 1024 * batches - noise.below(1000);
        let points = clouds(&mut noise, count, dim);
        let weights: Vec<f32> = (0..count).map(|_| (1 + noise.below(9)) as f32).collect();
        let view = Points::new(&points, dim, weighted.then_some(&weights[..])).unwrap();
        let settings = Settings { iterations: sized(3, 300), ..settings(clusters, seed) };
        let shape = Shape { count, dim, clusters, weighted };
        let small = gpu_with(Layout::least(&shape));
        prop_assert_eq!(small.check(&shape).unwrap().batch, 1024);
        let (whole, _) = cluster(gpu(), &view, &settings);
        let (parts, _) = cluster(&small, &view, &settings);
        prop_assert_eq!(whole, parts);
    }
}

#[test]
fn the_same_seed_gives_the_same_bits_also_where_several_run_at_a_time() {
    let (count, dim, clusters) = sized((400, 24, 30), (20_000, 128, 1000));
    let points = clouds(&mut Noise::new(5), count, dim);
    let view = Points::new(&points, dim, None).unwrap();
    let few = |seed| Settings { iterations: sized(4, 300), ..settings(clusters, seed) };
    let alone: Vec<_> = (0..4).map(|seed| cluster(gpu(), &view, &few(seed)).0).collect();
    assert!(alone[0] != alone[1], "the seed makes no difference");
    let view = &view;
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|seed| scope.spawn(move || cluster(gpu(), view, &few(seed)).0)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(alone == together);
}

#[test]
fn breaking_off_gives_nothing() {
    let points = clouds(&mut Noise::new(3), 100, 4);
    let view = Points::new(&points, 4, None).unwrap();
    let mut steps = 0;
    let mut count = |_| {
        steps += 1;
        ControlFlow::Continue(())
    };
    gpu().cluster(&view, &settings(10, 0), &mut count).unwrap().expect("a clustering");
    for until in 1..=steps {
        let mut step = 0;
        let mut stop = |_| {
            step += 1;
            if step == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert!(gpu().cluster(&view, &settings(10, 0), &mut stop).unwrap().is_none(), "step {until}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_its_size() {
    let points = vec![1.0; 3000];
    let view = Points::new(&points, 3, None).unwrap();
    let small = gpu_with(100_000);
    let error = small.cluster(&view, &settings(5, 0), &mut |_| ControlFlow::Continue(())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(small.name()) && message.contains("100000 are free"), "{message}");
}

#[test]
fn one_cluster_of_many_points_is_their_mean() {
    let (count, dim) = sized((2100, 256), (100_000, 256));
    let points = clouds(&mut Noise::new(8), count, dim);
    let view = Points::new(&points, dim, None).unwrap();
    let (found, _) = cluster(gpu(), &view, &settings(1, 0));
    check_at_rest(gpu().name(), &points, &vec![1.0; count], &found, 1);
}

#[test]
#[ignore = "takes a GPU: with A2ATS_TEST_GPU=1, and --include-ignored"]
fn a_pair_takes_some_time() {
    let seconds = gpu().seconds_per_pair(128).unwrap();
    assert!((1e-14..1e-8).contains(&seconds), "{seconds}");
}
