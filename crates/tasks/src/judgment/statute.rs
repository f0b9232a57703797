//! `statute`: whether an answer agrees with the law and with the facts. It is answer-free: it uses the prompt alone.
//!
//! With word lists (`data/judgment/elements.toml`) it searches the facts for the conduct that the articles describe,
//! for the figures that measure it, and for the circumstances that count. Then it asks four questions:
//!
//! * Are the charges those that the facts indicate?
//! * Does each cited article govern one of the charges, and does each charge have its article?
//! * Is the penalty in a tier that figures and circumstances support, and in the part of the tier that the factors
//!   select?
//! * Is every figure of the reasoning in the facts?
//!
//! **Its limits.** The same authors wrote its word lists and the generator's wordings. So on built-in cases it is as
//! good as an oracle (it agreed with 2,000 of 2,000 held-out cases, and with 1,970 of 2,000 in unseen wordings), and a
//! gain that it brings there says little about real cases. On 148 held-out cases of CAIL2018 it abstained on 103 and
//! indicated the stated charges in 11 of the other 45. It takes the facts as given and cannot tell what was proved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use fancy_regex::Regex;
use serde::Deserialize;

use super::article::Article;
use super::charge::canonical_charge;
use super::grade::{f1, read};
use super::table::{self, Tier};
use super::wordings::Unit;
use crate::rewards::{Evidence, Reads, Rule, Verdict, answer};

#[derive(Deserialize)]
struct Elements {
    #[serde(rename = "charge")]
    charges: Vec<Element>,
    rows: BTreeMap<String, Vec<String>>,
    factors: BTreeMap<String, Vec<String>>,
    aside: Aside,
}

#[derive(Deserialize)]
struct Element {
    name: String,
    signs: Vec<Vec<String>>,
    never: Vec<String>,
}

#[derive(Deserialize)]
struct Aside {
    words: Vec<String>,
}

fn elements() -> &'static Elements {
    static ELEMENTS: OnceLock<Elements> = OnceLock::new();
    ELEMENTS.get_or_init(|| {
        toml::from_str(include_str!("../../data/judgment/elements.toml"))
            .unwrap_or_else(|error| panic!("elements.toml: {error}"))
    })
}

impl Element {
    /// Whether a sentence describes this charge's conduct.
    fn in_sentence(&self, sentence: &str) -> bool {
        let any = |words: &String| words.split('|').any(|word| sentence.contains(word));
        !self.never.iter().any(any) && self.signs.iter().any(|sign| sign.iter().all(any))
    }
}

/// A figure in the facts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// The value in 元, grams, mg per 100 ml or pieces.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// Whether its clause shows that it does not measure the offence (a debt, a wage, a repayment).
    pub aside: bool,
}

/// All figures with a unit that the table uses.
pub fn figures(text: &str) -> Vec<Figure> {
    static PATTERN: OnceLock<Regex> = OnceLock::new();
    let pattern = PATTERN
        .get_or_init(|| Regex::new(r"(\d+(?:\.\d+)?)(万)?余?(元|克|毫克/100|mg/100|台)").expect("a constant pattern"));
    let mut found = Vec::new();
    for clause in text.split(['。', '，', '；', ',', '\n']) {
        let aside = elements().aside.words.iter().any(|word| clause.contains(word.as_str()));
        for captures in pattern.captures_iter(clause).flatten() {
            let part = |index: usize| captures.get(index).map_or("", |m| m.as_str());
            let Ok(number) = part(1).parse::<f64>() else { continue };
            let unit = match part(3) {
                "元" => Unit::Yuan,
                "克" => Unit::Gram,
                "台" => Unit::Machine,
                _ => Unit::Mg,
            };
            // Removes the binary rounding error of values such as 0.1万: amounts are whole yuan or cents.
            let value = if part(2).is_empty() { number } else { (number * 1e6).round() / 100.0 };
            found.push(Figure { value, unit, aside });
        }
    }
    found
}

/// The content of the facts, as far as word lists can find it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Canonical names of the indicated charges, each with the tier that figures and circumstances support.
    pub charges: BTreeMap<String, Option<&'static str>>,
    /// Names of the factors.
    pub factors: Vec<&'static str>,
}

