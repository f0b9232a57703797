//! [`Segment`] says which rows of the packed sequences belong together. Positions, pages and trees are derived from it.
//!
//! An example: three segments of one sequence, each the continuation of the one before it. They are rows 0..100,
//! 100..103 and 103..173 of the batch. Each is laid out in pages of 64 positions as if it, with its parents, were a
//! sequence of its own:
//!
//! ```text
//!     positions     0 … 63     64 … 127                  128 … 172
//!     segment 0     page 0     page 1: rows 64..100
//!     segment 1     page 0     page 2: rows 64..103
//!     segment 2     page 0     page 3: rows 64..128      page 4: rows 128..173
//! ```
//!
//! Page 0 is full before segment 1 begins, so all three segments share it. Block 1 is not full where segment 1 begins,
//! so segments 1 and 2 get their own copies of its rows.
//!
//! Read next: `paged.rs`.

use std::ops::Range;

use super::limits::KEY_BLOCK;

/// Consecutive rows of a batch of packed sequences that continue one sequence.
///
/// A token sees all tokens of its segment's parent, of the parent's parent and so on, and the tokens of its own segment
/// up to and including itself. Its position is the number of tokens before it that it sees. Parents come before their
/// children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First row.
    pub start: usize,
    /// Number of rows, which may be 0.
    pub len: usize,
    /// Index of the segment that it continues, among the segments of the batch.
    pub parent: Option<usize>,
}

