//! TF-IDF features of texts over character n-grams, and nearest neighbours by cosine.
//!
//! The weight of an n-gram is (1 + ln count) times a smoothed inverse document frequency. Each text's features are then scaled to unit
//! length. Source: Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval".

use std::collections::{BTreeMap, HashMap};

/// Index and weight of every n-gram of a text, sorted by index; of unit length.
pub(super) type Features = Vec<(usize, f32)>;

/// The n-grams of some texts.
pub(super) struct Tfidf {
    /// The longest n-gram, in characters.
    longest: usize,
    /// Index of each n-gram, by the hash of its characters.
    places: HashMap<u64, usize>,
    idf: Vec<f32>,
}

impl Tfidf {
    /// Counts the n-grams of some texts; returns them with each text's features.
    pub(super) fn fit(texts: &[&str], longest: usize) -> (Tfidf, Vec<Features>) {
        let counted: Vec<BTreeMap<u64, u32>> = texts.iter().map(|text| ngrams(text, longest)).collect();
        let (places, idf) = vocabulary(&counted);
        let tfidf = Tfidf { longest, places, idf };
        let rows = counted.iter().map(|counts| tfidf.weighted(counts)).collect();
        (tfidf, rows)
    }

    /// The number of distinct n-grams.
    pub(super) fn len(&self) -> usize {
        self.idf.len()
    }

    /// The features of a text; n-grams that were not in the fitted texts are left out.
    pub(super) fn features(&self, text: &str) -> Features {
        self.weighted(&ngrams(text, self.longest))
    }

    fn weighted(&self, counts: &BTreeMap<u64, u32>) -> Features {
        let mut features: Features = counts
            .iter()
            .filter_map(|(ngram, count)| {
                let place = *self.places.get(ngram)?;
                Some((place, (1.0 + (*count as f32).ln()) * self.idf[place]))
            })
            .collect();
        let norm = features.iter().map(|(_, value)| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        features.iter_mut().for_each(|(_, value)| *value /= norm);
        features
    }
}

/// An index of texts that finds the nearest to a given one.
pub struct Neighbours {
    tfidf: Tfidf,
    rows: Vec<Features>,
}

impl Neighbours {
    /// Indexes texts by their n-grams of 1 to `longest` characters.
    pub fn of(texts: &[&str], longest: usize) -> Neighbours {
        let (tfidf, rows) = Tfidf::fit(texts, longest);
        Neighbours { tfidf, rows }
    }

    /// The `k` texts nearest to `text`, as index and cosine, nearest first. Equally near texts stay in the order of their indices.
    pub fn nearest(&self, text: &str, k: usize) -> Vec<(usize, f32)> {
        let mut dense = vec![0.0; self.tfidf.len()];
        self.tfidf.features(text).into_iter().for_each(|(place, value)| dense[place] = value);
        let cosine = |row: &Features| row.iter().map(|(place, value)| value * dense[*place]).sum::<f32>();
        let mut near: Vec<(usize, f32)> = self.rows.iter().map(cosine).enumerate().collect();
        near.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        near.truncate(k);
        near
    }
}

/// The n-grams of 1 to `longest` characters with their counts, by hash. White space is left out.
fn ngrams(text: &str, longest: usize) -> BTreeMap<u64, u32> {
    let chars: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut counts = BTreeMap::new();
    for start in 0..chars.len() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for c in chars[start..].iter().take(longest) {
            hash = (hash ^ u64::from(*c)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
            *counts.entry(hash).or_default() += 1;
        }
    }
    counts
}

/// Index and inverse document frequency of every n-gram that occurs in at least two texts. With fewer than 50 texts, one is enough.
fn vocabulary(counted: &[BTreeMap<u64, u32>]) -> (HashMap<u64, usize>, Vec<f32>) {
    let mut documents: BTreeMap<u64, usize> = BTreeMap::new();
    for ngram in counted.iter().flat_map(|counts| counts.keys()) {
        *documents.entry(*ngram).or_default() += 1;
    }
    let least = if counted.len() >= 50 { 2 } else { 1 };
    documents.retain(|_, count| *count >= least);
    let idf = documents.values().map(|count| ((1 + counted.len()) as f32 / (1 + count) as f32).ln() + 1.0).collect();
    (documents.into_keys().enumerate().map(|(place, ngram)| (ngram, place)).collect(), idf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_text_is_the_one_that_shares_most() {
        let neighbours = Neighbours::of(&["入户盗窃手机", "酒后驾驶汽车", "入户抢劫手机", "酒后驾驶汽车"], 2);
        let order = |text: &str| neighbours.nearest(text, 3).into_iter().map(|(index, _)| index).collect::<Vec<_>>();
        assert_eq!(order("多次入户盗窃")[0], 0);
        assert_eq!(order("酒后驾驶摩托"), [1, 3, 0]);
        assert!((neighbours.nearest("入户抢劫手机", 1)[0].1 - 1.0).abs() < 1e-6);
        assert_eq!(neighbours.nearest("abc", 9).len(), 4);
    }
}
