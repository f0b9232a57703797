//! The penalty part of an answer: its kinds, its notation, and ranges of penalties.
//!
//! The notation is that of judgments (有期徒刑三年六个月); short forms are accepted too (3年6个月, 3年6月, 六个月). A penalty that the
//! law does not have is refused: imprisonment under six months, detention over a year. Fines, suspension and
//! deprivation of rights are not part of an answer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::numerals;

/// A principal penalty, or exemption from punishment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Penalty {
    /// 免予刑事处罚.
    Exempt,
    /// 单处罚金.
    FineOnly,
    /// 管制, in months.
    Control(u32),
    /// 拘役, in months: 1 to 6, and to 12 where several offences are merged (刑法第四十二条、第六十九条).
    Detention(u32),
    /// 有期徒刑, in months: 6 to 180, and to 300 where several offences are merged (第四十五条、第六十九条).
    Imprisonment(u32),
    /// 无期徒刑.
    Life,
    /// 死刑, suspended or not.
    Death,
}

impl Penalty {
    /// The usual penalty for a number of months: exemption for 0, detention below six, imprisonment otherwise.
    pub fn of_months(months: u32) -> Penalty {
        match months {
            0 => Penalty::Exempt,
            1..=5 => Penalty::Detention(months),
            _ => Penalty::Imprisonment(months),
        }
    }

    /// Months of imprisonment or detention: 0 for exemption, a fine and control; `None` for life and death.
    pub fn months(self) -> Option<u32> {
        match self {
            Penalty::Exempt | Penalty::FineOnly | Penalty::Control(_) => Some(0),
            Penalty::Detention(months) | Penalty::Imprisonment(months) => Some(months),
            Penalty::Life | Penalty::Death => None,
        }
    }

    /// Parses a text that is a penalty and nothing else.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Penalty, String> {
        let text = text.trim();
        match text {
            "免予刑事处罚" | "免于刑事处罚" | "免除处罚" | "免予处罚" => {
                return Ok(Penalty::Exempt);
            }
            "单处罚金" => return Ok(Penalty::FineOnly),
            "无期徒刑" => return Ok(Penalty::Life),
            "死刑" | "死刑缓期二年执行" | "死刑，缓期二年执行" => return Ok(Penalty::Death),
            _ => {}
        }
        let within = |months: u32, low: u32, high: u32, kind: &str| match months {
            m if (low..=high).contains(&m) => Ok(m),
            m => Err(format!("{kind} of {m} months lies outside {low} to {high}")),
        };
        let term = |rest: &str| months(rest).ok_or_else(|| format!("{rest:?} is not a term of years and months"));
        if let Some(rest) = text.strip_prefix("有期徒刑") {
            within(term(rest)?, 6, 300, "imprisonment").map(Penalty::Imprisonment)
        } else if let Some(rest) = text.strip_prefix("拘役") {
            within(term(rest)?, 1, 12, "detention").map(Penalty::Detention)
        } else if let Some(rest) = text.strip_prefix("管制") {
            within(term(rest)?, 3, 36, "control").map(Penalty::Control)
        } else {
            within(term(text)?, 1, 300, "a term").map(Penalty::of_months)
        }
    }
}

/// The months in `三年六个月`, `3年6月`, `十五年` or `8个月`; `None` for anything else.
fn months(text: &str) -> Option<u32> {
    let (years, rest) = match text.split_once('年') {
        Some((years, rest)) => (numerals::parse(years).filter(|&y| y > 0)?, rest),
        None => (0, text),
    };
    if rest.is_empty() {
        return (years > 0).then_some(years * 12);
    }
    let number = rest.strip_suffix("个月").or_else(|| rest.strip_suffix('月'))?;
    let months = numerals::parse(number).filter(|&m| m > 0)?;
    (years == 0 || months < 12).then_some(years * 12 + months)
}

/// Writes a term as `三年六个月`.
///
/// # Panics
/// For 0 months.
pub fn term_words(months: u32) -> String {
    assert!(months > 0, "term_words: no term of 0 months");
    let mut text = String::new();
    if months >= 12 {
        text += &format!("{}年", numerals::chinese(months / 12));
    }
    if !months.is_multiple_of(12) {
        text += &format!("{}个月", numerals::chinese(months % 12));
    }
    text
}

