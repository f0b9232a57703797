//! The user's texts, cut into pieces of at most `context` tokens, and an order of the pieces for each pass.

use std::ops::Range;

use kernels::rng::Key;

use crate::packing::Sequence;
use crate::prompting::Prompting;
use crate::trainer::Trainer;
use tasks::data::texts::Text;

/// Encoded texts in pieces.
pub(super) struct Pieces {
    /// All texts' tokens, one text after the other.
    tokens: Vec<u32>,
    pieces: Vec<Piece>,
}

/// One segment to train on.
struct Piece {
    tokens: Range<usize>,
    /// Hash of (text id, index of the piece); it decides the piece's position in every pass.
    key: u64,
}

impl Pieces {
    /// Encodes and cuts texts.
    pub(super) fn of(texts: &[Text], context: usize, prompting: &Prompting) -> Pieces {
        let mut made = Pieces { tokens: Vec::new(), pieces: Vec::new() };
        for text in texts {
            made.add(&text.id, cut(&prompting.document(&text.text), context, prompting));
        }
        made
    }

    fn add(&mut self, id: &str, pieces: Vec<Vec<u32>>) {
        let key = Key::new(0).word(id);
        for (index, piece) in pieces.into_iter().enumerate() {
            let start = self.tokens.len();
            self.tokens.extend(piece);
            self.pieces.push(Piece { tokens: start..self.tokens.len(), key: key.number(index as u64).bits(0) });
        }
    }

    /// The next pieces from the stage's cursor on, until there are `tokens` tokens.
    pub(super) fn next(&self, tokens: usize, trainer: &mut Trainer) -> Vec<Sequence> {
        let (mut sequences, mut taken) = (Vec::new(), 0);
        let count = self.pieces.len() as u64;
        let mut order = (trainer.cursor / count, self.order(trainer.cursor / count, trainer.key));
        while taken < tokens {
            let (pass, place) = (trainer.cursor / count, trainer.cursor % count);
            if pass != order.0 {
                order = (pass, self.order(pass, trainer.key));
            }
            let piece = &self.tokens[self.pieces[order.1[place as usize]].tokens.clone()];
            trainer.cursor += 1;
            taken += piece.len();
            sequences.push(Sequence::document(piece.to_vec()));
        }
        sequences
    }

    /// The pieces' order in a pass, as indices.
    fn order(&self, pass: u64, key: Key) -> Vec<usize> {
        let key = key.word("pass").number(pass);
        let mut order: Vec<usize> = (0..self.pieces.len()).collect();
        order.sort_by_cached_key(|&index| key.number(self.pieces[index].key).bits(0));
        order
    }
}

/// Cuts a document into pieces of at most `context` tokens. A piece ends after the last token that ends a line, or at the full length if
/// no token does. Each piece begins with the token that begins a text, if the tokenizer has one. A piece of a single token is left out,
/// since it has nothing to predict.
pub(super) fn cut(document: &[u32], context: usize, prompting: &Prompting) -> Vec<Vec<u32>> {
    let ends_line = |&token: &u32| prompting.tokenizer.token_bytes(token).is_some_and(|bytes| bytes.ends_with(b"\n"));
    let most = context - usize::from(prompting.begin().is_some());
    let (mut pieces, mut rest) = (Vec::new(), document);
    while !rest.is_empty() {
        let length = match rest.len() {
            fits if fits <= most => fits,
            _ => rest[..most].iter().rposition(ends_line).map_or(most, |at| at + 1),
        };
        pieces.push(prompting.begin().into_iter().chain(rest[..length].iter().copied()).collect::<Vec<u32>>());
        rest = &rest[length..];
    }
    pieces.retain(|piece| piece.len() > 1);
    pieces
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lm::tokenizer::{Tokenizer, TrainOptions};

    use super::*;

    fn prompting(begins: bool) -> Prompting {
        let bos_token = begins.then(|| "<|im_start|>".to_string());
        let options = TrainOptions { vocab_size: 259, bos_token, ..TrainOptions::default() };
        let tokenizer = Tokenizer::train(["a b c", "a b c"], &options, Path::new("recipe.toml")).unwrap();
        Prompting::new(tokenizer, None, &[]).unwrap()
    }

    #[test]
    fn documents_are_cut_after_lines_and_nothing_is_lost() {
        let text = "ab\ncd\nefghijkl\nm";
        for (begins, before) in [(false, ""), (true, "<|im_start|>")] {
            let prompting = prompting(begins);
            let document = prompting.tokenizer.encode_user(text);
            let pieces = cut(&document, 7 + usize::from(begins), &prompting);
            let pieces: Vec<String> = pieces.iter().map(|piece| prompting.tokenizer.decode(piece, false)).collect();
            assert_eq!(pieces, ["ab\ncd\n", "efghijk", "l\nm"].map(|piece| format!("{before}{piece}")));
        }
    }

    #[test]
    fn leaving_a_text_out_does_not_change_the_order_of_the_others() {
        let prompting = prompting(false);
        let made = |ids: &[&str]| {
            let mut pieces = Pieces { tokens: Vec::new(), pieces: Vec::new() };
            ids.iter()
                .for_each(|id| pieces.add(id, cut(&prompting.tokenizer.encode_user(&id.repeat(9)), 4, &prompting)));
            pieces
        };
        let decoded = |pieces: &Pieces, pass: u64| -> Vec<String> {
            let order = pieces.order(pass, Key::new(1)).into_iter();
            order.map(|i| prompting.tokenizer.decode(&pieces.tokens[pieces.pieces[i].tokens.clone()], false)).collect()
        };
        let (all, fewer) = (made(&["ab", "cd", "ef"]), made(&["ef", "ab"]));
        let without: Vec<String> = decoded(&all, 0).into_iter().filter(|piece| !piece.contains(['c', 'd'])).collect();
        assert_eq!(without, decoded(&fewer, 0));
        assert_ne!(decoded(&all, 0), decoded(&all, 1));
    }
}
