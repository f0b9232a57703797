//! The legal table: which facts put a case into which tier of a charge, and the penalties of that tier.
//!
//! The rows are in `data/judgment/tiers.jsonl`, each with its source, the days on which it was in force, the span in
//! which a province sets its own threshold, and how it was verified; `data/judgment/README.md` has the caveats.
//! Mitigating and aggravating factors select a *third* of a tier ([`adjusted`]). That is this project's convention, not
//! the law's: courts weigh factors by percentages and at their discretion (法发〔2021〕21号), which no table can express.

use std::sync::OnceLock;

use serde::Deserialize;

use super::article::Article;
use super::charge::canonical_charge;
use super::penalty::Range;

/// One condition under which a charge falls into a tier.
#[derive(Clone, Debug, Deserialize)]
pub struct Tier {
    /// Article and running number, `264.01`.
    pub id: String,
    /// Name of the charge without 罪.
    pub charge: String,
    /// `264`, or `133-1` for 第一百三十三条之一.
    pub article: String,
    /// The article with the penalty; it differs for 受贿 (385, penalty in 383).
    pub penalty_article: String,
    /// The article's own term for the tier.
    pub tier: String,
    /// The condition of the tier.
    pub condition: Condition,
    /// Least term in months; none if only life or death remains.
    pub min_months: Option<u32>,
    /// Greatest term in months.
    pub max_months: Option<u32>,
    /// Kinds of penalty, 管制 to 死刑.
    pub kinds: Vec<String>,
    /// The document that sets the condition.
    pub source: String,
    /// First day in force, `2013-04-04`.
    pub effective_from: String,
    /// Last day in force; `None` while in force.
    pub effective_to: Option<String>,
    /// How the row was checked.
    pub verified: String,
    /// Remarks.
    pub note: Option<String>,
}

/// The condition of a tier.
#[derive(Clone, Debug, Deserialize)]
pub struct Condition {
    /// `amount_yuan`, `grams`, `mg_per_100ml`, `injury`, `count` or `circumstance`.
    pub kind: String,
    /// What is measured.
    pub what: Option<String>,
    /// The drug.
    pub substance: Option<String>,
    /// The least figure, included, in the kind's unit.
    pub min: Option<f64>,
    /// The greatest figure, excluded.
    pub max: Option<f64>,
    /// The lowest threshold that a province may set for `min`.
    pub region_low: Option<f64>,
    /// The highest threshold that a province may set for `min`.
    pub region_high: Option<f64>,
    /// What must be present besides the figure.
    pub with: Option<String>,
}

impl Tier {
    /// The least and the greatest term in months; (181, 180) if there is no term.
    pub fn bounds(&self) -> (u32, u32) {
        (self.min_months.unwrap_or(181), self.max_months.unwrap_or(180))
    }

    /// Whether a kind of penalty belongs to the tier.
    pub fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|k| k == kind)
    }

    /// The article of the offence.
    pub fn article(&self) -> Article {
        Article::parse(&self.article).expect("tiers.jsonl names articles")
    }

    /// The whole statutory range of the tier.
    pub fn statutory(&self) -> Range {
        let (min_months, max_months) = self.bounds();
        Range { min_months, max_months, life: self.has("无期徒刑"), death: self.has("死刑"), exempt: false }
    }

    /// The span of figures `[low, high)` in which the tier applies whatever threshold a province chose; `None` for
    /// tiers without a figure.
    pub fn certain_span(&self) -> Option<(f64, f64)> {
        let low = self.condition.region_high.or(self.condition.min)?;
        let next = of_charge(&self.charge)
            .filter(|t| t.condition.kind == self.condition.kind && t.condition.what == self.condition.what)
            .filter(|t| t.condition.substance == self.condition.substance && t.condition.with.is_none())
            .filter(|t| t.bounds().0 > self.bounds().0)
            .filter_map(|t| t.condition.region_low.or(t.condition.min))
            .fold(f64::INFINITY, f64::min);
        Some((low, next.min(self.condition.max.unwrap_or(f64::INFINITY))))
    }

    /// The next lower tier of the same charge, for 减轻 (刑法第六十三条).
    pub fn lower(&self) -> Option<&'static Tier> {
        of_charge(&self.charge)
            .filter(|t| t.bounds().1 <= self.bounds().0 && t.bounds().0 < self.bounds().0)
            .max_by_key(|t| t.bounds().1)
    }

    /// The tier's terms in the article's words, such as 三年以上十年以下.
    pub fn range_words(&self) -> &'static str {
        match self.bounds() {
            (1, 6) => "拘役",
            (1, 36) => "三年以下",
            (1, 60) => "五年以下",
            (36, 84) => "三年以上七年以下",
            (36, 120) => "三年以上十年以下",
            (60, 120) => "五年以上十年以下",
            (84, 180) => "七年以上",
            (120, 180) => "十年以上",
            (180, 180) => "十五年以上",
            _ => "法定刑幅度内",
        }
    }
}

