//! `a2ats calibrate` and `a2ats codebooks`.

use super::common::{ModelFolder, Ran, a2ats, command, ran};
use std::{fs, path::Path, process::Stdio, time::Duration};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");

/// Calibrates a golden model with the project's README.
fn calibrate(model: &ModelFolder, out: &Path, more: &[&str]) -> Ran {
    let fixed = ["calibrate", "--model", model.path(), "--text", README, "--codewords", "128"];
    let few = ["--random-tokens", "3000", "--out", out.to_str().unwrap()];
    a2ats(&[&fixed[..], &few, more].concat())
}

#[track_caller]
fn done(ran: &Ran) {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[test]
fn codebooks_made_from_text_are_generated_with() {
    let model = ModelFolder::new("gqa4-d64");
    fs::remove_file(model.file("codebooks_reference.safetensors")).unwrap();
    let (out, picture) = (model.file("codebooks.safetensors"), model.file("quality.svg"));
    let made = calibrate(&model, &out, &["--json", "--heat-map", picture.to_str().unwrap()]);
    done(&made);
    let report: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(report["heads"].as_array().unwrap().len(), 4);
    for head in report["heads"].as_array().unwrap() {
        for figure in ["score_error", "recall_1", "recall_3"] {
            assert!((0.0..1.0).contains(&head["quality"][figure].as_f64().unwrap()), "{head}");
        }
    }
    // A title and a cell for each head and figure.
    assert_eq!(fs::read_to_string(picture).unwrap().matches("<title>").count(), 8);
    let answer = model.generate(&["--json"]);
    done(&answer);
    let answer: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(answer["attention"], "auto", "without codebooks it would be dense");
    let inspected = a2ats(&["codebooks", "inspect", out.to_str().unwrap(), "--json"]);
    done(&inspected);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&inspected.stdout).unwrap(), report);
    let table = a2ats(&["codebooks", "inspect", out.to_str().unwrap()]);
    done(&table);
    assert!(table.stdout.contains("128 codewords") && table.stdout.contains("recall"), "{}", table.stdout);
}

#[test]
fn shares_of_the_layers_make_the_whole() {
    let model = ModelFolder::new("mha-d32-tied");
    let [whole, first, second, merged] = ["whole", "first", "second", "merged"].map(|name| model.file(name));
    done(&calibrate(&model, &whole, &[]));
    done(&calibrate(&model, &first, &["--layers", "0..1"]));
    done(&calibrate(&model, &second, &["--layers", "1..2"]));
    let [whole, first, second, merged] =
        [&whole, &first, &second, &merged].map(|path| path.to_str().unwrap());
    done(&a2ats(&["codebooks", "merge", second, first, "--out", merged]));
    assert!(fs::read(whole).unwrap() == fs::read(merged).unwrap());
    let merge = |files: &[&str]| a2ats(&[&["codebooks", "merge"], files, &["--out", merged]].concat());
    merge(&[first, first]).refused(1, &["first", "layer 0 once more"]);
    merge(&[whole, second]).refused(1, &["second", "layer 1 once more"]);
    let other = model.file("other");
    done(&calibrate(&model, &other, &["--layers", "1..2", "--seed", "9"]));
    merge(&[first, other.to_str().unwrap()]).refused(1, &["another way"]);
    let reference = model.file("codebooks_reference.safetensors");
    merge(&[reference.to_str().unwrap()]).refused(1, &["codebooks_reference.safetensors", "native format"]);
}

