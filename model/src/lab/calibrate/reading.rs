//! Text through the model, document by document; after each the sums are kept.

use super::{
    Progress, Settings,
    keys::Documents,
    recorder::{HeadSums, Recorder, lock},
    work::Work,
};
use crate::{
    batch::Workspace,
    codebooks::write::{Tensor, write},
    error::{Error, Result},
    model::Model,
    observer::Observer,
    sequence::{Attention, Sequence},
};
use a2ats_kernel::{Dtype, elementwise::Rotation};
use safetensors::SafeTensors;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    ops::ControlFlow,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// What was recorded of all documents.
pub(super) struct Recorded {
    pub(super) documents: Documents,
    /// `[layers, kv_heads]`
    pub(super) heads: Vec<HeadSums>,
}

/// Reads what has not been read yet. Nothing if `keep_on` breaks off.
pub(super) fn read(
    model: &Model,
    documents: &[Vec<u32>],
    settings: &Settings,
    work: &Work,
    keep_on: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Option<Recorded>> {
    let lengths = Documents::new(documents);
    let (done, heads) = resume(model, settings, &work.reading())?;
    let mut recorder = Recorder {
        model,
        settings,
        documents: &lengths,
        keys: &work.keys,
        relative: Rotation::new(settings.relative_position, &model.frequencies),
        heads: heads.into_iter().map(Mutex::new).collect(),
        document: 0,
    };
    let mut workspace = Workspace::default();
    for (number, document) in documents.iter().enumerate().skip(done) {
        recorder.begin(number);
        let before = lengths.start(number);
        let mut sequence = Sequence::new(&model.spec, None, Attention::Dense, Dtype::Bf16, document.len())?;
        let mut progress =
            |tokens| keep_on(Progress::Reading { tokens: before + tokens, of: lengths.tokens() });
        let observer: Option<&dyn Observer> = Some(&recorder);
        if model.prefill(&mut sequence, document, observer, &mut workspace, &mut progress)?.is_break() {
            return Ok(None);
        }
        // The keys first: what is said to be there must be there.
        work.keys.sync()?;
        keep(model, &recorder, number + 1, &work.reading())?;
    }
    let inner = |head: Mutex<HeadSums>| head.into_inner().unwrap_or_else(PoisonError::into_inner);
    let heads = recorder.heads.into_iter().map(inner).collect();
    Ok(Some(Recorded { documents: lengths, heads }))
}

/// Keeps the sums of the first documents.
fn keep(model: &Model, recorder: &Recorder<'_>, documents: usize, path: &Path) -> Result<()> {
    let (d, group) = (model.spec.head_dim, model.spec.group());
    let heads: Vec<HeadSums> = recorder.heads.iter().map(|head| lock(head).clone()).collect();
    let tensors: Vec<Tensor<'_>> = heads
        .iter()
        .enumerate()
        .flat_map(|(number, head)| {
            let probes = vec![head.probes.len() / (group * d), group, d];
            [
                Tensor::f64(format!("{number}.moment"), vec![d, d], vec![&head.moment]),
                Tensor::f32(format!("{number}.probes"), probes, vec![&head.probes]),
            ]
        })
        .collect();
    let metadata = BTreeMap::from([("documents".to_owned(), documents.to_string())]);
    write(path, &metadata, &tensors)
}

/// How many documents were read, and their sums.
fn resume(model: &Model, settings: &Settings, path: &Path) -> Result<(usize, Vec<HeadSums>)> {
    let d = model.spec.head_dim;
    let count = settings.layers.len() * model.spec.num_key_value_heads;
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok((0, vec![HeadSums::new(vec![0.0; d * d], Vec::new()); count]));
        }
        Err(error) => return Err(Error::io(path)(error)),
    };
    let damaged = |problem: String| Error::file(path, problem, "remove the file: the text is read again");
    let whole = SafeTensors::deserialize(&bytes).map_err(|error| damaged(format!("is damaged ({error})")))?;
    let (_, header) =
        SafeTensors::read_metadata(&bytes).map_err(|error| damaged(format!("is damaged ({error})")))?;
    let documents = header.metadata().as_ref().and_then(|all| all.get("documents")?.parse().ok());
    let documents = documents.ok_or_else(|| damaged("does not say how much was read".to_owned()))?;
    let bytes_of = |name: String| {
        let tensor = whole.tensor(&name).map_err(|error| damaged(format!("{name}: {error}")))?;
        Ok::<_, Error>(tensor.data().to_vec())
    };
    let head = |number: usize| {
        let moment: Vec<f64> = numbers(&bytes_of(format!("{number}.moment"))?, f64::from_le_bytes);
        let probes: Vec<f32> = numbers(&bytes_of(format!("{number}.probes"))?, f32::from_le_bytes);
        let fits = moment.len() == d * d && probes.len().is_multiple_of(model.spec.group() * d);
        if fits {
            Ok(HeadSums::new(moment, probes))
        } else {
            Err(damaged(format!("head {number} has another shape")))
        }
    };
    Ok((documents, (0..count).map(head).collect::<Result<_>>()?))
}

/// Bytes as numbers.
fn numbers<T, const N: usize>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().copied().map(number).collect()
}
