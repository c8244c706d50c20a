//! `a2ats calibrate --device`, on a GPU that is emulated, missing, or unfit.

use super::common::{ModelFolder, Ran, command, ran};
use std::{
    path::Path,
    process::{Command, Stdio},
};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");

/// A run with little to do.
fn calibrate(model: &ModelFolder, out: &Path, device: &str) -> Command {
    let out = out.to_str().unwrap();
    let mut run =
        command(&["calibrate", "--model", model.path(), "--text", README, "--device", device, "--out", out]);
    run.args([
        "--tokens",
        "300",
        "--random-tokens",
        "60",
        "--codewords",
        "16",
        "--iterations",
        "4",
        "--threads",
        "2",
    ]);
    run
}

fn finished(mut run: Command) -> Ran {
    ran(run.stdin(Stdio::null()).output().unwrap())
}

#[cfg(feature = "cuda")]
mod with_cuda {
    use super::*;
    use std::{fs, time::Duration};

    /// A folder where the system's loader finds a driver of the emulator's, or one that is no library.
    fn driver(is_good: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libcuda.so.1");
        let name = format!("{}emulated_cuda{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        if is_good {
            fs::copy(std::env::current_exe().unwrap().with_file_name(name), library).unwrap();
        } else {
            fs::write(library, "not a library").unwrap();
        }
        folder
    }

    /// A run with that driver, and settings of the emulator.
    fn on(driver: &tempfile::TempDir, mut run: Command, settings: &[(&str, &str)]) -> Ran {
        run.env("LD_LIBRARY_PATH", driver.path()).envs(settings.iter().copied());
        finished(run)
    }

    #[test]
    fn a_gpu_makes_codebooks_as_good_as_the_cpus() {
        let model = ModelFolder::new("mha-d32-tied");
        let [on_cpu, on_gpu, again] = ["cpu", "gpu", "again"].map(|name| model.file(name));
        let driver = driver(true);
        let error = |ran: &Ran| -> f64 {
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
            let heads = report["heads"].as_array().unwrap();
            heads.iter().map(|head| head["mean_squared_error"].as_f64().unwrap()).sum()
        };
        let run = |out: &Path, device: &str| {
            let mut run = calibrate(&model, out, device);
            run.arg("--json");
            on(&driver, run, &[])
        };
        let (cpu, gpu) = (run(&on_cpu, "cpu"), run(&on_gpu, "auto"));
        assert!(gpu.stderr.contains("clustering on "), "{}", gpu.stderr);
        let (cpu, gpu) = (error(&cpu), error(&gpu));
        // Of few points, in few iterations from other first centroids.
        assert!((gpu / cpu - 1.0).abs() < 0.15, "{gpu} on the GPU, {cpu} on the CPU");
        error(&run(&again, "cuda"));
        assert!(fs::read(on_gpu).unwrap() == fs::read(again).unwrap());
    }

    #[test]
    fn what_keeps_a_gpu_from_being_used_is_said_and_the_cpu_takes_its_place() {
        let model = ModelFolder::new("mha-d32-tied");
        let out = model.file("out");
        let (good, bad) = (driver(true), driver(false));
        let cases: [(_, &[(&str, &str)], &str); 4] = [
            (&bad, &[], "no CUDA driver"),
            (&good, &[("A2ATS_EMULATED_DEVICES", "0")], "no CUDA device"),
            (&good, &[("A2ATS_EMULATED_CAPABILITY", "7.5")], "compute capability 7.5"),
            (&good, &[("A2ATS_EMULATED_MEMORY", "200000")], "bytes of the card's memory"),
        ];
        for (driver, settings, reason) in cases {
            let refused = on(driver, calibrate(&model, &out, "cuda"), settings);
            refused.refused(1, &["--device cuda", reason, "CPU"]);
            assert!(!out.exists());
            let ran = on(driver, calibrate(&model, &out, "auto"), settings);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            assert!(
                ran.stderr.contains("clustering on the CPU") && ran.stderr.contains(reason),
                "{}",
                ran.stderr
            );
            fs::remove_file(&out).unwrap();
        }
    }

    #[test]
    fn what_was_begun_on_a_gpu_is_finished_on_the_cpu() {
        let model = ModelFolder::new("mha-d32-tied");
        let out = model.file("out");
        let driver = driver(true);
        for kill_after in [300, 1000] {
            let mut run = calibrate(&model, &out, "cuda");
            run.env("LD_LIBRARY_PATH", driver.path()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = run.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(kill_after));
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let mut run = calibrate(&model, &out, "cpu");
        run.arg("--json");
        let finished = finished(run);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
        let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        assert_eq!(report["heads"].as_array().unwrap().len(), 8);
    }
}

#[cfg(not(feature = "cuda"))]
#[test]
fn without_cuda_a_gpu_is_refused_and_not_missed() {
    let model = ModelFolder::new("mha-d32-tied");
    let out = model.file("out");
    finished(calibrate(&model, &out, "cuda")).refused(1, &["--device cuda", "--features cuda"]);
    let auto = finished(calibrate(&model, &out, "auto"));
    assert_eq!(auto.code, Some(0), "{}", auto.stderr);
    assert!(!auto.stderr.contains("CPU"), "{}", auto.stderr);
}
