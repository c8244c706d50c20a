//! Which backend runs: chosen once, when a model is loaded, and passed down as `&'static dyn Kernels`.

use crate::{
    arch,
    attention::{self, Causal, Partial, Selection, Visible},
    clustering::{self, Candidates, Nearest},
    codebook::{self, Codebook},
    dtype::Dtype,
    elementwise::{self, Rotation},
    error::{Error, Result},
    kv::Rows,
    linear::{self, Inputs, Matrix, Precision},
    retrieval::{self, Boundary},
    simd::Simd,
    tail::{self, Rest, ValueSums},
};
use std::fmt;

/// The kernel table of one instruction set. Implemented for every `Simd` there is, and for nothing else.
///
/// Each method checks its shapes, then runs one coarse kernel compiled for the instruction set: one indirect call
/// per kernel, none per dot product. Methods have no state and may run on any number of threads at once.
///
/// # Errors
/// All methods: [`Error::Length`], [`Error::Position`] or [`Error::Unsupported`] if the arguments do not fit together.
/// Nothing is written then.
pub trait Kernels: Send + Sync + private::Sealed {
    /// The name that `A2ATS_ISA` knows.
    fn name(&self) -> &'static str;

    /// Scores of a group's `queries` (`[group, head_dim]`, rotated to the relative position) with all codewords,
    /// `[group, codes]`, and, in the same pass, the code of the `newest` key (`[head_dim]`, not rotated) if there is
    /// one. See [`crate::codebook`]: scores are relative to the codebook's center.
    fn codeword_scores(
        &self,
        book: &Codebook,
        queries: &[f32],
        newest: Option<&[f32]>,
        scores: &mut [f32],
    ) -> Result<Option<u16>>;

    /// The codes that one query head takes by these `scores`, given how many tokens each has, until it has `take`:
    /// raises `prefixes` to `counts` where a code is taken whole, and describes the rest in `boundary`. All are
    /// `[codes]`; `take` is above 0 and below the sum of `counts`. See [`crate::retrieval`].
    fn select_codes(
        &self,
        scores: &[f32],
        counts: &[u32],
        take: u32,
        prefixes: &mut [u32],
        boundary: &mut Boundary,
    ) -> Result<()>;

    /// The codes of many keys, `[codes.len(), head_dim]`, not rotated.
    fn encode(&self, book: &Codebook, keys: &[f32], codes: &mut [u16]) -> Result<()>;

    /// Attention of a group's `queries` (`[group, head_dim]`, rotated to their true position) over the selected rows.
    /// See [`crate::attention`].
    fn attend(
        &self,
        rows: Rows<'_>,
        selection: &Selection<'_>,
        queries: &[f32],
        scale: f32,
        out: &mut Partial,
    ) -> Result<()>;

