//! From token lists to micro-batches: packed, without padding, cut at nothing but the micro-batch's size.

use lm::Batch;

/// A sequence to be trained: its tokens, and the weight of each in the cross-entropy.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// `[len]`, 0 for tokens that are not targets; the first never is one.
    pub weights: Vec<f32>,
}

impl Sequence {
    /// A document: every token but the first is a target.
    pub fn document(tokens: Vec<u32>) -> Sequence {
        let mut weights = vec![1.0; tokens.len()];
        if let Some(first) = weights.first_mut() {
            *first = 0.0;
        }
        Sequence { tokens, weights }
    }

    /// A prompt and the completion that is trained.
    pub fn completion(prompt: &[u32], completion: &[u32]) -> Sequence {
        let tokens = [prompt, completion].concat();
        let mut weights = vec![0.0; prompt.len()];
        weights.resize(tokens.len(), 1.0);
        Sequence { tokens, weights }
    }

    /// Targets with a weight.
    pub fn targets(&self) -> usize {
        self.weights.iter().filter(|&&weight| weight != 0.0).count()
    }
}

/// Packs sequences, in order, into micro-batches of at most `tokens_per_micro_batch` tokens (or one sequence), each with its
/// tokens' weights times `scale`.
pub fn micro_batches(sequences: &[Sequence], tokens_per_micro_batch: usize, scale: f32) -> Vec<(Batch, Vec<f32>)> {
    let mut batches: Vec<(Batch, Vec<f32>)> = Vec::new();
    for sequence in sequences.iter().filter(|sequence| sequence.targets() > 0) {
        let fits =
            batches.last().is_some_and(|(batch, _)| batch.len() + sequence.tokens.len() <= tokens_per_micro_batch);
        if !fits {
            batches.push((Batch::new(), Vec::new()));
        }
        let (batch, weights) = batches.last_mut().expect("one was pushed");
        batch.push(&sequence.tokens, None);
        weights.extend(sequence.weights.iter().map(|weight| weight * scale));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_stay_whole_and_in_order() {
        let sequences: Vec<Sequence> = (1..6).map(|n| Sequence::document(vec![n; n as usize + 1])).collect();
        let batches = micro_batches(&sequences, 7, 0.5);
        let lengths: Vec<usize> = batches.iter().map(|(batch, _)| batch.len()).collect();
        assert_eq!(lengths, [5, 4, 5, 6]);
        assert_eq!(batches[0].1, [0.0, 0.5, 0.0, 0.5, 0.5]);
        let masked = Sequence { tokens: vec![1, 2], weights: vec![0.0, 0.0] };
        assert!(micro_batches(&[masked], 7, 1.0).is_empty());
    }
}
