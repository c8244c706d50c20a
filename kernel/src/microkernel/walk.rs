//! Walks over rows whose bounds are checked once, before the inner loops: in a tile of two rows and five queries checks
//! of each block would be as many instructions as the multiplications.
#![allow(unsafe_code, reason = "unchecked accesses of the inner loops; each says why it is sound")]

use std::{marker::PhantomData, ops::Range, slice::from_raw_parts};

/// Walks along `N` rows and `M` operands side by side, a block of each at a time.
pub(crate) struct LockStep<'a, A, B, const N: usize, const M: usize> {
    rows: [&'a [A]; N],
    operands: [&'a [B]; M],
    step: usize,
    steps: usize,
    /// Elements of a step: of a row, of an operand.
    blocks: (usize, usize),
}

impl<'a, A, B, const N: usize, const M: usize> LockStep<'a, A, B, N, M> {
    /// Goes `steps` steps; `blocks` are the elements of each in a row and in an operand.
    ///
    /// # Panics
    /// If a slice is shorter than all the steps: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn new(
        rows: [&'a [A]; N],
        operands: [&'a [B]; M],
        steps: usize,
        blocks: (usize, usize),
    ) -> Self {
        let lengths = (steps.checked_mul(blocks.0), steps.checked_mul(blocks.1));
        let (Some(row), Some(operand)) = lengths else { panic!("more steps than memory") };
        for of_row in &rows {
            assert!(of_row.len() >= row);
        }
        for of_operand in &operands {
            assert!(of_operand.len() >= operand);
        }
        Self { rows, operands, step: 0, steps, blocks }
    }
}

impl<'a, A, B, const N: usize, const M: usize> Iterator for LockStep<'a, A, B, N, M> {
    type Item = ([&'a [A]; N], [&'a [B]; M]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.step == self.steps {
            return None;
        }
        let (row, operand) = (self.step * self.blocks.0, self.step * self.blocks.1);
        self.step += 1;
        // SAFETY: `step` was below `steps`, and every slice has at least `steps` blocks, as `new` made sure.
        unsafe {
            Some((
                parts(self.rows, row..row + self.blocks.0),
                parts(self.operands, operand..operand + self.blocks.1),
            ))
        }
    }
}

/// The same part of several slices.
///
/// # Safety
/// The range lies inside each of them.
#[inline(always)]
unsafe fn parts<T, const N: usize>(mut slices: [&[T]; N], range: Range<usize>) -> [&[T]; N] {
    for slice in &mut slices {
        // SAFETY: the caller's promise.
        *slice = unsafe { slice.get_unchecked(range.clone()) };
    }
    slices
}

/// `N` rows of one length, which is kept once.
pub(crate) struct EqualRows<'a, T, const N: usize> {
    /// From each of the first `set` of these on `len` elements are borrowed for `'a`.
    starts: [*const T; N],
    set: usize,
    len: usize,
    borrowed: PhantomData<&'a [T]>,
}

impl<'a, T, const N: usize> EqualRows<'a, T, N> {
    /// No rows.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { starts: [std::ptr::null(); N], set: 0, len: 0, borrowed: PhantomData }
    }

    /// No rows yet, of `len` elements each.
    #[inline(always)]
    pub(crate) fn clear(&mut self, len: usize) {
        (self.set, self.len) = (0, len);
    }

    /// Makes consecutive rows, one after the other in `elements`, the rows from `first` on, which are the next ones.
    ///
    /// # Panics
    /// If there are too many: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn set(&mut self, first: usize, elements: &'a [T]) {
        let count = elements.len() / self.len.max(1);
        assert!(first == self.set && count <= N - first);
        let start = elements.as_ptr();
        for (i, to) in self.starts[first..first + count].iter_mut().enumerate() {
            *to = start.wrapping_add(i * self.len);
        }
        self.set += count;
    }

    /// Makes all rows from `len` on the one before them. Without one, no row can be looked at.
    ///
    /// # Panics
    /// If other than `len` rows are set: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn repeat_last(&mut self, len: usize) {
        assert!(len == self.set && len <= N);
        if let Some(&last) = self.starts[..len].last() {
            self.starts[len..].fill(last);
            self.set = N;
        }
    }

    /// `R` rows from `first` on.
    ///
    /// # Panics
    /// If there are not so many: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> [&'a [T]; R] {
        assert!(self.set == N);
        let starts: &[*const T; R] = self.starts[first..].first_chunk().expect("tiles divide the rows");
        let mut rows = [&[][..]; R];
        for (row, &start) in rows.iter_mut().zip(starts) {
            // SAFETY: all rows are set: `set` took `start` from the beginning of `len` elements, borrowed for 'a.
            *row = unsafe { from_raw_parts(start, self.len) };
        }
        rows
    }

    /// Where all rows begin: addresses for prefetches.
    #[inline(always)]
    pub(crate) fn all_addresses(&self) -> &[*const T; N] {
        &self.starts
    }

    /// Some columns of the rows.
    ///
    /// # Panics
    /// If there are not so many: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn columns(&self, columns: Range<usize>) -> Columns<'_, 'a, T, N> {
        assert!(self.set == N && columns.start <= columns.end && columns.end <= self.len);
        Columns { rows: self, columns }
    }
}

/// See [`EqualRows::columns`].
pub(crate) struct Columns<'r, 'a, T, const N: usize> {
    rows: &'r EqualRows<'a, T, N>,
    columns: Range<usize>,
}

impl<'a, T, const N: usize> Columns<'_, 'a, T, N> {
    /// The columns of one row.
    ///
    /// # Panics
    /// If `row` is not below N.
    #[inline(always)]
    pub(crate) fn of_row(&self, row: usize) -> &'a [T] {
        // SAFETY: all rows are set, with `len` elements from each start on, and these columns lie inside of them.
        unsafe {
            let start = self.rows.starts[row].add(self.columns.start);
            from_raw_parts(start, self.columns.end - self.columns.start)
        }
    }
}
