//! Text from Parquet files, where the program has it.

use a2ats_kernel::available;
use a2ats_model::{demo, lab::calibrate::text::Collector};
use std::path::{Path, PathBuf};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Documents of up to `tokens` tokens of what `add` adds.
fn collect(tokens: usize, add: impl FnOnce(&mut Collector<'_>)) -> Vec<Vec<u32>> {
    let (model, tokenizer) = (demo::model(available()[0]).unwrap(), demo::tokenizer().unwrap());
    let mut collector = Collector::new(&model, &tokenizer, tokens);
    add(&mut collector);
    collector.finish()
}

#[cfg(feature = "parquet")]
#[test]
fn rows_of_parquet_are_documents() {
    for name in ["lines.parquet", "lines-zstd.parquet"] {
        let documents = collect(1000, |collector| collector.add_file(&data(name)).unwrap());
        let want = collect(1000, |collector| {
            let falcon = "The falcon keeps marble. ".repeat(3);
            for text in [&falcon, "The otter owns tea.", "Über den Wolken."] {
                collector.add(text).unwrap();
            }
        });
        assert_eq!(documents, want, "{name}");
        assert_eq!(collect(5, |collector| collector.add_file(&data(name)).unwrap()).len(), 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.parquet");
    let whole = std::fs::read(data("lines.parquet")).unwrap();
    std::fs::write(&broken, &whole[..whole.len() / 2]).unwrap();
    collect(100, |collector| {
        let mut refused = |path: &Path| collector.add_file(path).unwrap_err().to_string();
        assert!(refused(&data("other.parquet")).contains("no column \"text\""));
        assert!(refused(&broken).contains("broken.parquet"));
    });
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_is_refused_with_what_to_do() {
    collect(100, |collector| {
        let error = collector.add_file(&data("lines.parquet")).unwrap_err().to_string();
        assert!(error.contains("--features parquet"), "{error}");
    });
}
