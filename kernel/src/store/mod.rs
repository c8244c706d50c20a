//! What one kv head of one sequence keeps of its tokens: rows, codes, and what retrieval and the estimate need of them.
//!
//! A head takes codes whole, and of the last one the lowest positions. So tokens that have left the window are laid out by code,
//! positions ascending within a code: what is chosen is then a few runs of memory per code, not thousands of rows here and there.
//!
//! | part | holds | order |
//! |---|---|---|
//! | sinks | the first tokens, always attended | position |
//! | bases | tokens that had left the window when they were laid out; immutable, shared by forks | code, then position |
//! | log | the newest tokens, the window among them | position |
//!
//! Each part has later positions than those before it (bases in their order), so "the lowest positions first" is: of the earlier
//! part first. Appending is a copy to the end of the log. [`Store::sort`] makes a base of the log at the end of prefill, and
//! [`Store::sort_some`] does so in small pieces between decode steps, once the log is long ([`Store::wants_sorting`]). With it the sums of
//! the codes' values are made, which the [estimate](crate::estimate) reads.
//!
//! Areas of memory, as [`Run`]s number them: 0 is the sinks with the log behind them, then come the bases.
//!
//! Every change takes the memory that it needs first: an error leaves the store as it was.

mod base;
mod layout;
mod log;
mod retrieved;
mod sorting;
mod sums;

pub use base::{Base, BaseMemory, Parts};
pub use layout::{Layout, Memory};

use crate::{
    dispatch::Kernels,
    error::{Error, Result},
    rows::{MAX_AREAS, Rows, Run, Runs},
};
use log::{Log, check_codes, check_tokens};
use sorting::Sorting;

/// Most bases of a store.
const MAX_BASES: usize = MAX_AREAS - 1;

/// A log is sorted when it has this share of the last base's tokens outside the window, 1/64, and at least [`SHORTEST_SORTED`].
///
/// Rows of a log are read here and there, and the values of those that are not attended are read one by one for the estimate: with 2K to
/// 3K of 128K tokens in it a step with the estimate took 3.3 ms instead of 2.9 on two Granite Rapids cores. Laying them out anew costs the
/// copy of 64 rows per token.
const SORTED_SHARE: usize = 64;

/// Fewer tokens than this stay in the log.
const SHORTEST_SORTED: usize = 512;

/// The tokens of one kv head of one sequence.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    /// Tokens it may hold.
    capacity: usize,
    log: Log,
    bases: Vec<Base>,
    sorting: Option<Sorting>,
}

/// The areas of memory that a store's rows lie in.
#[derive(Debug, Clone, Copy)]
pub struct Areas<'a> {
    rows: [Rows<'a>; MAX_AREAS],
    len: usize,
}

impl<'a> std::ops::Deref for Areas<'a> {
    type Target = [Rows<'a>];

    fn deref(&self) -> &[Rows<'a>] {
        &self.rows[..self.len]
    }
}

impl Store {
    /// An empty store for up to `capacity` tokens: address space for all of them, memory for those that come.
    ///
    /// # Errors
    /// If the layout makes no sense, `capacity` is 2³¹ or more, or the operating system refuses the address space.
    pub fn new(layout: Layout, capacity: usize) -> Result<Self> {
        layout.check()?;
        if capacity >= 1 << 31 {
            let (what, got) = ("capacity of a store", capacity.to_string());
            return Err(Error::Unsupported { what, got, supported: "fewer than 2^31 tokens" });
        }
        let layout = Layout { sinks: layout.sinks.min(capacity), ..layout };
        let log = Log::new(&layout, layout.sinks, capacity)?;
        Ok(Self { layout, capacity, log, bases: Vec::new(), sorting: None })
    }