impl Segment {
    /// Its rows in the batch.
    pub fn rows(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    /// Its number of rows, rounded up to an even number. Where pairs of rows must stay together, each segment begins at
    /// an even row.
    pub(super) fn even_len(&self) -> usize {
        self.len.next_multiple_of(2)
    }
}

/// Checks that segments lie inside a batch of `rows` rows, share no rows, and come after their parents.
///
/// Tasks write the rows of different segments at the same time, so a shared row would be a race.
///
/// # Panics
/// When one of these conditions does not hold; the message has the segments' numbers.
pub(super) fn check_segments(segments: &[Segment], rows: usize) {
    assert!(u32::try_from(rows).is_ok(), "attention: a batch of {rows} rows");
    for (i, Segment { start, len, parent }) in segments.iter().enumerate() {
        let inside = start.checked_add(*len).is_some_and(|end| end <= rows);
        assert!(inside, "attention: segment {i}, {len} rows from row {start}, leaves the batch of {rows} rows");
        assert!(parent.is_none_or(|parent| parent < i), "attention: segment {i} comes before its parent");
    }
    let mut order: Vec<usize> = (0..segments.len()).filter(|&i| segments[i].len > 0).collect();
    order.sort_by_key(|&i| segments[i].start);
    for pair in order.windows(2) {
        let apart = segments[pair[0]].rows().end <= segments[pair[1]].start;
        assert!(apart, "attention: segments {} and {} share rows", pair[0].min(pair[1]), pair[0].max(pair[1]));
    }
}

/// Position of each segment's first token, which is the number of tokens in its chain of parents.
///
/// # Panics
/// When a parent does not come before its child.
pub(super) fn first_positions(segments: &[Segment]) -> Vec<usize> {
    let mut first: Vec<usize> = Vec::with_capacity(segments.len());
    for (i, segment) in segments.iter().enumerate() {
        first.push(segment.parent.map_or(0, |parent| {
            assert!(parent < i, "attention: segment {i} comes before its parent {parent}");
            first[parent] + segments[parent].len
        }));
    }
    first
}

/// The row that holds `position` of the sequence that ends in `segment`.
fn row_at(segments: &[Segment], first: &[usize], mut segment: usize, position: usize) -> usize {
    while position < first[segment] {
        segment = segments[segment].parent.expect("a first position above 0 comes from a parent");
    }
    segments[segment].start + position - first[segment]
}

/// The pages into which a batch's keys and values are copied, as if each segment were a sequence in a cache.
///
/// For the blocks before the one in which it begins, a segment uses the pages of its parent. From that block on, it has
/// pages of its own. Rows of its parents that lie in that block are copied to the front of the first page, so that
/// blocks stay aligned to position 0. The figure at the top of this file shows an example.
pub(super) struct PagePlan {
    /// For each segment, the pages of its sequence, in order of position.
    pub tables: Vec<Vec<u32>>,
    /// For each page, the rows whose keys it holds; at most [`KEY_BLOCK`].
    pub pages: Vec<Vec<u32>>,
}

impl PagePlan {
    pub fn new(segments: &[Segment], first: &[usize]) -> PagePlan {
        let mut plan = PagePlan { tables: Vec::with_capacity(segments.len()), pages: Vec::new() };
        for (i, segment) in segments.iter().enumerate() {
            let whole = first[i] / KEY_BLOCK;
            let mut table = segment.parent.map_or(Vec::new(), |parent| plan.tables[parent][..whole].to_vec());
            let end = first[i] + segment.len;
            for block in whole..end.div_ceil(KEY_BLOCK) {
                table.push(plan.pages.len() as u32);
                let positions = block * KEY_BLOCK..end.min((block + 1) * KEY_BLOCK);
                plan.pages.push(positions.map(|p| row_at(segments, first, i, p) as u32).collect());
            }
            plan.tables.push(table);
        }
        plan
    }
}

/// A tree of segments that share keys: one segment without a parent, and all its descendants.
pub(super) struct Tree {
    /// Indices of its segments, parents before children.
    pub segments: Vec<usize>,
    /// Number of their rows, with each segment rounded up to an even number.
    pub rows: usize,
}

/// The trees of a batch, in the order of their roots.
pub(super) fn trees(segments: &[Segment]) -> Vec<Tree> {
    let mut tree_of: Vec<usize> = Vec::with_capacity(segments.len());
    let mut trees: Vec<Tree> = Vec::new();
    for (i, segment) in segments.iter().enumerate() {
        let tree = segment.parent.map_or(trees.len(), |parent| tree_of[parent]);
        if tree == trees.len() {
            trees.push(Tree { segments: Vec::new(), rows: 0 });
        }
        trees[tree].segments.push(i);
        trees[tree].rows += segment.even_len();
        tree_of.push(tree);
    }
    trees
}

/// Whether `ancestor` is the parent of `segment`, or its parent's parent, and so on.
pub(super) fn descends(segments: &[Segment], segment: usize, ancestor: usize) -> bool {
    let mut next = segments[segment].parent;
    while let Some(i) = next {
        if i == ancestor {
            return true;
        }
        next = segments[i].parent;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(start: usize, len: usize, parent: Option<usize>) -> Segment {
        Segment { start, len, parent }
    }

    #[test]
    fn pages_stay_aligned_across_the_border_of_parent_and_child() {
        let segments =
            [segment(10, 100, None), segment(110, 3, Some(0)), segment(0, 10, None), segment(113, 70, Some(1))];
        let first = first_positions(&segments);
        assert_eq!(first, [0, 100, 0, 103]);
        let plan = PagePlan::new(&segments, &first);
        assert_eq!(plan.tables, [vec![0, 1], vec![0, 2], vec![3], vec![0, 4, 5]]);
        let rows: Vec<u32> = (74..183).collect();
        assert_eq!(plan.pages[4], rows[..64]);
        assert_eq!(plan.pages[5], rows[64..]);
        assert_eq!(plan.pages[2], (74..113).collect::<Vec<u32>>());
    }

    #[test]
    fn trees_gather_what_descends_from_one_root() {
        let segments = [segment(0, 4, None), segment(4, 2, None), segment(6, 1, Some(0)), segment(7, 0, Some(2))];
        let trees = trees(&segments);
        assert_eq!(
            trees.iter().map(|t| (t.segments.clone(), t.rows)).collect::<Vec<_>>(),
            [(vec![0, 2, 3], 6), (vec![1], 2)]
        );
        assert!(descends(&segments, 3, 0) && descends(&segments, 3, 2) && !descends(&segments, 2, 1));
    }
}
