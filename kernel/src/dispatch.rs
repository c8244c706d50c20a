//! Which backend runs: chosen once, when a model is loaded, and passed down as `&'static dyn Kernels`.

use crate::{
    arch,
    attention::{self, Causal, Partial},
    codebook::{self, BestCode, Codebook, Probes},
    elementwise::{self, Rotation},
    error::{Error, Result},
    estimate::{self, Part, Unattended},
    internals::Internals,
    linear::{self, Inputs, Layout, Matrix, Purpose, Vectors},
    precision::Precision,
    rows::Runs,
    simd::Simd,
};
use std::{fmt, ops::Range};

/// The kernel table of one instruction set. Implemented for every `Simd` there is, and for nothing else.
///
/// Each method checks its shapes, then runs one coarse kernel compiled for the instruction set: one indirect call
/// per kernel, none per dot product. Methods have no state and may run on any number of threads at once; working memory is the
/// caller's.
///
/// # Errors
/// All methods: [`Error::Length`], [`Error::Position`] or [`Error::Unsupported`] if the arguments do not fit together.
/// Nothing is written then.
pub trait Kernels: Send + Sync + Internals {
    /// The name that `A2ATS_ISA` knows.
    fn name(&self) -> &'static str;

    /// Packs for passes over any range of `book`'s codewords: `queries` (`[n, head_dim]`, rotated to the relative position)
    /// of one sequence or of all that share the codebook, and their newest `keys` (`[m, head_dim]`, not rotated).
    fn prepare_probes(
        &self,
        book: &Codebook,
        queries: &[f32],
        keys: &[f32],
        probes: &mut Probes,
    ) -> Result<()>;

    /// Scores of the queries with some codewords, `[n, codes.len()]`; raises the best code so far of each key, `[m]`, where one of
    /// these is better: ranges that raise the same ones come in ascending order. Probes with keys are for the codebook that they were prepared
    /// for. See [`crate::codebook`]: scores are relative to the codebook's center.
    fn codeword_scores(
        &self,
        book: &Codebook,
        probes: &Probes,
        codes: Range<usize>,
        scores: &mut [f32],
        best: &mut [BestCode],
    ) -> Result<()>;

    /// The codes of many keys, `[codes.len(), head_dim]`, not rotated.
    fn encode(&self, book: &Codebook, keys: &[f32], codes: &mut [u16]) -> Result<()>;

    /// Attention of a group's `queries` (`[group, head_dim]`, rotated to their true position) over rows `part` of some runs. Fills
    /// `out` anew. See [`crate::attention`].
    fn attend(
        &self,
        rows: &Runs<'_>,
        part: Range<usize>,
        queries: &[f32],
        scale: f32,
        scratch: &mut attention::Scratch,
        out: &mut Partial,
    ) -> Result<()>;

    /// The estimate of a part of what is not attended. Fills `out` anew. See [`crate::estimate`].
    fn estimate(
        &self,
        what: &Unattended<'_>,
        part: &Part,
        scratch: &mut estimate::Scratch,
        out: &mut Partial,
    ) -> Result<()>;

    /// Causal attention for prefill; `out` is `[positions, group, head_dim]`.
    fn attend_causal(
        &self,
        request: &Causal<'_>,
        scratch: &mut attention::Scratch,
        out: &mut [f32],
    ) -> Result<()>;

