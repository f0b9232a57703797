//! The wordings of built-in cases: a bank that is read from `data/judgment/wordings.toml`.
//!
//! Every list has a `seen` half, for training, validation, held-out cases and the corpus, and an `unseen` half, for the
//! second held-out part only.

use std::sync::OnceLock;

use serde::Deserialize;

use super::table::{self, Tier};

/// A list in two halves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Halves {
    seen: Vec<String>,
    unseen: Vec<String>,
}

impl Halves {
    /// One of the halves.
    pub fn half(&self, unseen: bool) -> &[String] {
        if unseen { &self.unseen } else { &self.seen }
    }
}

/// A circumstance that changes the sentence.
#[derive(Debug, Deserialize)]
pub struct Factor {
    /// Its legal name, such as 自首.
    pub name: String,
    /// How often it is drawn, relative to the others; 0 for a factor that only occurs with a scene.
    pub weight: u32,
    #[serde(flatten)]
    words: Halves,
}

impl Factor {
    /// Its wordings.
    pub fn half(&self, unseen: bool) -> &[String] {
        self.words.half(unseen)
    }
}

/// A charge and its scenes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// Its name in judgments (贩卖毒品), without 罪.
    pub name: String,
    /// Its article, `264` or `133-1`.
    pub article: String,
    /// Its conduct in a few words, for the reasoning.
    pub element: String,
    /// The factors that may be drawn for it.
    pub allows: Vec<String>,
    /// Its scenes.
    #[serde(rename = "scene")]
    pub scenes: Vec<Scene>,
}

/// One way of committing a charge, in one tier.
#[derive(Debug, Deserialize)]
pub struct Scene {
    /// The row of the table.
    pub row: String,
    /// The tier in a few words, for the reasoning.
    pub label: String,
    /// The unit of its figure.
    pub unit: Unit,
    /// The least figure; 0 if it has none.
    #[serde(default)]
    pub from: f64,
    /// The greatest figure.
    #[serde(default)]
    pub to: f64,
    /// Factors that the wording itself states.
    #[serde(default)]
    pub with: Vec<String>,
    #[serde(flatten)]
    words: Halves,
}

impl Scene {
    /// Its wordings.
    pub fn half(&self, unseen: bool) -> &[String] {
        self.words.half(unseen)
    }

    /// The row of the table.
    pub fn tier(&self) -> &'static Tier {
        table::tier(&self.row).expect("wordings.toml names rows of tiers.jsonl")
    }

    /// Whether a figure is in the part of the scene's range that is reserved for the unseen half: from 0.55 to 0.72 of
    /// the range, on a logarithmic scale.
    pub fn is_reserved(&self, figure: f64) -> bool {
        let way = (figure / self.from).ln() / (self.to / self.from).ln();
        (0.55..0.72).contains(&way)
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// No figure.
    None,
    /// 元 or 万元.
    Yuan,
    /// 克.
    Gram,
    /// 毫克/100毫升 of alcohol in blood.
    Mg,
    /// 台.
    Machine,
}

/// The whole bank.
#[derive(Debug, Deserialize)]
pub struct Bank {
    /// Defendants.
    pub names: Halves,
    /// Victims.
    pub victims: Halves,
    /// Places.
    pub places: Halves,
    /// Things taken.
    pub things: Halves,
    /// Sentences without legal weight.
    pub idle: Halves,
    /// Sentences with a figure that does not count.
    pub idle_figures: Halves,
    /// Circumstances.
    #[serde(rename = "factor")]
    pub factors: Vec<Factor>,
    /// Charges.
    #[serde(rename = "charge")]
    pub charges: Vec<Charge>,
}

impl Bank {
    /// The factor with that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn factor(&self, name: &str) -> &Factor {
        self.factors
            .iter()
            .find(|factor| factor.name == name)
            .unwrap_or_else(|| panic!("wordings.toml has no factor {name}"))
    }
}

/// The bank that ships with the program.
pub fn bank() -> &'static Bank {
    static BANK: OnceLock<Bank> = OnceLock::new();
    BANK.get_or_init(|| {
        toml::from_str(include_str!("../../data/judgment/wordings.toml"))
            .unwrap_or_else(|error| panic!("wordings.toml: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_twelve_charges_with_rows_and_two_halves() {
        assert!(bank().charges.len() >= 12);
        for charge in &bank().charges {
            for scene in &charge.scenes {
                let tier = scene.tier();
                assert_eq!(tier.article, charge.article, "{} {}", charge.name, scene.row);
                assert!(!scene.half(false).is_empty() && !scene.half(true).is_empty());
                for text in scene.half(false).iter().chain(scene.half(true)) {
                    assert!(text.contains("{D}"), "{text}");
                    assert_eq!(text.contains("{N}"), scene.unit != Unit::None, "{text}");
                }
                for text in scene.half(true) {
                    assert!(!scene.half(false).contains(text), "{text}");
                }
            }
            for name in &charge.allows {
                bank().factor(name);
            }
        }
    }

    #[test]
    fn figures_lie_where_their_tier_holds_everywhere() {
        for charge in &bank().charges {
            for scene in charge.scenes.iter().filter(|scene| scene.unit != Unit::None) {
                let kind = scene.tier().condition.kind.as_str();
                let measured = matches!(
                    (kind, scene.unit),
                    ("amount_yuan", Unit::Yuan)
                        | ("grams", Unit::Gram)
                        | ("mg_per_100ml", Unit::Mg)
                        | ("count", Unit::Machine)
                );
                if !measured {
                    // A circumstance decides the tier (扒窃, 入户). The figure must stay below the thresholds that would
                    // raise it.
                    assert!(scene.to <= 29_000.0, "{} {}", charge.name, scene.row);
                    continue;
                }
                let (low, high) = scene.tier().certain_span().unwrap();
                assert!(
                    low <= scene.from && scene.from < scene.to && scene.to <= high,
                    "{} {} {low} {high}",
                    charge.name,
                    scene.row
                );
            }
        }
    }
}
