//! Calibration against the figures of the published method, and what interrupted runs leave.

use a2ats_kernel::{
    Dtype, Kernels, available,
    clustering::{self, Clusterer, Clustering, CpuClusterer, Points},
};
use a2ats_model::{
    Codebooks, Error, Model,
    lab::calibrate::{Progress, Report, Settings, calibrate},
};
use a2ats_tests::{
    backends::on_backends_to_replay,
    golden::{Parameters, case},
    inputs::Noise,
};
use std::{
    fs,
    ops::{ControlFlow, Range},
    path::Path,
};

/// Documents of uniformly random ids, as the recorded cases were calibrated with.
fn documents(seed: u64, count: usize, tokens: usize, vocabulary: usize) -> Vec<Vec<u32>> {
    let mut noise = Noise::new(seed);
    (0..count).map(|_| (0..tokens).map(|_| (3 + noise.below(vocabulary - 3)) as u32).collect()).collect()
}

fn settings(codewords: usize, layers: Range<usize>) -> Settings {
    Settings { codewords, relative_position: 2048, iterations: 300, seed: 1, layers }
}

/// Runs to the end.
fn whole(model: &Model, documents: &[Vec<u32>], settings: &Settings, out: &Path) -> Report {
    let clusterer = CpuClusterer { kernels: model.kernels() };
    let report = calibrate(model, documents, settings, &clusterer, out, &mut |_| ControlFlow::Continue(()));
    report.unwrap().expect("nothing broke it off")
}

fn open(name: &str, kernels: &'static dyn Kernels) -> Model {
    Model::open(&case(name), kernels).unwrap()
}

/// Keys are as near to their codewords as in the published code's codebooks; other random ids, so not equally near.
fn check_errors(name: &str, codewords: usize) {
    let parameters = Parameters::load(&case(name)).unwrap();
    on_backends_to_replay(|kernels| {
        let model = open(name, kernels);
        let documents = documents(5, 4, 1024, model.spec().vocab_size);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("codebooks.safetensors");
        let report = whole(&model, &documents, &settings(codewords, 0..model.spec().num_hidden_layers), &out);
        assert_eq!(report.heads.len(), parameters.kmeans_mean_sq_error_per_head.len());
        for (head, want) in report.heads.iter().zip(&parameters.kmeans_mean_sq_error_per_head) {
            let got = head.mean_squared_error;
            println!(
                "{name}, {}: layer {} kv head {}: {got:.2} for {want:.2}, {:?}",
                kernels.name(),
                head.layer,
                head.kv_head,
                head.quality
            );
            assert!(got <= want * 1.03, "{name}, {}: {got} for {want}", kernels.name());
            // And not for a metric that is another by a factor.
            assert!(got >= want * 0.7, "{name}, {}: {got} for {want}", kernels.name());
        }
        let books = Codebooks::open(&out, model.owner(), Dtype::F16).unwrap();
        assert_eq!((books.relative_position(), books.most_codes()), (2048, codewords));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the codebooks are left");
    });
}

#[test]
fn gqa4_d128_f16_is_as_well_clustered() {
    check_errors("gqa4-d128-f16", 256);
}

#[test]
fn gqa4_d64_is_as_well_clustered() {
    check_errors("gqa4-d64", 128);
}

#[test]
fn mha_d32_tied_is_as_well_clustered() {
    check_errors("mha-d32-tied", 96);
}

/// What does not depend on the instruction set.
mod runs {
    use super::*;

