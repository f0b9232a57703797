//! Cheap baselines that stand in every ladder: the constant answer, a linear model over character n-grams, and the nearest texts.
//!
//! They see text and label and nothing else. A model that beats none of them has learned nothing that needed a language model. All are
//! deterministic: the same pairs in the same order give the same predictions.
//!
//! The vote itself is in [`crate::pipeline`]; [`Neighbours`] finds the texts that vote.
//!
//! Read next: [`crate::stats`], which gives their accuracy an interval.

mod tfidf;

use kernels::rng::Key;
use std::collections::BTreeMap;
use tfidf::{Features, Tfidf};

pub use tfidf::Neighbours;

/// The ledger's name of the constant answer.
pub const CONSTANT: &str = "constant answer";
/// The ledger's name of the linear model.
pub const NGRAMS: &str = "character n-grams, linear";
/// The ledger's name of the vote among the nearest texts.
pub const NEAREST: &str = "character TF-IDF, 5 nearest";
/// The ledger's name of the base model with examples in its prompt.
pub const FEW_SHOT: &str = "base model, few-shot";

/// The most frequent label, which is the constant answer. Of equally frequent labels it is the first in sorted order; `None` without labels.
///
/// ```
/// assert_eq!(train::baselines::commonest(["盗窃", "诈骗", "盗窃"]), Some("盗窃"));
/// ```
pub fn commonest<'a>(labels: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for label in labels {
        *counts.entry(label).or_default() += 1;
    }
    let most = counts.values().max().copied()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(label, _)| label)
}

/// How a [`NgramModel`] is trained. The defaults suit some hundred to some ten thousand texts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NgramSettings {
    /// The longest n-gram, in characters.
    pub longest: usize,
    /// Passes over the data.
    pub epochs: usize,
    /// AdaGrad's learning rate.
    pub learning_rate: f64,
    /// L2 decay in each update, of the weights that the update touches.
    pub decay: f64,
}

impl Default for NgramSettings {
    fn default() -> NgramSettings {
        NgramSettings { longest: 3, epochs: 10, learning_rate: 0.5, decay: 1e-6 }
    }
}

/// Multinomial logistic regression on character n-grams. A text's features are TF-IDF weighted and have unit length.
///
/// It is trained by AdaGrad, one text per step, in an order drawn from a fixed key. Weights exist only for n-grams that
/// were seen in training.
///
/// # Source
/// Joachims 1998 (linear classifiers of text), Duchi et al. 2011 (AdaGrad).
pub struct NgramModel {
    settings: NgramSettings,
    labels: Vec<String>,
    tfidf: Tfidf,
    /// `[n-grams + 1, labels]`; the last row is the bias.
    weights: Vec<f32>,
}

impl NgramModel {
    /// Trains on pairs of text and label.
    ///
    /// # Panics
    /// When there is no pair.
    pub fn train(pairs: &[(&str, &str)], settings: NgramSettings) -> NgramModel {
        assert!(!pairs.is_empty(), "an n-gram model of no texts");
        let mut labels: Vec<String> = pairs.iter().map(|(_, label)| label.to_string()).collect();
        labels.sort_unstable();
        labels.dedup();
        let texts: Vec<&str> = pairs.iter().map(|(text, _)| *text).collect();
        let (tfidf, rows) = Tfidf::fit(&texts, settings.longest);
        let width = labels.len();
        let weights = vec![0.0; (tfidf.len() + 1) * width];
        let mut model = NgramModel { settings, labels, tfidf, weights };
        let targets: Vec<usize> = pairs
            .iter()
            .map(|(_, label)| model.labels.binary_search_by(|known| known.as_str().cmp(label)).unwrap_or(0))
            .collect();
        model.fit(&rows, &targets);
        model
    }

    /// The labels with their probabilities, the most likely first. Labels of equal probability are sorted by name.
    pub fn probabilities(&self, text: &str) -> Vec<(&str, f64)> {
        let features = self.tfidf.features(text);
        let mut scores = vec![0.0; self.labels.len()];
        self.softmax(&features, &mut scores);
        let mut named: Vec<(&str, f64)> =
            self.labels.iter().map(String::as_str).zip(scores.iter().map(|score| f64::from(*score))).collect();
        named.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
        named
    }

