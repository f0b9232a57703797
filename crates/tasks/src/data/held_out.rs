//! Finds held-out cases in texts that are to be trained on.
//!
//! A text holds a case if it contains all of the case's words or, for a longer case, [`STRETCH`] characters of it in a
//! row. White space does not count. So a case is found even if a text quotes only a part of it or breaks its lines
//! elsewhere. A paraphrase is not found.
//!
//! The usual test is an overlap of 13 words (Brown et al. 2020, arXiv 2005.14165). This one counts characters, since
//! Chinese has no blanks between words.

use std::collections::{BTreeMap, HashSet};

/// The number of characters in a row that identify a longer case.
pub const STRETCH: usize = 50;

/// The odd base of the rolling hash; the constant of SplitMix64.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// The cases that no training text may hold.
#[derive(Debug, Clone, Default)]
pub struct HeldOut {
    /// Hashes of stretches, by their length in characters.
    stretches: BTreeMap<usize, HashSet<u64>>,
}

impl HeldOut {
    /// Builds the index from the cases' own words.
    pub fn of<S: AsRef<str>>(cases: impl IntoIterator<Item = S>) -> HeldOut {
        let mut stretches: BTreeMap<usize, HashSet<u64>> = BTreeMap::new();
        for case in cases {
            let chars = visible(case.as_ref());
            let length = chars.len().min(STRETCH);
            if length > 0 {
                stretches.entry(length).or_default().extend(hashes(&chars, length));
            }
        }
        HeldOut { stretches }
    }

    /// Whether a text holds one of the cases.
    pub fn is_in(&self, text: &str) -> bool {
        self.holds(text, 1)
    }

    /// Whether a text quotes one of the longer cases. This is the test for answers, because an answer may legitimately
    /// contain the words of a short case.
    pub fn is_quoted_in(&self, text: &str) -> bool {
        self.holds(text, STRETCH)
    }

    fn holds(&self, text: &str, shortest: usize) -> bool {
        let chars = visible(text);
        let mut stretches = self.stretches.range(shortest..);
        stretches.any(|(length, known)| hashes(&chars, *length).any(|hash| known.contains(&hash)))
    }
}

fn visible(text: &str) -> Vec<char> {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

/// The hash of every stretch of `length` characters: the rolling polynomial of Rabin and Karp modulo 2⁶⁴.
fn hashes(chars: &[char], length: usize) -> impl Iterator<Item = u64> + '_ {
    // Characters are spread over 64 bits, because a polynomial in small numbers would collide.
    let value = |c: char| (u64::from(c) + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(31).wrapping_mul(BASE);
    let leaving = BASE.wrapping_pow(length as u32);
    let mut hash = 0u64;
    chars.iter().enumerate().filter_map(move |(at, &c)| {
        hash = hash.wrapping_mul(BASE).wrapping_add(value(c));
        if at >= length {
            hash = hash.wrapping_sub(value(chars[at - length]).wrapping_mul(leaving));
        }
        (at + 1 >= length).then_some(hash)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_short_cases_and_stretches_of_long_ones_are_found() {
        let long: String = (0..120u32).filter_map(|i| char::from_u32(0x4e00 + i * 7)).collect();
        let chars: Vec<char> = long.chars().collect();
        let held_out = HeldOut::of(["1 + 1 =", &long]);
        let part = |range: std::ops::Range<usize>| chars[range].iter().collect::<String>();
        for (text, expected) in [
            ("so 1+1 = 2".to_string(), true),
            ("so 1 + 2 = 3".to_string(), false),
            (format!("前文{}后文", part(60..110)), true),
            (format!("前文{}\n{}后文", part(30..60), part(60..80)), true),
            (format!("前文{}后文", part(60..109)), false),
            (long.replace(chars[55], "某"), true),
            (String::new(), false),
        ] {
            assert_eq!(held_out.is_in(&text), expected, "{text}");
            assert_eq!(held_out.is_quoted_in(&text), expected && text.len() > 20, "{text}");
        }
        assert!(!HeldOut::of(["", " "]).is_in("anything"));
    }
}
