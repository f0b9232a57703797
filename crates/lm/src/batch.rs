//! The data of one step: the tokens of packed sequences, and the segments that divide them. (Packed *weights* are
//! something else; see `packed.rs`.)
//!
//! Segments follow one another without padding. A segment with a parent continues it: its tokens see all tokens of the
//! chain of parents, and, causally, those of their own segment. So the completions of a group share one prompt, in
//! training as in sampling.
//!
//! ```text
//! tokens p p p p | q a a a | q b b segment 0: a prompt without its last token q parent – | 0 | 0 segments 1 and 2: q
//! and one completion each position 0 1 2 3 | 4 5 6 7 | 4 5 6
//! ```
//!
//! **Alignment.** `x[t]` of every per-token array belongs to `tokens[t]`. The log-probability of `tokens[t]` comes from
//! hidden row `t − 1`, so the first token of a segment is never a target. For this reason a completion's segment begins
//! with the last token of its prompt, and the parent holds the prompt without that token.

pub use kernels::ops::attention::Segment;

/// The `N` tokens of some packed sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    segments: Vec<Segment>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Batch {
        Batch::default()
    }

    /// Appends a segment and returns its index.
    ///
    /// # Panics
    /// When `parent` is not an earlier segment, or `tokens` is empty.
    pub fn push(&mut self, tokens: &[u32], parent: Option<usize>) -> usize {
        assert!(!tokens.is_empty(), "an empty segment");
        assert!(parent.is_none_or(|p| p < self.segments.len()), "parent {parent:?} of segment {}", self.segments.len());
        let before = parent.map_or(0, |p| self.depth(p));
        let start = self.tokens.len();
        self.tokens.extend_from_slice(tokens);
        self.positions.extend((before..before + tokens.len()).map(|position| position as u32));
        self.segments.push(Segment { start, len: tokens.len(), parent });
        self.segments.len() - 1
    }

    /// Number of tokens from the root of segment `index`'s chain to the segment's end. It is the position after its
    /// last token.
    pub fn depth(&self, index: usize) -> usize {
        let segment = &self.segments[index];
        self.positions[segment.start] as usize + segment.len
    }

    /// Number of tokens, `N`.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether it holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// `[N]` token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// `[N]`: each token's position in its sequence, counted from the root of its segment's chain.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The segments, parents before children.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Number of pairs of a token and a token that it sees. A token sees itself.
    pub fn attention_pairs(&self) -> usize {
        self.positions.iter().map(|&position| position as usize + 1).sum()
    }

    /// The highest position plus one.
    pub fn context_len(&self) -> usize {
        self.positions.iter().map(|&p| p as usize + 1).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_continue_through_the_parents() {
        let mut batch = Batch::new();
        let prompt = batch.push(&[5, 6, 7], None);
        let first = batch.push(&[8, 9], Some(prompt));
        batch.push(&[8], Some(prompt));
        batch.push(&[1], Some(first));
        batch.push(&[2, 3], None);
        assert_eq!(batch.positions(), [0, 1, 2, 3, 4, 3, 5, 0, 1]);
        assert_eq!(batch.context_len(), 6);
        assert_eq!(batch.attention_pairs(), 1 + 2 + 3 + 4 + 5 + 4 + 6 + 1 + 2);
        assert_eq!(batch.segments()[3], Segment { start: 6, len: 1, parent: Some(first) });
    }
}
