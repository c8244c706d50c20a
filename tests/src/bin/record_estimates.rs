//! Records what the golden cases' models say with an estimate of what is not attended: the f64 reference computes it, after it has
//! reproduced what the published code printed without one.

use a2ats_tests::{
    golden::{CASES, Golden, case},
    reference::{
        codebook::Codebook,
        llama::{Estimate, Llama, Shape, Sparse},
        relative_error,
        rope::{Scaling, rope_frequencies},
        to_f64,
    },
};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;
use std::{collections::HashMap, error::Error, path::Path};

/// What this reads of a config.json.
#[derive(Deserialize)]
struct Config {
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    rope_scaling: Option<Llama3>,
}

/// The one kind of scaling that these cases have.
#[derive(Deserialize)]
struct Llama3 {
    factor: f64,
    low_freq_factor: f64,
    high_freq_factor: f64,
    original_max_position_embeddings: f64,
}

/// Tensors of a file, and their shapes.
type Tensors = (HashMap<String, Vec<f64>>, HashMap<String, Vec<usize>>);

fn main() -> Result<(), Box<dyn Error>> {
    for name in CASES {
        let golden = Golden::load(&case(name))?;
        let config: Config = serde_json::from_slice(&std::fs::read(golden.folder.join("config.json"))?)?;
        let plain = relative_error(&run(&golden, &config, Estimate::None)?, &to_f64(&golden.logits));
        // What was recorded is f32; in sharp attention, of which the random models have much, that shows.
        if plain > 1e-3 {
            return Err(format!("{name}: without an estimate the reference is off by {plain:.1e}").into());
        }
        let logits = run(&golden, &config, Estimate::Fixed)?;
        let changed = relative_error(&logits, &to_f64(&golden.estimate_logits));
        println!(
            "{name}: off by {plain:.1e} without an estimate; what was recorded with one changes by {changed:.1e}"
        );
        let bytes: Vec<u8> = logits.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect();
        let shape = vec![golden.generated.len(), logits.len() / golden.generated.len()];
        let view = TensorView::new(Dtype::F32, shape, &bytes)?;
        safetensors::serialize_to_file(
            [("logits", view)],
            None,
            &golden.folder.join("expected_tail.safetensors"),
        )?;
    }
    Ok(())
}

/// The logits after the prompt and after each sparse step.
fn run(golden: &Golden, config: &Config, estimate: Estimate) -> Result<Vec<f64>, Box<dyn Error>> {
    let mut model = llama(&golden.folder, config)?;
    let parameters = &golden.parameters;
    let sparse = Sparse {
        retrieve: parameters.top_k,
        window: parameters.window,
        sinks: parameters.sinks,
        relative_position: 2048,
        estimate,
    };
    let prompt: Vec<usize> = golden.prompt.iter().map(|&id| id as usize).collect();
    let mut logits = model.forward(&prompt, 0, None);
    let (_, steps) = golden.generated.split_last().ok_or("nothing was generated")?;
    for (number, &id) in steps.iter().enumerate() {
        logits.extend(model.forward(&[id as usize], prompt.len() + number, Some(sparse)));
    }
    Ok(logits)
}

fn llama(folder: &Path, config: &Config) -> Result<Llama, Box<dyn Error>> {
    let (weights, shapes) = tensors(&folder.join("model.safetensors"))?;
    let scaling = config.rope_scaling.as_ref().map_or(Scaling::None, |scaling| Scaling::Llama3 {
        factor: scaling.factor,
        low_freq_factor: scaling.low_freq_factor,
        high_freq_factor: scaling.high_freq_factor,
        original_max_position_embeddings: scaling.original_max_position_embeddings,
    });
    let shape = Shape {
        layers: config.num_hidden_layers,
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        rms_norm_eps: config.rms_norm_eps,
        frequencies: rope_frequencies(config.rope_theta, config.head_dim, &scaling),
    };
    let codebooks = codebooks(folder, config)?;
    Ok(Llama::new(shape, weights, &shapes, Some(codebooks)))
}

fn codebooks(folder: &Path, config: &Config) -> Result<Vec<Vec<Codebook>>, Box<dyn Error>> {
    let (tensors, shapes) = tensors(&folder.join("codebooks_reference.safetensors"))?;
    let (heads, d) = (config.num_key_value_heads, config.head_dim);
    let of_layer = |layer: usize| {
        let [centroids, cholesky, inverse] =
            ["codebook", "cholesky", "inv_cholesky"].map(|part| &tensors[&format!("layers.{layer}.{part}")]);
        let codes = shapes[&format!("layers.{layer}.codebook")][1];
        (0..heads)
            .map(|head| {
                let of_head =
                    |of: &'_ [f64]| of[head * of.len() / heads..(head + 1) * of.len() / heads].to_vec();
                let [centroids, cholesky, inverse] = [centroids, cholesky, inverse].map(|of| of_head(of));
                Codebook::from_cholesky_space(&centroids, &cholesky, &inverse, codes, d)
            })
            .collect()
    };
    Ok((0..config.num_hidden_layers).map(of_layer).collect())
}

/// All tensors of a file.
fn tensors(file: &Path) -> Result<Tensors, Box<dyn Error>> {
    let bytes = std::fs::read(file)?;
    let (mut values, mut shapes) = Tensors::default();
    for (name, tensor) in SafeTensors::deserialize(&bytes)?.tensors() {
        let data = tensor.data();
        let numbers: Vec<f64> = match tensor.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x).into()).collect(),
            Dtype::F16 => data.as_chunks().0.iter().map(|x| f16::from_le_bytes(*x).into()).collect(),
            Dtype::BF16 => data.as_chunks().0.iter().map(|x| bf16::from_le_bytes(*x).into()).collect(),
            other => return Err(format!("{}: {name} is {other:?}", file.display()).into()),
        };
        shapes.insert(name.clone(), tensor.shape().to_vec());
        values.insert(name, numbers);
    }
    Ok((values, shapes))
}