/// All rows, in the file's order.
pub fn tiers() -> &'static [Tier] {
    static TIERS: OnceLock<Vec<Tier>> = OnceLock::new();
    TIERS.get_or_init(|| {
        include_str!("../../data/judgment/tiers.jsonl")
            .lines()
            .map(|line| serde_json::from_str(line).expect("tiers.jsonl is part of the program"))
            .collect()
    })
}

/// The rows of a charge.
pub fn of_charge(charge: &str) -> impl Iterator<Item = &'static Tier> {
    let canonical = canonical_charge(charge);
    tiers().iter().filter(move |tier| tier.charge == canonical)
}

/// The row with that id.
pub fn tier(id: &str) -> Option<&'static Tier> {
    tiers().iter().find(|tier| tier.id == id)
}

/// The part of a tier that the factors select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Band {
    /// More aggravating than mitigating factors: the upper third.
    Heavier,
    /// Equally many of both: the middle third.
    Middle,
    /// More mitigating than aggravating factors: the lower third.
    Lighter,
    /// More mitigating factors, one of which allows a term below the tier: the upper third of the next lower tier, or
    /// the lower third of this one.
    Below,
    /// In the lowest tier, at least three more mitigating than aggravating factors: exemption, or at most six months.
    Exempt,
}

impl Band {
    /// The court's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Band::Heavier => "从重",
            Band::Middle => "居中",
            Band::Lighter => "从轻",
            Band::Below => "减轻",
            Band::Exempt => "免除",
        }
    }
}

/// The part of a tier that the factors select.
///
/// * `net`: the number of mitigating factors minus that of aggravating ones.
/// * `below`: whether one of the factors allows 减轻 in this project's convention (从犯, 未遂, 未成年). The law allows 减轻 for 自首
///   and 立功 too; this project does not, so that one set of facts has one range.
pub fn adjusted(tier: &Tier, net: i32, below: bool) -> (Band, Range) {
    let (min, max) = tier.bounds();
    let floor = if min <= 1 { 0 } else { min };
    let third = (max - floor) / 3;
    let band = match net {
        n if n >= 3 && min <= 1 => Band::Exempt,
        n if n > 0 && below && min > 1 => Band::Below,
        n if n > 0 => Band::Lighter,
        0 => Band::Middle,
        _ => Band::Heavier,
    };
    let lone = max == min; // 十五年、无期徒刑或者死刑
    let life = tier.has("无期徒刑");
    let death = tier.has("死刑");
    let range = match band {
        Band::Exempt => Range { exempt: true, ..Range::terms(1, 6.min(third.max(2))) },
        Band::Lighter if lone => Range::terms(min, max),
        Band::Lighter => Range::terms(min, floor + third),
        Band::Below => {
            let from = tier.lower().map_or(min * 2 / 3, |lower| {
                let (low, high) = lower.bounds();
                high - (high - if low <= 1 { 0 } else { low }) / 3
            });
            Range::terms(from, floor + third)
        }
        Band::Middle if lone => Range { life, ..Range::terms(min + 1, max) },
        Band::Middle => Range::terms((floor + third).max(1) + u32::from(min <= 1), floor + 2 * third),
        Band::Heavier => Range {
            life,
            death,
            ..Range::terms(if lone { min + 1 } else { floor + 2 * third + u32::from(min <= 1) }, max)
        },
    };
    (band, range)
}

/// Factors that allow a term below the tier in this project's convention.
pub const BELOW: [&str; 3] = ["从犯", "未遂", "未成年"];
/// Factors that count against the defendant; all others count in favour.
pub const HEAVIER: [&str; 3] = ["累犯", "前科", "弱势对象"];