impl fmt::Display for Penalty {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Penalty::Exempt => f.write_str("免予刑事处罚"),
            Penalty::FineOnly => f.write_str("单处罚金"),
            Penalty::Control(months) => write!(f, "管制{}", term_words(months)),
            Penalty::Detention(months) => write!(f, "拘役{}", term_words(months)),
            Penalty::Imprisonment(months) => write!(f, "有期徒刑{}", term_words(months)),
            Penalty::Life => f.write_str("无期徒刑"),
            Penalty::Death => f.write_str("死刑"),
        }
    }
}

/// A set of penalties: an interval of months, and which of the penalties without a term belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Least term in months; above `max_months` if no term belongs to the range.
    pub min_months: u32,
    /// Greatest term in months, included.
    pub max_months: u32,
    /// Whether life imprisonment belongs to it.
    pub life: bool,
    /// Whether death belongs to it.
    pub death: bool,
    /// Whether exemption belongs to it.
    pub exempt: bool,
}

impl Range {
    /// A range of terms alone, including both ends.
    pub fn terms(min_months: u32, max_months: u32) -> Range {
        Range { min_months, max_months, life: false, death: false, exempt: false }
    }

    /// Whether a penalty is in the range. Control and a fine alone never are, because no range here is that mild.
    pub fn contains(&self, penalty: Penalty) -> bool {
        match penalty {
            Penalty::Exempt => self.exempt,
            Penalty::FineOnly | Penalty::Control(_) => false,
            Penalty::Detention(m) | Penalty::Imprisonment(m) => (self.min_months..=self.max_months).contains(&m),
            Penalty::Life => self.life,
            Penalty::Death => self.death,
        }
    }
}

/// The distance of two penalties: `|ln((a + 6) / (b + 6))|` of their months. A month counts more in a short term than
/// in a long one; the 6 keeps two short terms near each other. Life counts as 240 months, death as 300.
pub fn log_distance(a: Penalty, b: Penalty) -> f64 {
    let months = |penalty: Penalty| match penalty {
        Penalty::Life => 240.0,
        Penalty::Death => 300.0,
        other => f64::from(other.months().unwrap_or(0)),
    };
    ((months(a) + 6.0) / (months(b) + 6.0)).ln().abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_comes_back() {
        for months in 1..=300 {
            let penalty = Penalty::of_months(months);
            assert_eq!(Penalty::parse(&penalty.to_string()), Ok(penalty));
        }
        for penalty in [Penalty::Exempt, Penalty::FineOnly, Penalty::Control(12), Penalty::Life, Penalty::Death] {
            assert_eq!(Penalty::parse(&penalty.to_string()), Ok(penalty));
        }
    }

    #[test]
    fn short_forms_are_read() {
        assert_eq!(Penalty::parse("3年6月"), Ok(Penalty::Imprisonment(42)));
        assert_eq!(Penalty::parse("有期徒刑３年"), Ok(Penalty::Imprisonment(36)));
        assert_eq!(Penalty::parse("四个月"), Ok(Penalty::Detention(4)));
        assert_eq!(Penalty::parse("十五年"), Ok(Penalty::Imprisonment(180)));
        assert_eq!(Penalty::parse("拘役6个月"), Ok(Penalty::Detention(6)));
    }

    #[test]
    fn awkward_terms_are_refused() {
        for wrong in [
            "",
            "有期徒刑",
            "有期徒刑三个月",
            "拘役三年",
            "三年至十年",
            "三年以下",
            "一年十三个月",
            "年",
            "六",
            "三年六",
            "零个月",
            "三十年",
            "有期徒刑三年，缓刑四年",
            "管制一个月",
            "三年三年",
            "死刑死刑",
            "无期",
        ] {
            assert!(Penalty::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn distances_are_symmetric_and_zero_only_at_home() {
        let a = Penalty::Imprisonment(36);
        let b = Penalty::Imprisonment(60);
        assert_eq!(log_distance(a, a), 0.0);
        assert!((log_distance(a, b) - log_distance(b, a)).abs() < 1e-12);
        assert!(log_distance(a, Penalty::Life) > log_distance(a, b));
    }
}
