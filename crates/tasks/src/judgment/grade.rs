//! The scores of the judgment task, and the hidden record that they use.
//!
//! The headline score is *charge set equal and penalty within the range*.
//!
//! * For a built-in case the range is the third of the tier that its factors select ([`super::table::adjusted`]).
//! * For a real case it goes from half the stated term to twice that term. If the table knows the charge, it is clipped
//!   to the narrowest tier that contains the term. Life, death and exemption must match exactly.
//! * If the source states no penalty, the headline score is the charge set alone, and the part `penalty_known` is 0.
//!
//! Grading is strict: a completion scores nothing if it was truncated, has no answer block or several, or has a part
//! that cannot be parsed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::article::Article;
use super::penalty::{Penalty, Range, log_distance};
use super::table;
use crate::case::{Completion, Grade};
use crate::rewards::answer as blocks;

/// What is known of a case beyond its prompt and answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `generated`, or the file and line.
    pub origin: String,
    /// The facts alone.
    pub facts: String,
    /// Canonical names of the charges.
    pub charges: Vec<String>,
    /// The stated penalty, in words; none if unknown.
    pub penalty: Option<String>,
    /// Months of the stated penalty; none for life, death and unknown.
    pub months: Option<u32>,
    /// The penalties that count as right.
    pub range: Option<Range>,
    /// The bounds of the statutory tier (of the first charge), whatever the factors.
    pub statutory: Option<Range>,
    /// Rows of the table, one per charge.
    pub rows: Vec<String>,
    /// The figures that decide the tiers, one for each charge that has one.
    pub figures: Vec<String>,
    /// Names of the factors.
    pub factors: Vec<String>,
    /// The band that the factors lead to.
    pub band: Option<String>,
    /// An expert's reasoning in one line.
    pub chain: Option<String>,
    /// Whether suffixes such as 之一 are stated; CAIL2018 gives the number alone.
    pub exact_articles: bool,
    /// Characters that were cut from the middle of the facts to fit the task's limit.
    pub cut_chars: usize,
}

/// The range of a real case, and the tier's bounds if the table knows the charge. See the module.
pub fn real_range(answer: &Answer) -> (Option<Range>, Option<Range>) {
    let Some(penalty) = answer.penalty else {
        return (None, None);
    };
    let tier = match &answer.charges[..] {
        [charge] => table::of_charge(charge)
            .map(table::Tier::statutory)
            .filter(|range| range.contains(penalty))
            .min_by_key(|range| range.max_months.saturating_sub(range.min_months)),
        _ => None,
    };
    let range = match penalty {
        Penalty::Exempt => Range { exempt: true, ..Range::terms(1, 0) },
        Penalty::Life => Range { life: true, ..Range::terms(1, 0) },
        Penalty::Death => Range { death: true, ..Range::terms(1, 0) },
        _ => {
            let months = penalty.months().unwrap_or(0);
            let (low, high) = (months.div_ceil(2).max(1), months * 2);
            match tier {
                Some(tier) => Range::terms(low.max(tier.min_months), high.min(tier.max_months)),
                None => Range::terms(low, high),
            }
        }
    };
    (Some(range), tier)
}

/// F1 of two sets: 1 when equal, 0 when disjoint or one of them empty.
pub fn f1<T: Ord>(given: &BTreeSet<T>, known: &BTreeSet<T>) -> f64 {
    let common = given.intersection(known).count() as f64;
    match given.len() + known.len() {
        0 => 0.0,
        total => 2.0 * common / total as f64,
    }
}

/// The articles to compare: with suffixes such as 之一, or the numbers alone.
pub fn articles(answer: &Answer, exact: bool) -> BTreeSet<Article> {
    let plain = |a: Article| if exact { a } else { Article { sub: 0, ..a } };
    answer.article_set().into_iter().map(plain).collect()
}