    /// Packs vectors as products with some weights want them. See [`crate::linear`].
    fn prepare(&self, vectors: Vectors<'_>, purpose: Purpose, inputs: &mut Inputs) -> Result<()>;

    /// The first half of [`prepare`](Self::prepare), for callers that pack on several threads: makes room for `count` vectors.
    fn lay_out(&self, count: usize, purpose: Purpose, inputs: &mut Inputs) -> Result<Layout>;

    /// The other half: packs the vectors of part `number` into that part of [`Inputs::values_mut`].
    fn pack(&self, layout: &Layout, number: usize, vectors: Vectors<'_>, part: &mut [f32]) -> Result<()>;

    /// `out[r][t] = weights[r] · inputs[t]`; `out` is `[rows, n]`.
    fn product(&self, weights: Matrix<'_>, inputs: &Inputs, out: &mut [f32]) -> Result<()>;

    /// RMSNorm of each vector of `x`, `[n, weight.len()]`, in place.
    fn rms_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> Result<()>;

    /// Rotary position embedding of each vector of `heads`, `[n, head_dim]`, in place, rotate-half layout.
    fn rotate(&self, heads: &mut [f32], rotation: &Rotation) -> Result<()>;

    /// gate ← SiLU(gate) · up
    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()>;

    /// Softmax in place.
    fn softmax(&self, x: &mut [f32]);
}

impl fmt::Debug for dyn Kernels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

// The closures, like everything generic that holds an intrinsic, must be inlined into the instruction set's entry: left
// to the compiler's judgement the large ones are not, and each intrinsic in them then becomes a function call.
impl<S: Simd> Kernels for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn prepare_probes(
        &self,
        book: &Codebook,
        queries: &[f32],
        keys: &[f32],
        probes: &mut Probes,
    ) -> Result<()> {
        book.check_prepare(queries, keys)?;
        self.vectorize(
            #[inline(always)]
            || codebook::prepare(*self, book, queries, keys, probes),
        );
        Ok(())
    }

    fn codeword_scores(
        &self,
        book: &Codebook,
        probes: &Probes,
        codes: Range<usize>,
        scores: &mut [f32],
        best: &mut [BestCode],
    ) -> Result<()> {
        book.check_scores(S::NAME, probes, &codes, scores, best)?;
        self.vectorize(
            #[inline(always)]
            || codebook::scores(*self, book, probes, codes, scores, best),
        );
        Ok(())
    }

    fn encode(&self, book: &Codebook, keys: &[f32], codes: &mut [u16]) -> Result<()> {
        book.check_encode(keys, codes)?;
        self.vectorize(
            #[inline(always)]
            || codebook::encode(*self, book, keys, codes),
        );
        Ok(())
    }

    fn attend(
        &self,
        rows: &Runs<'_>,
        part: Range<usize>,
        queries: &[f32],
        scale: f32,
        scratch: &mut attention::Scratch,
        out: &mut Partial,
    ) -> Result<()> {
        attention::check_attend(rows, &part, queries)?;
        let (visible, precision, segment) =
            (attention::Visible::All, Precision::Full, attention::segment_rows(rows.len()));
        let request =
            attention::Request { queries, head_dim: rows.head_dim(), scale, visible, precision, segment };
        self.vectorize(
            #[inline(always)]
            || attention::attend(*self, rows, part, &request, scratch, out),
        );
        Ok(())
    }

    fn estimate(
        &self,
        what: &Unattended<'_>,
        part: &Part,
        scratch: &mut estimate::Scratch,
        out: &mut Partial,
    ) -> Result<()> {
        what.check(part)?;
        estimate::estimate(self.plain(), what, part, scratch, out);
        Ok(())
    }

    fn attend_causal(
        &self,
        request: &Causal<'_>,
        scratch: &mut attention::Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        attention::check_causal(request, out)?;
        self.vectorize(
            #[inline(always)]
            || attention::attend_causal(*self, request, scratch, out),
        );
        Ok(())
    }

    fn prepare(&self, vectors: Vectors<'_>, purpose: Purpose, inputs: &mut Inputs) -> Result<()> {
        let count = vectors.check(purpose.cols)?;
        let layout = linear::lay_out::<S>(count, purpose, inputs)?;
        linear::pack_all(*self, &layout, vectors, inputs);
        Ok(())
    }

    fn lay_out(&self, count: usize, purpose: Purpose, inputs: &mut Inputs) -> Result<Layout> {
        linear::lay_out::<S>(count, purpose, inputs)
    }

    fn pack(&self, layout: &Layout, number: usize, vectors: Vectors<'_>, part: &mut [f32]) -> Result<()> {
        layout.check_part::<S>(number, &vectors, part)?;
        linear::pack_part(*self, layout, vectors, part);
        Ok(())
    }

    fn product(&self, weights: Matrix<'_>, inputs: &Inputs, out: &mut [f32]) -> Result<()> {
        linear::check_product::<S>(&weights, inputs, out)?;
        self.vectorize(
            #[inline(always)]
            || linear::product(*self, weights, inputs, out),
        );
        Ok(())
    }

    fn rms_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> Result<()> {
        elementwise::check_rms_norm(x, weight)?;
        let s = self.plain();
        s.vectorize(
            #[inline(always)]
            || elementwise::rms_norm(s, x, weight, epsilon),
        );
        Ok(())
    }

    fn rotate(&self, heads: &mut [f32], rotation: &Rotation) -> Result<()> {
        elementwise::check_rotate(heads, rotation)?;
        let s = self.plain();
        s.vectorize(
            #[inline(always)]
            || elementwise::rotate(s, heads, rotation),
        );
        Ok(())
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()> {
        elementwise::check_silu_mul(gate, up)?;
        let s = self.plain();
        s.vectorize(
            #[inline(always)]
            || elementwise::silu_mul(s, gate, up),
        );
        Ok(())
    }

    fn softmax(&self, x: &mut [f32]) {
        let s = self.plain();
        s.vectorize(
            #[inline(always)]
            || elementwise::softmax(s, x),
        );
    }
}

/// The environment variable that names the backend to use.
pub const ISA_VARIABLE: &str = "A2ATS_ISA";

/// A token as the kernel table it stands for: it has no size, so leaking its box allocates nothing.
fn table<S: Simd>(token: S) -> &'static dyn Kernels {
    Box::leak(Box::new(token))
}

/// A backend's name, and its table where this CPU can run it.
type Entry = (&'static str, Option<&'static dyn Kernels>);

/// Every backend of this program, best first. The one list to extend.
fn backends() -> Vec<Entry> {
    fn entry<S: Simd>(token: Option<S>) -> Entry {
        (S::NAME, token.map(table))
    }
    let backends = vec![
        #[cfg(target_arch = "x86_64")]
        entry(arch::avx512bf16::Avx512Bf16::try_new()),
        #[cfg(target_arch = "x86_64")]
        entry(arch::avx512::Avx512::try_new()),
        #[cfg(target_arch = "x86_64")]
        entry(arch::avx2::Avx2::try_new()),
        #[cfg(target_arch = "aarch64")]
        entry(arch::neonbf16::NeonBf16::try_new()),
        #[cfg(target_arch = "aarch64")]
        entry(arch::neon::Neon::try_new()),
        entry(Some(arch::portable::Portable)),
    ];
    #[cfg(target_arch = "x86_64")]
    let backends = in_order(backends, arch::avx512bf16::is_faster());
    backends
}

/// Puts the backend that multiplies pairs of bf16 behind the plain one where that is faster.
#[cfg(target_arch = "x86_64")]
fn in_order<T>(mut backends: Vec<T>, pairs_are_faster: bool) -> Vec<T> {
    if !pairs_are_faster {
        backends.swap(0, 1);
    }
    backends
}

/// The backends that this CPU can run, best first. Never empty: `portable` runs everywhere.
pub fn available() -> Vec<&'static dyn Kernels> {
    backends().into_iter().filter_map(|(_, table)| table).collect()
}

/// The backend of that name.
///
/// # Errors
/// [`Error::Backend`] if this program has no such backend or this CPU cannot run it; the message lists what would
/// work.
pub fn by_name(name: &str) -> Result<&'static dyn Kernels> {
    let found = backends().into_iter().find(|(known, _)| *known == name);
    let why = match found {
        Some((_, Some(table))) => return Ok(table),
        Some((_, None)) => "needs instructions that this CPU does not have",
        None => "is not known on this architecture",
    };
    let available = available().iter().map(|kernels| kernels.name()).collect::<Vec<_>>().join(", ");
    Err(Error::Backend { name: name.to_owned(), why, available })
}

/// The best backend that this CPU can run, or the one that `A2ATS_ISA` names.
///
/// # Errors
/// [`Error::Backend`] if `A2ATS_ISA` is set to something else than an available backend: never a silent fallback.
pub fn select() -> Result<&'static dyn Kernels> {
    match std::env::var_os(ISA_VARIABLE) {
        Some(name) => by_name(&name.to_string_lossy()),
        None => Ok(available()[0]),
    }
}

// Kept from every backend: with one of them a build of these tests would compile all kernels a second time.
#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::in_order;
    use crate::{
        arch::{avx512::Avx512, avx512bf16},
        simd::Simd,
    };

    #[test]
    fn pairs_of_bf16_come_first_on_amd_and_second_on_intel() {
        let listed = [avx512bf16::Avx512Bf16::NAME, Avx512::NAME, "others"];
        let names = |pairs_are_faster| in_order(listed.to_vec(), pairs_are_faster);
        assert_eq!(names(true), listed);
        assert_eq!(names(false), ["avx512", "avx512bf16", "others"]);
        let vendor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        if vendor.contains("GenuineIntel") || vendor.contains("AuthenticAMD") {
            assert_eq!(avx512bf16::is_faster(), vendor.contains("AuthenticAMD"));
        }
    }
}
