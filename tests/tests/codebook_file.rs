//! The native codebook format: read as documented, refused when it belongs to something else.

use a2ats_kernel::{Dtype, Kernels, decode::Sparsity};
use a2ats_model::{Attention, Codebooks, Model, codebooks::rope_scaling_name};
use a2ats_tests::{
    golden::{Golden, case},
    reader::Reader,
};
use safetensors::{Dtype as TensorType, SafeTensors, tensor::TensorView};
use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

const CASE: &str = "mha-d32-tied";

fn best() -> &'static dyn Kernels {
    a2ats_kernel::available()[0]
}

/// The metadata that a native file for this model must have.
fn metadata(model: &Model) -> HashMap<String, String> {
    let config = model.spec();
    [
        ("format", "a2ats-codebooks".to_owned()),
        ("format_version", "2".to_owned()),
        ("layers", config.num_hidden_layers.to_string()),
        ("kv_heads", config.num_key_value_heads.to_string()),
        ("head_dim", config.head_dim.to_string()),
        ("rope_theta", format!("{:?}", config.rope_theta)),
        ("rope_scaling", rope_scaling_name(config)),
        ("model_identity", model.identity().as_str().to_owned()),
        ("relative_position", "2048".to_owned()),
        ("calibration", "{}".to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// Rewrites the case's reference codebooks in the native format, codewords multiplied out in f64.
fn native_file(folder: &tempfile::TempDir, metadata: HashMap<String, String>) -> PathBuf {
    let bytes = fs::read(case(CASE).join("codebooks_reference.safetensors")).unwrap();
    let reference = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| -> (Vec<usize>, Vec<f32>) {
        let tensor = reference.tensor(name).unwrap();
        let values = tensor.data().as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect();
        (tensor.shape().to_vec(), values)
    };
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut keep = |name: String, shape: Vec<usize>, values: Vec<f32>| {
        tensors.push((name, shape, values.into_iter().flat_map(f32::to_le_bytes).collect()));
    };
    for layer in (0..).take_while(|layer| reference.tensor(&format!("layers.{layer}.codebook")).is_ok()) {
        let (shape, centroids) = numbers(&format!("layers.{layer}.codebook"));
        let (_, inverses) = numbers(&format!("layers.{layer}.inv_cholesky"));
        let (factor_shape, factors) = numbers(&format!("layers.{layer}.cholesky"));
        let (codes, d) = (shape[1], shape[2]);
        let codeword = |head: usize, c: usize, j: usize| -> f32 {
            let centroid = &centroids[(head * codes + c) * d..][..d];
            let column = inverses[head * d * d + j..(head + 1) * d * d].iter().step_by(d);
            centroid.iter().zip(column).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() as f32
        };
        let all = (0..shape[0]).flat_map(|head| (0..codes).map(move |c| (head, c)));
        let codewords = all.flat_map(|(head, c)| (0..d).map(move |j| codeword(head, c, j))).collect();
        keep(format!("layers.{layer}.codewords"), shape, codewords);
        keep(format!("layers.{layer}.cholesky"), factor_shape, factors);
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(TensorType::F32, shape.clone(), bytes).unwrap())
    });
    let file = folder.path().join("codebooks.safetensors");
    safetensors::serialize_to_file(views, Some(metadata), &file).unwrap();
    file
}

fn logits(model: &Model, books: Codebooks) -> Vec<f32> {
    let golden = Golden::load(&case(CASE)).unwrap();
    let attention = Attention::A2ats(Sparsity { retrieve: golden.parameters.top_k, ..Sparsity::default() });
    let mut reader = Reader::new(model, Some(&Arc::new(books)), attention, Dtype::F32, 500).unwrap();
    reader.read(&golden.prompt).unwrap();
    reader.step(golden.generated[0]).unwrap()
}

#[test]
fn the_native_and_the_reference_form_of_a_codebook_decode_alike() {
    let model = Model::open(&case(CASE), best()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let native = Codebooks::open(&native_file(&folder, metadata(&model)), model.owner(), Dtype::F32).unwrap();
    let file = case(CASE).join("codebooks_reference.safetensors");
    let reference = Codebooks::open(&file, model.owner(), Dtype::F32).unwrap();
    assert_eq!(native.codes(), reference.codes());
    assert_eq!(logits(&model, native), logits(&model, reference));
}

#[test]
fn a_native_file_of_something_else_is_refused_with_what_differs() {
    let model = Model::open(&case(CASE), best()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (key, value) in [
        ("format_version", "1"),
        ("layers", "3"),
        ("kv_heads", "1"),
        ("head_dim", "64"),
        ("rope_theta", "1"),
        ("rope_theta", "500k"),
        ("rope_scaling", "linear 2"),
        ("model_identity", "0000000000000000"),
        ("relative_position", "soon"),
    ] {
        let mut metadata = metadata(&model);
        metadata.insert(key.to_owned(), value.to_owned());
        let error = Codebooks::open(&native_file(&folder, metadata), model.owner(), Dtype::F32)
            .unwrap_err()
            .to_string();
        assert!(error.contains("codebooks.safetensors") && error.contains(value), "{key}: {error}");
    }
}