/// Parses the answer of a completion. The completion must be well formed ([`blocks::blocks`]) and have a think block,
/// which may be empty; every part must be readable.
///
/// # Errors
/// The reason why there is no answer.
pub fn read(completion: &Completion) -> Result<(Answer, Penalty), String> {
    let found = blocks::blocks(completion)?;
    if found.think.is_none() {
        return Err("there is no <think> block".to_string());
    }
    Answer::parse_complete(found.answer)
}

/// Grades a completion against the known answer and the hidden record.
///
/// Parts: `format`, `charge_exact`, `charge_f1`, `article_f1`, `in_range`, `in_tier`, `penalty_known` (0 or 1, F1 in
/// 0..=1), and `log_distance` (see [`log_distance`]) if both penalties are known.
pub fn grade(known: &Answer, record: &Record, completion: &Completion) -> Grade {
    let mut parts: BTreeMap<String, f64> =
        ["format", "charge_exact", "charge_f1", "article_f1", "in_range", "in_tier", "penalty_known"]
            .iter()
            .map(|name| (name.to_string(), 0.0))
            .collect();
    let mut set = |name: &str, value: f64| parts.insert(name.to_string(), value);
    set("penalty_known", f64::from(u8::from(known.penalty.is_some())));
    let (answer, penalty) = match read(completion) {
        Ok(read) => read,
        Err(reason) => {
            return Grade { correct: false, parts, reason, answer_key: None };
        }
    };
    let flag = |condition: bool| f64::from(u8::from(condition));
    let (given, wanted) = (answer.charge_set(), known.charge_set());
    let charge = given == wanted;
    let in_range = record.range.is_some_and(|range| range.contains(penalty));
    set("format", 1.0);
    set("charge_exact", flag(charge));
    set("charge_f1", f1(&given, &wanted));
    set("article_f1", f1(&articles(&answer, record.exact_articles), &articles(known, record.exact_articles)));
    set("in_range", flag(in_range));
    set("in_tier", flag(record.statutory.is_some_and(|range| range.contains(penalty))));
    if let Some(stated) = known.penalty {
        set("log_distance", log_distance(penalty, stated));
    }
    let correct = charge && (in_range || known.penalty.is_none());
    let reason = match (charge, known.penalty) {
        (false, _) => format!("charges {given:?}, stated {wanted:?}"),
        (true, None) => "charges equal; no penalty is stated".to_string(),
        (true, Some(stated)) if in_range => format!("charges equal; {penalty} lies in the range (stated {stated})"),
        (true, Some(stated)) => format!("charges equal; {penalty} lies outside the range (stated {stated})"),
    };
    Grade { correct, parts, reason, answer_key: Some(answer.key()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_real_cases() {
        let of = |text: &str| real_range(&Answer::parse(text).unwrap());
        assert_eq!(of("盗窃；264；2年").0, Some(Range::terms(12, 36)));
        assert_eq!(of("盗窃；264；8个月").0, Some(Range::terms(4, 16)));
        assert_eq!(of("非法捕捞水产品；340；3个月").0, Some(Range::terms(2, 6)));
        assert_eq!(of("盗窃；264；不详"), (None, None));
        let (life, tier) = of("抢劫；263；无期徒刑");
        assert!(life.unwrap().contains(Penalty::Life) && !life.unwrap().contains(Penalty::Imprisonment(180)));
        assert_eq!(tier.unwrap().min_months, 120);
        assert!(of("盗窃；264；免予刑事处罚").0.unwrap().contains(Penalty::Exempt));
    }

    #[test]
    fn f1_of_sets() {
        let set = |items: &[u8]| items.iter().copied().collect::<BTreeSet<u8>>();
        assert_eq!(f1(&set(&[1, 2]), &set(&[2, 1])), 1.0);
        assert_eq!(f1(&set(&[1]), &set(&[1, 2])), 2.0 / 3.0);
        assert_eq!(f1(&set(&[3]), &set(&[1, 2])), 0.0);
        assert_eq!(f1(&set(&[]), &set(&[])), 0.0);
    }
}
