//! The user's texts as pieces of at most a context, in an order of their own for each pass.

use std::ops::Range;
use std::path::PathBuf;

use lm::rng::Key;
use lm::tokenizer::Tokenizer;

use crate::codec::Codec;
use crate::data::held_out::HeldOut;
use crate::data::texts;
use crate::error::TrainError;
use crate::packing::Sequence;
use crate::recipe::located;
use crate::walk::Walk;

/// Encoded texts, cut.
pub(super) struct Pieces {
    /// All texts' tokens, one text after the other.
    tokens: Vec<u32>,
    pieces: Vec<Piece>,
}

/// One segment of the training.
struct Piece {
    tokens: Range<usize>,
    /// Key of its places: (text, piece).
    key: u64,
}

impl Pieces {
    /// Reads, searches, encodes and cuts texts, and tells what was left out.
    ///
    /// # Errors
    /// As [`texts::read`]; texts of which each holds a held-out case.
    pub(super) fn read(
        paths: &[PathBuf],
        context: usize,
        walk: &mut Walk,
        codec: &Codec,
    ) -> Result<Pieces, TrainError> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| located(&walk.recipe.folder, path)).collect();
        let found = texts::read(&paths)?;
        let eval = &walk.recipe.eval;
        let held_out = HeldOut::of(walk.task.kept_out(eval.cases.max(eval.unseen_cases), walk.recipe.seed)?);
        let mut made = Pieces { tokens: Vec::new(), pieces: Vec::new() };
        let mut left_out = 0;
        for text in &found.texts {
            if held_out.is_in(&text.text) {
                left_out += 1;
                continue;
            }
            made.add(&text.id, &codec.document(&text.text), context, &codec.tokenizer);
        }
        if made.pieces.is_empty() {
            let hint = "pretrain on texts that the cases were not taken from";
            return Err(TrainError::stage(walk.stage, "every text holds a held-out case", hint));
        }
        walk.observer.notice(&format!(
            "{}: {} texts, {} tokens; left out: {left_out} that hold a held-out case, {} repeated, {} blank; {} files of other kinds",
            walk.stage,
            found.texts.len() - left_out,
            made.tokens.len(),
            found.repeated,
            found.blank,
            found.passed_over,
        ));
        Ok(made)
    }

    fn add(&mut self, id: &str, document: &[u32], context: usize, tokenizer: &Tokenizer) {
        let (key, start) = (Key::new(0).word(id), self.tokens.len());
        self.tokens.extend_from_slice(document);
        let pieces = cut(document, context, tokenizer).filter(|range| range.len() > 1).enumerate();
        self.pieces.extend(pieces.map(|(index, range)| Piece {
            tokens: start + range.start..start + range.end,
            key: key.number(index as u64).bits(0),
        }));
    }

    /// The pieces from the walk's cursor on, until there are `tokens` tokens.
    pub(super) fn next(&self, tokens: usize, walk: &mut Walk) -> Vec<Sequence> {
        let (mut sequences, mut taken) = (Vec::new(), 0);
        let count = self.pieces.len() as u64;
        let mut order = (walk.cursor / count, self.order(walk.cursor / count, walk.key));
        while taken < tokens {
            let (pass, place) = (walk.cursor / count, walk.cursor % count);
            if pass != order.0 {
                order = (pass, self.order(pass, walk.key));
            }
            let piece = &self.tokens[self.pieces[order.1[place as usize]].tokens.clone()];
            walk.cursor += 1;
            taken += piece.len();
            sequences.push(Sequence::document(piece.to_vec()));
        }
        sequences
    }

    fn order(&self, pass: u64, key: Key) -> Vec<usize> {
        let key = key.word("pass").number(pass);
        let mut order: Vec<usize> = (0..self.pieces.len()).collect();
        order.sort_by_cached_key(|&index| key.number(self.pieces[index].key).bits(0));
        order
    }
}

/// Cuts a document into ranges of at most `context` tokens: behind the last token that ends a line, else at the full length.
pub(super) fn cut<'a>(
    document: &'a [u32],
    context: usize,
    tokenizer: &'a Tokenizer,
) -> impl Iterator<Item = Range<usize>> + 'a {
    let ends_line = |&token: &u32| tokenizer.token_bytes(token).is_some_and(|bytes| bytes.ends_with(b"\n"));
    let mut start = 0;
    std::iter::from_fn(move || {
        let rest = &document[start..];
        let length = match rest.len() {
            0 => return None,
            fits if fits <= context => fits,
            _ => rest[..context].iter().rposition(ends_line).map_or(context, |at| at + 1),
        };
        start += length;
        Some(start - length..start)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lm::tokenizer::TrainOptions;

    use super::*;

    fn tokenizer() -> Tokenizer {
        let options = TrainOptions { vocab_size: 259, ..TrainOptions::default() };
        Tokenizer::train(["a b c", "a b c"], &options, Path::new("recipe.toml")).unwrap()
    }

    #[test]
    fn documents_are_cut_behind_lines_and_nothing_is_lost() {
        let tokenizer = tokenizer();
        let text = "ab\ncd\nefghijkl\nm";
        let document = tokenizer.encode_user(text);
        let pieces: Vec<String> =
            cut(&document, 7, &tokenizer).map(|r| tokenizer.decode(&document[r], false)).collect();
        assert_eq!(pieces, ["ab\ncd\n", "efghijk", "l\nm"]);
        assert_eq!(pieces.concat(), text);
    }

    /// Leaving a text out gives the order of the others as it would be without it.
    #[test]
    fn the_order_of_pieces_is_their_own() {
        let tokenizer = tokenizer();
        let made = |ids: &[&str]| {
            let mut pieces = Pieces { tokens: Vec::new(), pieces: Vec::new() };
            ids.iter().for_each(|id| pieces.add(id, &tokenizer.encode_user(&id.repeat(9)), 4, &tokenizer));
            pieces
        };
        let spelled = |pieces: &Pieces, pass: u64| -> Vec<String> {
            let order = pieces.order(pass, Key::new(1));
            order.iter().map(|&i| tokenizer.decode(&pieces.tokens[pieces.pieces[i].tokens.clone()], false)).collect()
        };
        let (all, fewer) = (made(&["ab", "cd", "ef"]), made(&["ef", "ab"]));
        let without: Vec<String> = spelled(&all, 0).into_iter().filter(|piece| !piece.contains('c')).collect();
        assert_eq!(without, spelled(&fewer, 0));
        assert_ne!(spelled(&all, 0), spelled(&all, 1));
    }
}
