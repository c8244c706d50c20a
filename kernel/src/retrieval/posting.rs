//! Posting lists: for every code the positions that carry it, ascending.
//!
//! All lists live in one arena, as chains of segments whose size doubles with the list: adding a position is O(1)
//! with no rebuilding ever (folding a log into a flat table would stop a step at a million tokens for milliseconds,
//! in every head at once), and reading a prefix follows a handful of links.

/// Marks the end of a chain.
const NONE: u32 = u32::MAX;

/// Words before a segment's positions: the next segment, and how many positions fit.
const HEADER: usize = 2;

/// Positions of the first segment of a list that grows one by one: with the header, half a cache line.
const FIRST_SEGMENT: u32 = 6;

/// Positions of the largest segment: 4 KiB with the header.
const LARGEST_SEGMENT: u32 = 1022;

#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    last: u32,
    /// Positions in the last segment.
    used: u32,
}

#[derive(Debug, Clone)]
pub(super) struct PostingLists {
    lists: Vec<List>,
    /// Positions in each list, side by side, as the selection goes through all of them.
    counts: Vec<u32>,
    arena: Vec<u32>,
}

impl PostingLists {
    pub(super) fn new(codes: usize) -> Self {
        let empty = List { first: NONE, last: NONE, used: 0 };
        Self { lists: vec![empty; codes], counts: vec![0; codes], arena: Vec::new() }
    }

    pub(super) fn codes(&self) -> usize {
        self.lists.len()
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.lists[..]) + (self.counts.len() + self.arena.len()) * size_of::<u32>()
    }

    /// How many positions each code has.
    pub(super) fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Adds consecutive positions, higher than all before.
    pub(super) fn extend(&mut self, first_position: u32, codes: &[u16]) {
        if codes.len() >= self.codes() {
            self.make_flat(codes);
        }
        // Positions second: a range that is asked for one more than it has to give overflows.
        for (&code, position) in codes.iter().zip(first_position..) {
            self.push(usize::from(code), position);
        }
    }

    /// Gives each list that is still empty one segment of the size that these codes need: a prompt's index is flat.
    fn make_flat(&mut self, codes: &[u16]) {
        let mut needed = vec![0_u32; self.codes()];
        for &code in codes {
            needed[usize::from(code)] += 1;
        }
        for (code, needed) in needed.into_iter().enumerate() {
            if needed > 0 && self.counts[code] == 0 {
                self.add_segment(code, needed);
            }
        }
    }

    fn push(&mut self, code: usize, position: u32) {
        let list = self.lists[code];
        if list.last == NONE || list.used == self.arena[list.last as usize + 1] {
            self.add_segment(code, self.counts[code].clamp(FIRST_SEGMENT, LARGEST_SEGMENT));
        }
        let list = &mut self.lists[code];
        self.arena[list.last as usize + HEADER + list.used as usize] = position;
        list.used += 1;
        self.counts[code] += 1;
    }

    fn add_segment(&mut self, code: usize, capacity: u32) {
        let at = self.arena.len() as u32;
        self.arena.extend([NONE, capacity]);
        self.arena.resize(self.arena.len() + capacity as usize, 0);
        let list = &mut self.lists[code];
        if list.last == NONE {
            list.first = at;
        } else {
            self.arena[list.last as usize] = at;
        }
        list.last = at;
        list.used = 0;
    }

    /// The segments of a list, in order, the last one only as far as it is filled.
    fn segments(&self, code: usize) -> impl Iterator<Item = &[u32]> {
        let list = self.lists[code];
        let mut at = list.first;
        std::iter::from_fn(move || {
            let header = self.arena.get(at as usize..)?;
            let filled = if at == list.last { list.used } else { header[1] };
            at = header[0];
            Some(&header[HEADER..HEADER + filled as usize])
        })
    }

    /// The positions of a code, ascending.
    pub(super) fn positions(&self, code: usize) -> impl Iterator<Item = u32> {
        self.segments(code).flatten().copied()
    }

    /// Appends the `prefix` lowest positions of a code.
    pub(super) fn copy_prefix(&self, code: usize, prefix: u32, to: &mut Vec<u32>) {
        let mut left = prefix as usize;
        let mut segments = self.segments(code);
        while left > 0 {
            let Some(segment) = segments.next() else { return };
            let taken = &segment[..left.min(segment.len())];
            to.extend_from_slice(taken);
            left -= taken.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_order_through_flat_and_grown_segments() {
        let mut lists = PostingLists::new(3);
        let codes: Vec<u16> = (0..5000_u32).map(|i| (i * i % 7 % 3) as u16).collect();
        lists.extend(10, &codes[..1000]);
        for (i, code) in codes.iter().enumerate().skip(1000) {
            lists.extend(10 + i as u32, std::slice::from_ref(code));
        }
        for code in 0..3 {
            let want: Vec<u32> = (0..5000).filter(|&i| codes[i as usize] == code).map(|i| 10 + i).collect();
            let code = usize::from(code);
            assert_eq!(lists.positions(code).collect::<Vec<_>>(), want);
            assert_eq!(lists.counts()[code] as usize, want.len());
            for prefix in [0, 1, want.len() / 2, want.len()] {
                let mut got = Vec::new();
                lists.copy_prefix(code, prefix as u32, &mut got);
                assert_eq!(got, want[..prefix]);
            }
        }
    }
}