/// The range of a whole case, with one charge or several, with the band of the factors and each charge's own range.
///
/// Several charges are merged by 刑法第六十九条: the range goes from the highest least term to the sum of the greatest terms,
/// and imprisonment absorbs detention. A recidivist (累犯) gets at least six months, because the law assumes imprisonment
/// for recidivists.
///
/// # Panics
/// Without a tier.
pub fn case_range(tiers: &[&Tier], factors: &[&str]) -> (Band, Range, Vec<Range>) {
    let heavier = factors.iter().filter(|name| HEAVIER.contains(name)).count() as i32;
    let net = factors.len() as i32 - 2 * heavier;
    let below = factors.iter().any(|name| BELOW.contains(name));
    // With several charges there is no exemption; the lower third applies instead.
    let net = if tiers.len() > 1 { net.min(2) } else { net };
    let (bands, mut ranges): (Vec<Band>, Vec<Range>) = tiers.iter().map(|tier| adjusted(tier, net, below)).unzip();
    let recidivist = factors.contains(&"累犯");
    for (range, tier) in ranges.iter_mut().zip(tiers) {
        let detention = tier.bounds().1 <= 6;
        if !range.exempt && !detention && (recidivist || tiers.len() > 1) {
            range.min_months = range.min_months.max(6);
        }
    }
    if let [range] = ranges[..] {
        return (bands[0], range, ranges);
    }
    let served: Vec<&Range> =
        ranges.iter().zip(tiers).filter(|(_, tier)| tier.bounds().1 > 6).map(|(range, _)| range).collect();
    let served = if served.is_empty() { ranges.iter().collect() } else { served };
    let low = served.iter().map(|range| range.min_months).max().unwrap_or(1);
    let high = served.iter().map(|range| range.max_months).sum();
    (bands[0], Range::terms(low, high), ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_leave_out_what_provinces_may_decide() {
        assert_eq!(tier("264.01").unwrap().certain_span(), Some((3000.0, 30000.0)));
        assert_eq!(tier("264.07").unwrap().certain_span(), Some((100_000.0, 300_000.0)));
        assert_eq!(tier("264.09").unwrap().certain_span(), Some((500_000.0, f64::INFINITY)));
        assert_eq!(tier("347.01").unwrap().certain_span(), Some((0.0, 10.0)));
        assert_eq!(tier("263.01").unwrap().certain_span(), None);
    }

    #[test]
    fn the_lower_tier_is_the_next_one() {
        assert_eq!(tier("264.09").unwrap().lower().unwrap().bounds(), (36, 120));
        assert_eq!(tier("264.07").unwrap().lower().unwrap().bounds(), (1, 36));
        assert_eq!(tier("347.04").unwrap().lower().unwrap().bounds(), (84, 180));
        assert!(tier("264.01").unwrap().lower().is_none());
    }

    #[test]
    fn thirds_of_the_common_tiers() {
        let of = |id: &str, net, below| {
            let (band, range) = adjusted(tier(id).unwrap(), net, below);
            (band, range.min_months, range.max_months)
        };
        assert_eq!(of("264.01", 1, false), (Band::Lighter, 1, 12));
        assert_eq!(of("264.01", 0, false), (Band::Middle, 13, 24));
        assert_eq!(of("264.01", -1, false), (Band::Heavier, 25, 36));
        assert_eq!(of("264.07", 1, false), (Band::Lighter, 36, 64));
        assert_eq!(of("264.07", 1, true), (Band::Below, 24, 64));
        assert_eq!(of("264.07", 0, true), (Band::Middle, 64, 92));
        assert_eq!(of("263.01", 2, true), (Band::Below, 24, 64));
        assert_eq!(of("133-1.02", 0, false), (Band::Middle, 3, 4));
        assert_eq!(of("264.01", 3, false).0, Band::Exempt);
        let (_, life) = adjusted(tier("347.04").unwrap(), 0, false);
        assert!(life.life && !life.death && life.min_months > life.max_months);
        let (_, term) = adjusted(tier("347.04").unwrap(), 1, false);
        assert_eq!((term.min_months, term.max_months), (180, 180));
    }

    #[test]
    fn every_row_has_a_source_and_a_known_unit() {
        for tier in tiers() {
            assert!(!tier.source.is_empty() && !tier.verified.is_empty(), "{}", tier.id);
            assert!(
                ["amount_yuan", "grams", "mg_per_100ml", "injury", "count", "circumstance"]
                    .contains(&tier.condition.kind.as_str()),
                "{}",
                tier.id
            );
            tier.article();
        }
    }
}