    /// A store whose tokens from the end of the sinks on lie in a base, a mapped file's for instance; `sinks` and `window` are keys,
    /// values and codes of the tokens before and behind it.
    ///
    /// # Errors
    /// As [`Store::new`] and [`Store::append`], and if the base does not begin where the sinks end, or there are fewer tokens behind it
    /// than the layout's window.
    pub fn from_base(
        base: Base,
        capacity: usize,
        sinks: (&[f32], &[f32], &[u16]),
        window: (&[f32], &[f32], &[u16]),
    ) -> Result<Self> {
        let mut store = Self::new(base.layout(), capacity)?;
        store.append(sinks.0, sinks.1, sinks.2)?;
        let positions = base.positions();
        if positions.start != store.layout.sinks
            || store.len() != store.layout.sinks
            || positions.end > capacity
        {
            let need = format!("{} sinks, and a base behind them", store.layout.sinks);
            return Err(Error::Position { position: positions.start, need });
        }
        store.log.first = positions.end;
        store.bases.push(base);
        store.append(window.0, window.1, window.2)?;
        let start = store.layout.window_start(store.len());
        if start < positions.end {
            let need = format!("the window begins where the base ends, at {}, or behind it", positions.end);
            return Err(Error::Position { position: start, need });
        }
        Ok(store)
    }

    /// What it keeps.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// Tokens it may hold.
    pub const fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many tokens it holds.
    pub const fn len(&self) -> usize {
        self.log.end(&self.layout)
    }

    /// Whether it holds none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bases, in order of position.
    pub fn bases(&self) -> &[Base] {
        &self.bases
    }

    /// Appends tokens: `keys` (rotated) and `values` are `[n, head_dim]`, `codes` is `[n]`, or empty in a store without codes.
    /// Numbers are rounded to the storage type; what is beyond its range becomes its largest number.
    ///
    /// # Errors
    /// If the three do not hold the same whole number of tokens, a code is not among the codewords, the store is full, or memory
    /// runs out; nothing is appended then.
    pub fn append(&mut self, keys: &[f32], values: &[f32], codes: &[u16]) -> Result<()> {
        let tokens = check_tokens(&self.layout, keys, values, codes)?;
        self.check_room(tokens)?;
        self.log.append(&self.layout, keys, values, codes);
        Ok(())
    }

    /// Replaces the codes of the newest tokens, none of which has left the window: for callers that append keys with any code, and
    /// encode several at once before they do.
    ///
    /// # Errors
    /// If one of these tokens has left the window, or a code is not among the codewords; nothing changes then.
    pub fn set_codes(&mut self, codes: &[u16]) -> Result<()> {
        check_codes(&self.layout, codes)?;
        let start = self.layout.window_start(self.len());
        // Sinks never leave it.
        let newest = if start <= self.layout.sinks { self.len() } else { self.len() - start };
        if codes.len() > newest {
            let need = format!("the newest {newest} tokens have not left the window");
            return Err(Error::Position { position: codes.len(), need });
        }
        self.log.set_codes(codes);
        Ok(())
    }

    /// Makes sure that so many more tokens can be appended.
    ///
    /// # Errors
    /// If the store would be full or memory runs out.
    pub fn check_room(&mut self, tokens: usize) -> Result<()> {
        let end = self.len().saturating_add(tokens);
        if end > self.capacity {
            let need = format!("the store has room for {} tokens", self.capacity);
            return Err(Error::Position { position: end - 1, need });
        }
        self.log.check_room(tokens)
    }

    /// The areas that its rows lie in.
    pub fn areas(&self) -> Areas<'_> {
        let mut areas = Areas { rows: [self.log.rows(&self.layout); MAX_AREAS], len: 1 + self.bases.len() };
        for (area, base) in areas.rows[1..].iter_mut().zip(&self.bases) {
            *area = base.rows();
        }
        areas
    }

    /// Puts runs of all rows into `runs`: what dense attention goes over.
    pub fn all_rows(&self, runs: &mut Vec<Run>) {
        self.rows_before(self.len(), runs);
    }

    /// Puts runs of the rows of all tokens before position `end`, which is not before the end of the bases, into `runs`.
    pub fn rows_before(&self, end: usize, runs: &mut Vec<Run>) {
        runs.clear();
        let end = end.clamp(self.bases.last().map_or(0, |base| base.positions().end), self.len());
        let sinks = self.layout.sinks.min(end);
        push(runs, Run::new(0, 0..sinks));
        for (base, area) in self.bases.iter().zip(1..) {
            for &code in base.slots() {
                push(runs, Run::new(area, base.of_code(code.into())));
            }
        }
        push(runs, Run::new(0, sinks..self.log.row_of(&self.layout, end).max(sinks)));
    }