/// Killed without warning, at a different moment each time.
#[test]
fn killed_runs_go_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let arguments = |out: &Path| {
        let fixed =
            ["calibrate", "--tokens", "9000", "--random-tokens", "2000", "--codewords", "256", "--out"];
        [&fixed[..], &[out.to_str().unwrap()]]
            .concat()
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let run = |out: &Path| {
        let arguments = arguments(out);
        command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    done(&ran(run(&whole).stdin(Stdio::null()).output().unwrap()));
    let out = folder.path().join("killed");
    for kill_after in [100, 300, 600, 1000] {
        let mut child = run(&out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(kill_after));
        child.kill().unwrap();
        child.wait().unwrap();
        if out.exists() {
            break;
        }
    }
    done(&ran(run(&out).stdin(Stdio::null()).output().unwrap()));
    assert!(fs::read(whole).unwrap() == fs::read(out).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing but the codebooks is left");
}

#[test]
fn a_dry_run_says_what_it_takes_and_does_nothing() {
    let model = ModelFolder::new("gqa4-d64");
    let out = model.file("out");
    let said = calibrate(&model, &out, &["--dry-run"]);
    done(&said);
    for word in ["tokens to read", "clustering", "disk", "memory"] {
        assert!(said.stdout.contains(word), "{}", said.stdout);
    }
    assert!(!out.exists() && !model.file("out.calibration").exists());
    let json = calibrate(&model, &out, &["--dry-run", "--json"]);
    let estimate: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(
        estimate["disk_bytes"].as_u64().unwrap() > 0
            && estimate["clustering_seconds"].as_f64().unwrap() > 0.0
    );
}

#[test]
fn what_cannot_be_calibrated_is_refused_in_one_line() {
    let model = ModelFolder::new("gqa4-d64");
    let out = model.file("out");
    let out = out.to_str().unwrap();
    // What keeps a GPU from being used is told before, where a program looks for one.
    let on_cpu = ["calibrate", "--device", "cpu", "--model", model.path(), "--out"];
    let with = |more: &[&str]| a2ats(&[&on_cpu[..], &[out], more].concat());
    with(&[]).refused(2, &["--text", "fineweb-edu"]);
    with(&["--text", "no-such-file.txt"]).refused(1, &["no-such-file.txt"]);
    with(&["--text", README, "--random-tokens", "0", "--tokens", "2000", "--codewords", "4096"])
        .refused(2, &["1800 tokens", "4096 codewords"]);
    with(&["--text", README, "--tokens", "900", "--layers", "1..9", "--codewords", "64"])
        .refused(2, &["1..9", "0..2"]);
    let layers = with(&["--text", README, "--layers", "3"]);
    assert_eq!(layers.code, Some(2));
    assert!(layers.stderr.contains("0..8"), "{}", layers.stderr);
    let nowhere = model.file("missing/folder/out");
    let few = ["--text", README, "--tokens", "900", "--codewords", "64", "--random-tokens", "0"];
    let unwritable = a2ats(&[&on_cpu[..], &[nowhere.to_str().unwrap()], &few[..]].concat());
    unwritable.refused(1, &["missing/folder"]);
    assert!(!model.file("missing").exists());
}

/// The published code's pair of files: eight codewords of each head of a golden case's, as `torch.save` wrote them.
fn pair() -> [String; 2] {
    ["codebooks", "cholesky_factors"]
        .map(|name| format!("{}/tests/data/mha-{name}.pt", env!("CARGO_MANIFEST_DIR")))
}

/// The numbers of a tensor of a file.
fn numbers(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.tensor(name).unwrap().data().as_chunks().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}

#[test]
fn codebooks_of_the_published_code_are_brought_in() {
    let model = ModelFolder::new("mha-d32-tied");
    let (of_pair, of_reference) = (model.file("of-pair"), model.file("of-reference"));
    let [codebooks, factors] = pair();
    let import = |files: &[&str], out: &Path| {
        a2ats(
            &[&["codebooks", "import"], files, &["--model", model.path(), "--out", out.to_str().unwrap()]]
                .concat(),
        )
    };
    done(&import(&[&factors, &codebooks], &of_pair));
    let reference = model.file("codebooks_reference.safetensors");
    done(&import(&[reference.to_str().unwrap()], &of_reference));
    for layer in ["layers.0", "layers.1"] {
        let (some, all) = (
            numbers(&of_pair, &format!("{layer}.codewords")),
            numbers(&of_reference, &format!("{layer}.codewords")),
        );
        let largest = all.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
        for (some, all) in some.chunks_exact(8 * 32).zip(all.chunks_exact(96 * 32)) {
            assert!(some.iter().zip(all).all(|(a, b)| (a - b).abs() <= 1e-4 * largest));
        }
        let name = format!("{layer}.cholesky");
        assert_eq!(numbers(&of_pair, &name), numbers(&of_reference, &name));
    }
    let before = model.generate(&["--json"]);
    let after = model.generate(&["--json", "--codebooks", of_reference.to_str().unwrap()]);
    let text = |ran: &Ran| serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["text"].clone();
    assert_eq!(text(&before), text(&after));
    done(&model.generate(&["--codebooks", of_pair.to_str().unwrap()]));
}

#[test]
fn what_cannot_be_brought_in_is_refused_in_one_line() {
    let model = ModelFolder::new("mha-d32-tied");
    let [codebooks, factors] = pair();
    let out = model.file("out");
    let import = |folder: &str, files: &[&str]| {
        a2ats(
            &[&["codebooks", "import"], files, &["--model", folder, "--out", out.to_str().unwrap()]].concat(),
        )
    };
    import(model.path(), &[&codebooks]).refused(2, &["cholesky_factors.pt"]);
    import(model.path(), &[&codebooks, &codebooks]).refused(2, &["cholesky_factors.pt"]);
    let other = ModelFolder::new("gqa4-d64");
    import(other.path(), &[&codebooks, &factors])
        .refused(1, &["mha-codebooks.pt", "[4, 8, 32]", "[2, codewords, 64]"]);
    let whole = fs::read(&codebooks).unwrap();
    let damaged = model.file("damaged-codebooks.pt");
    for (bytes, word) in [
        (&whole[..whole.len() / 2], "archive"),
        (&b"PK no archive at all"[..], "archive"),
        (&b""[..], "archive"),
        (&[&whole[..200], &[b'!'; 40][..], &whole[240..]].concat(), "damaged-codebooks.pt"),
    ] {
        fs::write(&damaged, bytes).unwrap();
        import(model.path(), &[damaged.to_str().unwrap(), &factors])
            .refused(1, &["damaged-codebooks.pt", word]);
    }
    assert!(!out.exists());
}
