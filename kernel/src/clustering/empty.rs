//! Clusters without points.

use crate::error::{Error, Result, expect_len};

/// Gives each cluster without points the one that is farthest from its centroid, if that is any distance and its cluster
/// has others. `labels` and `distances` are `[n]`, distances squared.
///
/// Gives the numbers of the clusters whose members are others now.
///
/// # Errors
/// If there are not as many labels as distances, a label is not below `clusters`, those cannot be numbered, or memory runs out.
pub fn fill_empty(labels: &mut [u32], distances: &[f32], clusters: usize) -> Result<Vec<u32>> {
    expect_len("distances", distances.len(), labels.len())?;
    let refuse = |what, got: String, supported| Err(Error::Unsupported { what, got, supported });
    if u32::try_from(clusters).is_err() {
        return refuse("the number of clusters", clusters.to_string(), "up to 2^32 − 1");
    }
    if let Some(bad) = labels.iter().find(|&&label| label as usize >= clusters) {
        return refuse("a label", bad.to_string(), "numbers below that of the clusters");
    }
    let mut sizes: Vec<u32> = Vec::new();
    let bytes = clusters.saturating_mul(size_of::<u32>());
    sizes.try_reserve_exact(clusters).map_err(|error| Error::Memory { bytes, reason: error.to_string() })?;
    sizes.resize(clusters, 0);
    for &label in &*labels {
        sizes[label as usize] += 1;
    }
    let mut changed = Vec::new();
    if sizes.iter().all(|&size| size > 0) {
        return Ok(changed);
    }
    let mut farthest: Vec<usize> = (0..labels.len()).filter(|&point| distances[point] > 0.0).collect();
    farthest.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
    let mut farthest = farthest.into_iter();
    for number in 0..clusters {
        if sizes[number] > 0 {
            continue;
        }
        let Some(point) = farthest.find(|&point| sizes[labels[point] as usize] > 1) else { break };
        let from = labels[point] as usize;
        sizes[from] -= 1;
        sizes[number] = 1;
        changed.extend([from as u32, number as u32]);
        labels[point] = number as u32;
    }
    Ok(changed)
}