/// Analyses facts.
pub fn read_facts(text: &str) -> Reading {
    let sentences: Vec<&str> = text.split(['。', '\n']).filter(|sentence| !sentence.is_empty()).collect();
    let mut charges = BTreeMap::new();
    for element in &elements().charges {
        let telling: Vec<&str> = sentences.iter().copied().filter(|sentence| element.in_sentence(sentence)).collect();
        if !telling.is_empty() {
            let tier = tier_of(&element.name, &telling.join("。"), text);
            charges.insert(canonical_charge(&element.name), tier.map(|tier| tier.id.as_str()));
        }
    }
    let says = |words: &[String]| words.iter().any(|word| text.contains(word.as_str()));
    let mut factors: Vec<&str> =
        elements().factors.iter().filter(|(_, words)| says(words)).map(|(name, _)| name.as_str()).collect();
    // Surrender includes confession, and a recidivist's record is not counted twice.
    for (stronger, weaker) in [("自首", "坦白"), ("累犯", "前科")] {
        if factors.contains(&stronger) {
            factors.retain(|name| *name != weaker);
        }
    }
    Reading { charges, factors }
}

/// The gravest tier that the sentences in `telling` support. If none is supported, the mildest tier that needs no
/// figure; `None` if figures decide the charge's tiers and none of them applies.
fn tier_of(charge: &str, telling: &str, text: &str) -> Option<&'static Tier> {
    let of = |text: &str| -> Vec<Figure> { figures(text).into_iter().filter(|figure| !figure.aside).collect() };
    let mut measured = of(telling);
    if measured.is_empty() {
        measured = of(text);
    }
    let ketamine = ["氯胺酮", "K粉"].iter().any(|word| text.contains(word));
    let supported = |tier: &&Tier| {
        let cued =
            elements().rows.get(&tier.id).is_some_and(|words| words.iter().any(|word| telling.contains(word.as_str())));
        let unit = match tier.condition.kind.as_str() {
            "amount_yuan" => Unit::Yuan,
            "grams" => Unit::Gram,
            "mg_per_100ml" => Unit::Mg,
            "count" if tier.condition.what.as_deref().is_some_and(|what| what.contains("台数")) => Unit::Machine,
            _ => Unit::None,
        };
        let substance = tier.condition.substance.as_deref().is_none_or(|s| ketamine == s.contains("氯胺酮"));
        let in_span = tier.certain_span().is_some_and(|(low, high)| {
            measured.iter().any(|figure| figure.unit == unit && (low..high).contains(&figure.value))
        });
        cued || (unit != Unit::None && substance && tier.condition.with.is_none() && in_span)
    };
    let gravest = |tier: &&Tier| (tier.bounds().0, std::cmp::Reverse(tier.bounds().1));
    if let Some(tier) = table::of_charge(charge).filter(supported).max_by_key(gravest) {
        return Some(tier);
    }
    // A figure between the thresholds of two provinces supports no tier, not the mildest one.
    let by_figures = |tier: &Tier| matches!(tier.condition.kind.as_str(), "amount_yuan" | "grams");
    if !measured.is_empty() && table::of_charge(charge).next().is_some_and(by_figures) {
        return None;
    }
    table::of_charge(charge).filter(|tier| !by_figures(tier)).min_by_key(|tier| (tier.bounds().0, tier.bounds().1))
}

/// The rule. See the module.
pub struct Statute;

impl Rule for Statute {
    fn name(&self) -> &str {
        "statute"
    }

    fn reads(&self) -> Reads {
        Reads::Prompt
    }