    /// The codes of all tokens by position: for diagnostics. Empty in a store without codes.
    pub fn codes(&self) -> Vec<u16> {
        if self.layout.codes == 0 {
            return Vec::new();
        }
        let mut codes = vec![0; self.len()];
        for base in &self.bases {
            for (position, code, _) in base.from(0) {
                codes[position] = code;
            }
        }
        for (row, &code) in self.log.codes.iter().enumerate() {
            codes[self.log.position_of(&self.layout, row)] = code;
        }
        codes
    }

    /// The positions of the rows of some runs.
    ///
    /// # Errors
    /// If a run is not inside of the store's areas.
    pub fn positions(&self, runs: &[Run]) -> Result<Vec<u32>> {
        Runs::new(&self.areas(), runs)?;
        let of_run = |run: &Run| -> Vec<u32> {
            match (run.area as usize).checked_sub(1) {
                None => run.rows().map(|row| self.log.position_of(&self.layout, row) as u32).collect(),
                Some(base) => self.bases[base].positions_of(run.rows()).to_vec(),
            }
        };
        Ok(runs.iter().flat_map(of_run).collect())
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> Memory {
        let sorting = self.sorting.as_ref().map_or(0, Sorting::bytes);
        let mut memory = Memory { own: self.log.bytes(&self.layout) + sorting, shared: 0 };
        for of_base in self.bases.iter().map(Base::bytes) {
            memory.own += of_base.own;
            memory.shared += of_base.shared;
        }
        memory
    }

    /// A store with the same tokens that goes its own way from here on. It shares the bases; the log is copied.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn fork(&self) -> Result<Self> {
        let mut log = Log::new(&self.layout, self.log.first, self.log.capacity(&self.layout))?;
        log.check_room(self.log.len)?;
        log.extend(&self.layout, &self.log, 0..self.log.len);
        log.enter_as(&self.log)?;
        let (layout, capacity) = (self.layout, self.capacity);
        Ok(Self { layout, capacity, log, bases: self.bases.clone(), sorting: None })
    }

    /// Forgets the tokens from position `tokens` on. Tokens that are in the window again leave the bases; what is left of a base
    /// then has sums of its own.
    ///
    /// # Errors
    /// If memory runs out; nothing is forgotten then.
    pub fn truncate(&mut self, kernels: &dyn Kernels, tokens: usize) -> Result<()> {
        if tokens >= self.len() {
            return Ok(());
        }
        let start = self.layout.window_start(tokens);
        let (layout, log) = (self.layout, &mut self.log);
        if self.bases.last().is_none_or(|base| base.positions().end <= start) {
            // What is being laid out may go on if it is still outside the window.
            if self.sorting.as_ref().is_some_and(|sorting| log.first + sorting.entries.len() > start) {
                self.sorting = None;
            }
            log.leave(log.row_of(&layout, start));
            log.truncate(log.row_of(&layout, tokens));
            return Ok(());
        }
        let (bases, log) = self.cut(kernels, tokens, start)?;
        (self.bases, self.log, self.sorting) = (bases, log, None);
        Ok(())
    }

    /// Bases that end before the window, which starts at `start`, and a log with all the tokens before `tokens` that they do not have.
    fn cut(&self, kernels: &dyn Kernels, tokens: usize, start: usize) -> Result<(Vec<Base>, Log)> {
        let layout = &self.layout;
        let mut bases = Vec::new();
        for base in &self.bases {
            bases.extend(base.before(kernels, start)?);
        }
        let first = bases.last().map_or(layout.sinks, |base| base.positions().end);
        let rows = self.capacity - first + layout.sinks;
        let mut log = Log::new(layout, first, rows)?;
        log.check_room(tokens - first.min(tokens) + layout.sinks)?;
        log.extend(layout, &self.log, 0..layout.sinks.min(tokens));
        for base in &self.bases {
            // Few tokens, in no order but that of their codes.
            let mut back: Vec<_> = base.from(start).filter(|(position, ..)| *position < tokens).collect();
            back.sort_unstable();
            for (_, code, row) in back {
                log.push(layout, base.row(row), code);
            }
        }
        let left = self.log.row_of(layout, tokens.max(self.log.first));
        log.extend(layout, &self.log, layout.sinks.min(left)..left.min(self.log.len));
        Ok((bases, log))
    }

