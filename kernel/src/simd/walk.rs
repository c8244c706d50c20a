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
    /// From each of these on `len` elements are borrowed for `'a`.
    starts: [*const T; N],
    len: usize,
    borrowed: PhantomData<&'a [T]>,
}

impl<'a, T, const N: usize> EqualRows<'a, T, N> {
    /// The first `len` elements of what `row` gives for 0, 1, …
    ///
    /// # Panics
    /// If a row is shorter: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn new(len: usize, mut row: impl FnMut(usize) -> &'a [T]) -> Self {
        let mut starts = [std::ptr::null(); N];
        for (i, start) in starts.iter_mut().enumerate() {
            let row = row(i);
            assert!(row.len() >= len);
            *start = row.as_ptr();
        }
        Self { starts, len, borrowed: PhantomData }
    }

    /// `R` rows from `first` on.
    ///
    /// # Panics
    /// If there are not so many: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn rows<const R: usize>(&self, first: usize) -> [&'a [T]; R] {
        let starts: &[*const T; R] = self.starts[first..].first_chunk().expect("tiles divide the rows");
        let mut rows = [&[][..]; R];
        for (row, &start) in rows.iter_mut().zip(starts) {
            // SAFETY: `new` took `start` from a slice of `len` or more elements, borrowed for 'a.
            *row = unsafe { from_raw_parts(start, self.len) };
        }
        rows
    }

    /// Where `R` rows begin, from the first row of the `R` that `row` is among on: to ask memory for them.
    #[inline(always)]
    pub(crate) fn addresses<const R: usize>(&self, row: usize) -> [*const T; R] {
        const { assert!(N.is_multiple_of(R)) };
        // Always inside, and compilers see it.
        *self.starts[row % N / R * R..].first_chunk().expect("R divides N")
    }

    /// Some columns of the rows.
    ///
    /// # Panics
    /// If there are not so many: a mistake of the calling kernel.
    #[inline(always)]
    pub(crate) fn columns(&self, columns: Range<usize>) -> Columns<'_, 'a, T, N> {
        assert!(columns.start <= columns.end && columns.end <= self.len);
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
        // SAFETY: `EqualRows::new` found `len` elements from each start on, and these columns lie inside of them.
        unsafe {
            let start = self.rows.starts[row].add(self.columns.start);
            from_raw_parts(start, self.columns.end - self.columns.start)
        }
    }
}
