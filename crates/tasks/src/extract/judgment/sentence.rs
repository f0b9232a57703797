//! Parses one sentence: 判处有期徒刑三年，缓刑五年，并处罚金五千元.

use serde::{Serialize, Serializer};

use super::amounts::{number, term};

/// A sentence.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sentence {
    /// 有期徒刑, 拘役, 管制, 无期徒刑, 死缓, 死刑, 罚金 (a fine alone), 免予刑事处罚 or 无罪.
    pub kind: &'static str,
    /// The term in months, if there is one; half months occur.
    #[serde(serialize_with = "plainly")]
    pub months: Option<f64>,
    /// The period of suspension, in months.
    #[serde(serialize_with = "plainly")]
    pub probation_months: Option<f64>,
    /// The fine in yuan.
    #[serde(serialize_with = "plainly")]
    pub fine: Option<f64>,
}

/// Writes 24, not 24.0; fractions stay.
fn plainly<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) if value.fract() == 0.0 => serializer.serialize_i64(*value as i64),
        value => value.serialize(serializer),
    }
}

const TERMED: [&str; 3] = ["有期徒刑", "拘役", "管制"];
/// The smallest fine that courts impose, on minors (法释〔2000〕45号, article 2). A smaller one is a clerical error.
const LEAST_FINE: f64 = 500.0;
const EXEMPT: [&str; 6] = ["免予刑事处罚", "免于刑事处罚", "免除刑事处罚", "免予刑事处分", "免于刑事处分", "免除处罚"];

impl Sentence {
    /// The sentence in a part of a verdict; none if it contains none.
    ///
    /// # Errors
    /// More than one sentence, or a term that cannot be read.
    pub fn read(text: &str) -> Result<Option<Sentence>, &'static str> {
        let fine = fine(text)?;
        let mut found: Vec<(usize, &'static str)> = Vec::new();
        for kind in TERMED {
            found.extend(text.match_indices(kind).map(|(at, _)| (at, kind)));
        }
        for (word, kind) in [("无期徒刑", "无期徒刑"), ("死刑", "死刑")] {
            found.extend(text.match_indices(word).map(|(at, _)| (at, kind)));
        }
        found.extend(EXEMPT.iter().filter_map(|word| text.find(word)).min().map(|at| (at, "免予刑事处罚")));
        found.sort_unstable();
        let plain = |kind| Ok(Some(Sentence { kind, fine, ..Sentence::default() }));
        let (at, kind) = match found.as_slice() {
            // A fine beside something unreadable, such as 有期徒三年.
            [] if fine.is_some() && text.contains("并处") => return Err("its term cannot be read"),
            [] if fine.is_some() => return plain("罚金"),
            [] => return Ok(None),
            [only] => *only,
            _ => return Err("it states several sentences where one is expected"),
        };
        let after = &text[at..];
        match kind {
            "死刑" => plain(if after.contains("缓期") { "死缓" } else { "死刑" }),
            kind if TERMED.contains(&kind) => {
                let months = term(&after[kind.len()..]).ok_or("its term cannot be read")?;
                let (low, high) = match kind {
                    "有期徒刑" => (6.0, 300.0),
                    "拘役" => (1.0, 12.0),
                    _ => (3.0, 36.0),
                };
                if !(low..=high).contains(&months) {
                    return Err("its term is one that the law does not know");
                }
                let mut suspensions = after.match_indices("缓刑").map(|(at, _)| probation(&after[at..])).peekable();
                let suspended = suspensions.peek().is_some() || after.contains("缓期");
                let probation_months = suspensions.flatten().next();
                if suspended && probation_months.is_none() {
                    return Err("its suspension cannot be read");
                }
                Ok(Some(Sentence { kind, months: Some(months), probation_months, fine }))
            }
            kind => plain(kind),
        }
    }
}

/// The months in 缓刑五年 or 缓刑考验期为五年.
fn probation(text: &str) -> Option<f64> {
    let mut rest = text.strip_prefix("缓刑")?;
    for word in ["考验期限", "考验期", "为", "：", ":", " "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    term(rest)
}

/// The first sum after 罚金, in yuan; none if no 罚金 states one.
///
/// # Errors
/// A sum that cannot be read.
fn fine(text: &str) -> Result<Option<f64>, &'static str> {
    for (at, word) in text.match_indices("罚金") {
        let stated = text[at + word.len()..].trim_start();
        let mut rest = stated;
        for skipped in ["计", "共计", "合计", "（人民币）", "人民币", "人民", "￥", "¥", "：", ":", "为", "元", " "]
        {
            rest = rest.strip_prefix(skipped).unwrap_or(rest);
        }
        if let Some((sum, taken)) = number(rest) {
            let rest = rest[taken..].trim_start();
            let ended = rest.is_empty() || rest.starts_with(['元', '圆', '。', '；', '，', '（']);
            return if ended && sum >= LEAST_FINE { Ok(Some(sum)) } else { Err("its fine cannot be read") };
        }
        if stated.starts_with("人民币") {
            return Err("its fine cannot be read");
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_every_kind() {
        let read = |text: &str| {
            let s = Sentence::read(text).unwrap().unwrap();
            (s.kind, s.months, s.probation_months, s.fine)
        };
        assert_eq!(
            read("判处有期徒刑三年，缓刑五年，并处罚金人民币2万元"),
            ("有期徒刑", Some(36.0), Some(60.0), Some(20_000.0))
        );
        assert_eq!(read("判处拘役三个半月"), ("拘役", Some(3.5), None, None));
        assert_eq!(read("判处无期徒刑，剥夺政治权利终身"), ("无期徒刑", None, None, None));
        assert_eq!(read("判处死刑，缓期二年执行"), ("死缓", None, None, None));
        assert_eq!(read("判处死刑，剥夺政治权利终身"), ("死刑", None, None, None));
        assert_eq!(read("判处拘役一个月，罚金（人民币）5，000元"), ("拘役", Some(1.0), None, Some(5000.0)));
        assert_eq!(read("单处罚金五千元"), ("罚金", None, None, Some(5000.0)));
        assert_eq!(read("免于刑事处罚"), ("免予刑事处罚", None, None, None));
        assert_eq!(read("判处管制一年"), ("管制", Some(12.0), None, None));
        assert_eq!(read("判处有期徒刑一年，宣告缓刑，缓刑考验期限为二年"), ("有期徒刑", Some(12.0), Some(24.0), None));
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        for text in [
            "判处有期徒刑三年，有期徒刑四年",
            "判处拘役个五月",
            "判处有期徒刑徒刑十年",
            "判处有期徒刑二个月",
            "判处有期徒刑三年，缓期四年",
            "判处有期徒刑三年，并处罚金人民币若干元",
            "判处有期徒刑三年，并处罚金5元",
        ] {
            assert!(Sentence::read(text).is_err(), "{text}");
        }
        assert_eq!(Sentence::read("赔偿损失五千元"), Ok(None));
    }
}