    /// Whether the log has become long enough for a base.
    pub fn wants_sorting(&self) -> bool {
        let long = self.bases.last().map_or(0, Base::len) / SORTED_SHARE;
        self.sorting.is_some()
            || (self.layout.codes > 0 && self.outside_window() >= long.max(SHORTEST_SORTED))
    }

    /// Tokens of the log that have left the window.
    fn outside_window(&self) -> usize {
        self.layout.window_start(self.len()).saturating_sub(self.log.first)
    }

    /// Lays out by code what has left the window: at the end of prefill.
    ///
    /// # Errors
    /// If memory runs out; the store is as before then.
    pub fn sort(&mut self, kernels: &dyn Kernels) -> Result<()> {
        while self.outside_window() > 0 && !self.sort_some(kernels, usize::MAX)? {}
        Ok(())
    }

    /// The same in pieces: goes on with some `rows` rows, and tells whether everything is done. Between them the store is used as
    /// ever; what leaves the window meanwhile waits for the next time.
    ///
    /// # Errors
    /// If memory runs out; the store is as before then.
    pub fn sort_some(&mut self, kernels: &dyn Kernels, rows: usize) -> Result<bool> {
        if self.layout.codes == 0 || (self.sorting.is_none() && self.outside_window() == 0) {
            return Ok(true);
        }
        self.enter_outside_window()?;
        let sorting = match &mut self.sorting {
            Some(sorting) => sorting,
            none => {
                let (first_base, first) = merged(&self.bases, self.log.first);
                let entries = &self.log.entries;
                let end = self.log.first + entries.len();
                let mut log = Log::new(&self.layout, end, self.capacity - end + self.layout.sinks)?;
                log.check_room(self.log.len - entries.len())?;
                none.insert(Sorting::new(self.layout, &self.bases, (first_base, first), entries, log)?)
            }
        };
        if !sorting.go_on(kernels, &self.bases, &self.log, rows)? {
            return Ok(false);
        }
        self.finish_sorting()?;
        Ok(self.outside_window() == 0)
    }

    /// Puts the new base in the place of what went into it.
    fn finish_sorting(&mut self) -> Result<()> {
        let Some(sorting) = &mut self.sorting else { return Ok(()) };
        let (layout, sinks, rest) =
            (self.layout, self.layout.sinks, self.layout.sinks + sorting.entries.len());
        sorting.log.check_room(self.log.len - sorting.entries.len())?;
        sorting.log.extend(&layout, &self.log, 0..sinks);
        sorting.log.extend(&layout, &self.log, rest..self.log.len);
        if let Some(sorting) = self.sorting.take() {
            let (first_base, base, log) = sorting.finish();
            self.bases.truncate(first_base);
            self.bases.push(base);
            self.log = log;
        }
        Ok(())
    }

    /// Enters what has left the window, by code.
    fn enter_outside_window(&mut self) -> Result<()> {
        let end = self.log.row_of(&self.layout, self.layout.window_start(self.len()));
        self.log.enter(&self.layout, end)
    }

    /// Brings up to date which tokens have left the window, and puts the number of them that have each code into `counts`, `[codes]`.
    ///
    /// # Errors
    /// If memory runs out.
    pub fn counts(&mut self, counts: &mut Vec<u32>) -> Result<()> {
        if self.layout.codes > 0 {
            self.enter_outside_window()?;
        }
        counts.clear();
        counts.resize(self.layout.codes, 0);
        for base in &self.bases {
            base.add_counts(counts);
        }
        for entry in &self.log.entries {
            counts[usize::from(entry.code)] += 1;
        }
        Ok(())
    }
}

/// Which bases a log with tokens from position `first` on is merged with: the number of the first of them, and the position from
/// which on the new base has tokens. None that others share, unless there would be too many.
fn merged(bases: &[Base], first: usize) -> (usize, usize) {
    let mut from = bases.len();
    while from > 0 && (!bases[from - 1].is_shared() || from >= MAX_BASES) {
        from -= 1;
    }
    (from, bases.get(from).map_or(first, |base| base.positions().start))
}

/// Adds a run, unless it is empty; where the last one ends just before it they become one.
fn push(runs: &mut Vec<Run>, run: Run) {
    if run.len == 0 {
        return;
    }
    match runs.last_mut() {
        Some(last) if last.area == run.area && last.start + last.len == run.start => last.len += run.len,
        _ => runs.push(run),
    }
}