    /// The score is 0.12 × F1 of the charges if they differ from those indicated. Otherwise it is 0.4, plus 0.1 for the
    /// articles, 0.2 for a penalty in the tier and 0.3 for one in the part that the factors select; it is halved if the
    /// reasoning has a figure that is not in the facts.
    fn judge(&self, evidence: &Evidence) -> Verdict {
        let reading = read_facts(evidence.prompt);
        if reading.charges.is_empty() {
            return Verdict::Abstain { reason: "no conduct that the word lists know".to_string() };
        }
        let (given, penalty) = match read(evidence.completion) {
            Ok(read) => read,
            Err(reason) => return Verdict::zero(reason),
        };
        let indicated: BTreeSet<String> = reading.charges.keys().cloned().collect();
        let claimed = given.charge_set();
        if claimed != indicated {
            return Verdict::score(
                0.12 * f1(&claimed, &indicated),
                format!("the facts indicate {indicated:?}, not {claimed:?}"),
            );
        }
        let governing: BTreeSet<Article> =
            indicated.iter().filter_map(|charge| table::of_charge(charge).next()).map(Tier::article).collect();
        let articles = given.article_set() == governing;
        let tiers: Vec<&Tier> = reading.charges.values().flatten().filter_map(|id| table::tier(id)).collect();
        let (in_tier, in_part) = match tiers.len() == indicated.len() {
            false => (indicated.iter().any(|c| table::of_charge(c).any(|t| t.statutory().contains(penalty))), false),
            true => {
                let (_, part, _) = table::case_range(&tiers, &reading.factors);
                let in_part = part.contains(penalty);
                (in_part || tiers.iter().any(|tier| tier.statutory().contains(penalty)), in_part)
            }
        };
        let flag = |condition: bool, weight: f64| if condition { weight } else { 0.0 };
        let score = 0.4 + flag(articles, 0.1) + flag(in_tier, 0.2) + flag(in_part, 0.3);
        let invented = invents_figures(evidence);
        let reason = format!(
            "charges indicated by the facts; articles {articles}, tier {in_tier}, part by factors {in_part}, invented figures {invented}"
        );
        Verdict::score(if invented { score / 2.0 } else { score }, reason)
    }
}

/// Whether the reasoning has a figure that is not in the facts.
fn invents_figures(evidence: &Evidence) -> bool {
    let think = answer::blocks(evidence.completion).ok().and_then(|blocks| blocks.think).unwrap_or("");
    let known = figures(evidence.prompt);
    figures(think).iter().any(|figure| !known.iter().any(|k| k.value == figure.value && k.unit == figure.unit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Completion;

    const THEFT: &str = "案情：2024年8月，被告人徐某趁夜从仓库盗走韩某钢材，价值22万元。徐某此前欠债5000元。徐某归案后如实供述。\n裁判：";

    fn score(prompt: &str, text: &str) -> Option<f64> {
        let completion = Completion::finished(text);
        Statute.judge(&Evidence { prompt, answer: None, completion: &completion }).value()
    }

    #[test]
    fn figures_with_and_without_weight() {
        let found = figures(THEFT);
        assert_eq!(found[0], Figure { value: 220_000.0, unit: Unit::Yuan, aside: false });
        assert_eq!(found[1], Figure { value: 5000.0, unit: Unit::Yuan, aside: true });
        assert_eq!(figures("冰毒2.4克，酒精含量186毫克/100毫升，赌博机24台").len(), 3);
        assert_eq!(figures("共计13.8万余元")[0].value, 138_000.0);
    }

    #[test]
    fn the_score_falls_with_every_disagreement() {
        let of = |text: &str| (score(THEFT, text).unwrap() * 100.0).round() / 100.0;
        assert_eq!(of("<think>22万元</think><answer>盗窃；264；四年</answer>"), 1.0);
        assert_eq!(of("<think></think><answer>盗窃；264；八年</answer>"), 0.7);
        assert_eq!(of("<think></think><answer>盗窃；264；一年</answer>"), 0.5);
        assert_eq!(of("<think></think><answer>盗窃；266；四年</answer>"), 0.9);
        assert_eq!(of("<think>30万元</think><answer>盗窃；264；四年</answer>"), 0.5);
        assert_eq!(of("<think></think><answer>诈骗；266；四年</answer>"), 0.0);
        assert!(of("<think></think><answer>盗窃、诈骗；264、266；四年</answer>") < 0.1);
        assert_eq!(of("盗窃；264；四年"), 0.0);
    }

    #[test]
    fn unknown_conduct_is_an_abstention_whatever_the_answer() {
        for text in ["<think></think><answer>盗窃；264；四年</answer>", "x"] {
            assert_eq!(score("案情：被告人张某非法捕捞水产品。", text), None);
        }
    }
}