    /// Adds the values of tokens that have left the window to their codes' sums: of the rows from position `first` on, which have
    /// these codes. Where memory runs out, some of them are added.
    fn sum_values(&self, sums: &mut ValueSums, rows: Rows<'_>, first: usize, codes: &[u16]) -> Result<()>;

    /// Adds to `out`, attention over the rows that are attended, an estimate of the others; gives how many codes' sums of
    /// values were read. See [`crate::tail`].
    fn attend_rest(&self, rest: &Rest<'_>, out: &mut Partial) -> Result<usize>;

    /// Causal attention for prefill; `out` is `[positions, group, head_dim]`.
    fn attend_causal(&self, request: &Causal<'_>, out: &mut [f32]) -> Result<()>;

    /// Brings input vectors, `[n, cols]`, into the form that products with weights of `dtype` want.
    fn prepare(&self, inputs: &[f32], cols: usize, dtype: Dtype, precision: Precision) -> Result<Inputs>;

    /// `out[r][t] = weights[r] · inputs[t]`; `out` is `[rows, n]`. See [`crate::linear`].
    fn product(&self, weights: Matrix<'_>, inputs: &Inputs, out: &mut [f32]) -> Result<()>;

    /// Compares each of `points`, `[n, dim]`, with all candidates; raises `best` where one is better. See
    /// [`crate::clustering`].
    fn nearest(&self, points: &[f32], candidates: &Candidates<'_>, best: &mut Nearest<'_>) -> Result<()>;

    /// RMSNorm of each vector of `x`, `[n, weight.len()]`, in place.
    fn rms_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> Result<()>;

    /// Rotary position embedding of each vector of `heads`, `[n, head_dim]`, in place, rotate-half layout.
    fn rotate(&self, heads: &mut [f32], rotation: &Rotation) -> Result<()>;

    /// gate ← SiLU(gate) · up
    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()>;

    /// Softmax in place.
    fn softmax(&self, x: &mut [f32]);
}

mod private {
    pub trait Sealed {}
    impl<S: super::Simd> Sealed for S {}
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

    fn codeword_scores(
        &self,
        book: &Codebook,
        queries: &[f32],
        newest: Option<&[f32]>,
        scores: &mut [f32],
    ) -> Result<Option<u16>> {
        book.check_scores(queries, newest, scores)?;
        Ok(self.vectorize(
            #[inline(always)]
            || codebook::scores(*self, book, queries, newest, scores),
        ))
    }

    fn select_codes(
        &self,
        scores: &[f32],
        counts: &[u32],
        take: u32,
        prefixes: &mut [u32],
        boundary: &mut Boundary,
    ) -> Result<()> {
        retrieval::check_select(scores, counts, prefixes)?;
        self.vectorize(
            #[inline(always)]
            || retrieval::select(*self, scores, counts, take, prefixes, boundary),
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
        rows: Rows<'_>,
        selection: &Selection<'_>,
        queries: &[f32],
        scale: f32,
        out: &mut Partial,
    ) -> Result<()> {
        attention::check_attend(&rows, selection, queries)?;
        self.vectorize(
            #[inline(always)]
            || attention::attend(*self, rows, selection, queries, scale, Visible::All, Precision::Full, out),
        );
        Ok(())
    }

    fn sum_values(&self, sums: &mut ValueSums, rows: Rows<'_>, first: usize, codes: &[u16]) -> Result<()> {
        sums.check(codes, &rows, first)?;
        self.vectorize(
            #[inline(always)]
            || codes.iter().zip(first..).try_for_each(|(&code, position)| sums.add(code, rows, position)),
        )
    }

    fn attend_rest(&self, rest: &Rest<'_>, out: &mut Partial) -> Result<usize> {
        rest.check(out)?;
        Ok(self.vectorize(
            #[inline(always)]
            || tail::attend_rest(*self, rest, out),
        ))
    }

    fn attend_causal(&self, request: &Causal<'_>, out: &mut [f32]) -> Result<()> {
        attention::check_causal(request, out)?;
        self.vectorize(
            #[inline(always)]
            || attention::attend_causal(*self, request, out),
        );
        Ok(())
    }

    fn prepare(&self, inputs: &[f32], cols: usize, dtype: Dtype, precision: Precision) -> Result<Inputs> {
        linear::check_prepare(inputs, cols)?;
        self.vectorize(
            #[inline(always)]
            || linear::prepare_for(*self, inputs, cols, dtype, precision),
        )
    }

    fn product(&self, weights: Matrix<'_>, inputs: &Inputs, out: &mut [f32]) -> Result<()> {
        linear::check_product::<S>(&weights, inputs, out)?;
        self.vectorize(
            #[inline(always)]
            || linear::product(*self, weights, inputs, out),
        );
        Ok(())
    }

    fn nearest(&self, points: &[f32], candidates: &Candidates<'_>, best: &mut Nearest<'_>) -> Result<()> {
        let dim = clustering::check(points, candidates, best)?;
        self.vectorize(
            #[inline(always)]
            || clustering::nearest(*self, points, dim, candidates, best),
        );
        Ok(())
    }

    fn rms_norm(&self, x: &mut [f32], weight: &[f32], epsilon: f32) -> Result<()> {
        elementwise::check_rms_norm(x, weight)?;
        self.vectorize(
            #[inline(always)]
            || elementwise::rms_norm(*self, x, weight, epsilon),
        );
        Ok(())
    }

    fn rotate(&self, heads: &mut [f32], rotation: &Rotation) -> Result<()> {
        elementwise::check_rotate(heads, rotation)?;
        self.vectorize(
            #[inline(always)]
            || elementwise::rotate(*self, heads, rotation),
        );
        Ok(())
    }

    fn silu_mul(&self, gate: &mut [f32], up: &[f32]) -> Result<()> {
        elementwise::check_silu_mul(gate, up)?;
        self.vectorize(
            #[inline(always)]
            || elementwise::silu_mul(*self, gate, up),
        );
        Ok(())
    }

    fn softmax(&self, x: &mut [f32]) {
        self.vectorize(
            #[inline(always)]
            || elementwise::softmax(*self, x),
        );
    }
}

/// The environment variable that names the backend to use.
pub const ISA_VARIABLE: &str = "A2ATS_ISA";

/// A token as the kernel table it stands for: it has no size, so leaking its box allocates nothing.
fn table<S: Simd>(token: S) -> &'static dyn Kernels {
    Box::leak(Box::new(token))
}

/// Every backend of this program, best first, with its table where this CPU can run it. The one list to extend.
fn backends() -> Vec<(&'static str, Option<&'static dyn Kernels>)> {
    fn entry<S: Simd>(token: Option<S>) -> (&'static str, Option<&'static dyn Kernels>) {
        (S::NAME, token.map(table))
    }
    #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "sorted on x86-64 alone"))]
    let mut backends = vec![
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
    if !arch::avx512bf16::is_faster() {
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