    /// The most likely label.
    pub fn predict(&self, text: &str) -> &str {
        self.probabilities(text)[0].0
    }

    fn row(&self, place: usize) -> &[f32] {
        let width = self.labels.len();
        &self.weights[place * width..(place + 1) * width]
    }

    /// Writes the labels' probabilities into `scores`.
    fn softmax(&self, features: &Features, scores: &mut [f32]) {
        scores.copy_from_slice(self.row(self.tfidf.len()));
        for (place, value) in features {
            for (score, weight) in scores.iter_mut().zip(self.row(*place)) {
                *score += value * weight;
            }
        }
        let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|score| *score = (*score - greatest).exp());
        let total: f32 = scores.iter().sum();
        scores.iter_mut().for_each(|score| *score /= total);
    }

    fn fit(&mut self, rows: &[Features], targets: &[usize]) {
        let width = self.labels.len();
        let (step, decay) = (self.settings.learning_rate as f32, self.settings.decay as f32);
        let mut squares = vec![1e-3f32; self.weights.len()];
        let mut scores = vec![0.0; width];
        let bias = (self.tfidf.len(), 0.1f32);
        for epoch in 0..self.settings.epochs as u64 {
            let mut order: Vec<usize> = (0..rows.len()).collect();
            Key::new(0).word("ngram").number(epoch).stream().shuffle(&mut order);
            for item in order {
                self.softmax(&rows[item], &mut scores);
                scores[targets[item]] -= 1.0;
                for (place, value) in rows[item].iter().chain([&bias]) {
                    let span = place * width..(place + 1) * width;
                    let (weights, squares) = (&mut self.weights[span.clone()], &mut squares[span]);
                    for ((weight, square), error) in weights.iter_mut().zip(squares).zip(&scores) {
                        let gradient = value * error + decay * *weight;
                        *square += gradient * gradient;
                        *weight -= step * gradient / square.sqrt();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constant_answer_is_the_commonest() {
        assert_eq!(commonest(["b", "a", "b", "a", "c"]), Some("a"));
        assert_eq!(commonest([]), None);
    }

    /// Texts of three kinds that differ in a few words among shared filler.
    fn texts(n: u64, salt: u64) -> Vec<(String, String)> {
        let kinds = [
            ("盗窃", ["扒窃", "撬锁", "入户"]),
            ("诈骗", ["谎称", "冒充", "骗取"]),
            ("伤害", ["殴打", "轻伤", "持刀"]),
        ];
        let filler = ["某日", "在本市", "被告人", "随后", "报警", "钱款", "二人", "住处"];
        (0..n)
            .map(|index| {
                let mut draws = Key::new(salt).number(index).stream();
                let (label, words) = draws.pick(&kinds);
                let mut text: Vec<&str> = (0..8).map(|_| *draws.pick(&filler)).collect();
                text.push(*draws.pick::<&str>(words));
                draws.shuffle(&mut text);
                (text.concat(), label.to_string())
            })
            .collect()
    }

    #[test]
    fn the_linear_model_learns_words_and_beats_the_constant() {
        let (train, test) = (texts(300, 1), texts(200, 2));
        let pairs: Vec<(&str, &str)> = train.iter().map(|(text, label)| (text.as_str(), label.as_str())).collect();
        let model = NgramModel::train(&pairs, NgramSettings::default());
        let right = test.iter().filter(|(text, label)| model.predict(text) == label).count();
        assert!(right >= 195, "{right} of 200");
        let again = NgramModel::train(&pairs, NgramSettings::default());
        assert_eq!(model.weights, again.weights, "training is not deterministic");
        let probabilities = model.probabilities(&test[0].0);
        assert!((probabilities.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-5);
        assert!(probabilities.windows(2).all(|pair| pair[0].1 >= pair[1].1));
    }

    #[test]
    fn a_text_of_unknown_characters_still_gets_a_label() {
        let model = NgramModel::train(&[("ab", "x"), ("cd", "y")], NgramSettings::default());
        assert_eq!(model.predict("ab"), "x");
        assert_eq!(model.predict("cd"), "y");
        assert!(["x", "y"].contains(&model.predict("")));
    }
}