    #[test]
    fn runs_that_were_broken_off_anywhere_end_with_the_same_bytes() {
        let model = open("mha-d32-tied", available()[0]);
        let documents = documents(9, 3, 300, model.spec().vocab_size);
        let settings = settings(32, 0..2);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.safetensors");
        whole(&model, &documents, &settings, &path);
        let want = fs::read(&path).unwrap();
        let clusterer = CpuClusterer { kernels: model.kernels() };
        for every in [2, 3, 5, 17] {
            let out = folder.path().join(format!("every-{every}.safetensors"));
            let mut runs = 0;
            loop {
                // Each run gets a little further than what the one before it kept.
                let (mut steps, mut kept) = (0, None);
                let mut keep_on = |progress| {
                    let unit = match progress {
                        Progress::Reading { tokens, .. } => tokens / 300,
                        Progress::Clustering { heads, .. } => 1000 + heads,
                    };
                    if kept.replace(unit) != Some(unit) {
                        steps += 1;
                    }
                    if steps > every { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                };
                runs += 1;
                if calibrate(&model, &documents, &settings, &clusterer, &out, &mut keep_on).unwrap().is_some()
                {
                    break;
                }
                assert!(!out.exists(), "nothing appears before it is whole");
                assert!(runs < 100, "it gets further each time");
            }
            println!("every {every}: {runs} runs");
            assert_eq!(fs::read(&out).unwrap(), want, "every {every}");
        }
    }

    /// A clusterer that wants several heads at a time.
    struct Several(CpuClusterer);

    impl Clusterer for Several {
        fn cluster(
            &self,
            points: &Points<'_>,
            settings: &clustering::Settings,
            keep_on: &mut dyn FnMut(clustering::Progress) -> ControlFlow<()>,
        ) -> a2ats_kernel::Result<Option<Clustering>> {
            self.0.cluster(points, settings, keep_on)
        }

        fn at_a_time(&self) -> usize {
            3
        }

        fn seconds_per_pair(&self, dim: usize) -> a2ats_kernel::Result<f64> {
            self.0.seconds_per_pair(dim)
        }
    }

    #[test]
    fn several_heads_at_a_time_make_the_same_bytes() {
        let model = open("mha-d32-tied", available()[0]);
        let documents = documents(9, 3, 300, model.spec().vocab_size);
        let settings = settings(32, 0..2);
        let folder = tempfile::tempdir().unwrap();
        let [one, several] = ["one", "several"].map(|name| folder.path().join(name));
        whole(&model, &documents, &settings, &one);
        let clusterer = Several(CpuClusterer { kernels: model.kernels() });
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let mut most = 0;
        let mut runs = 0;
        loop {
            // Broken off in the middle at first: at the first step after two heads or more are done.
            let mut keep_on = |progress| {
                if let Progress::Clustering { heads, of, .. } = progress {
                    assert!(heads < of && heads >= most, "{heads} of {of}, after {most}");
                    most = heads;
                }
                if runs == 0 && most >= 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let run = || calibrate(&model, &documents, &settings, &clusterer, &several, &mut keep_on);
            let done = pool.install(run).unwrap().is_some();
            runs += 1;
            most = 0;
            if done {
                break;
            }
        }
        assert_eq!(runs, 2);
        assert_eq!(fs::read(one).unwrap(), fs::read(several).unwrap());
    }

    #[test]
    fn the_same_bytes_on_any_number_of_threads() {
        let model = open("gqa4-d64", available()[0]);
        let documents = documents(2, 2, 700, model.spec().vocab_size);
        let folder = tempfile::tempdir().unwrap();
        let made = [1, 3].map(|threads| {
            let out = folder.path().join(format!("{threads}.safetensors"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| whole(&model, &documents, &settings(64, 0..2), &out));
            fs::read(out).unwrap()
        });
        assert!(made[0] == made[1]);
    }

    #[test]
    fn a_share_of_the_layers_is_the_same_as_in_the_whole() {
        let model = open("mha-d32-tied", available()[0]);
        let documents = documents(3, 2, 400, model.spec().vocab_size);
        let folder = tempfile::tempdir().unwrap();
        let all = whole(&model, &documents, &settings(48, 0..2), &folder.path().join("all"));
        let second = whole(&model, &documents, &settings(48, 1..2), &folder.path().join("second"));
        assert_eq!(all.heads[4..], second.heads);
        let error = Codebooks::open(&folder.path().join("second"), model.owner(), Dtype::F32)
            .unwrap_err()
            .to_string();
        assert!(error.contains("layers.0"), "{error}");
    }

    #[test]
    fn what_was_begun_otherwise_is_not_gone_on_with() {
        let model = open("mha-d32-tied", available()[0]);
        let text = documents(3, 2, 400, model.spec().vocab_size);
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("books");
        let clusterer = CpuClusterer { kernels: model.kernels() };
        let run = |text: &[Vec<u32>], settings: &Settings, flow| {
            calibrate(&model, text, settings, &clusterer, &out, &mut |_| flow)
        };
        assert!(run(&text, &settings(48, 0..2), ControlFlow::Break(())).unwrap().is_none());
        let refused = |outcome: Result<Option<Report>, Error>, what: &str| {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains("plan.json") && error.contains(what), "{error}");
        };
        refused(run(&text, &settings(49, 0..2), ControlFlow::Continue(())), "other settings");
        refused(run(&text[..1], &settings(48, 0..2), ControlFlow::Continue(())), "another text");
        assert!(run(&text, &settings(48, 0..2), ControlFlow::Continue(())).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_calibrated_is_refused() {
        let model = open("mha-d32-tied", available()[0]);
        let text = documents(3, 1, 100, model.spec().vocab_size);
        let folder = tempfile::tempdir().unwrap();
        let clusterer = CpuClusterer { kernels: model.kernels() };
        let refused = |text: &[Vec<u32>], settings: &Settings, what: &str| {
            let out = folder.path().join("books");
            let outcome =
                calibrate(&model, text, settings, &clusterer, &out, &mut |_| ControlFlow::Continue(()));
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of it");
        };
        refused(&text, &settings(91, 0..2), "90 tokens");
        refused(&text, &settings(0, 0..2), "0 codewords");
        refused(&text, &settings(8, 0..3), "0..3");
        refused(&text, &settings(8, 1..1), "1..1");
        refused(&[vec![1 << 20; 100]], &settings(8, 0..2), "vocabulary");
    }
}
