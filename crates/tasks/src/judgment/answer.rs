//! The answer of the judgment task: `罪名[、罪名]；法条[、法条]；刑罚`.
//!
//! An example is `盗窃；第二百六十四条；有期徒刑一年六个月`. The notation is that of judgments, so a model that was trained on judgments
//! need not spend capacity on translating terms. The short forms `盗窃罪；264；1年6月` and `危险驾驶；133之一；拘役2个月` are accepted
//! too. A known answer may have 不详 for a part that its source does not state; a completion may not.
//!
//! Some charges have the separator in their name (走私、贩卖、运输、制造毒品). So a list is split at the longest known names first.
//! The known names are those in CAIL2018's list and in the table of tiers.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::OnceLock;

use super::article::Article;
use super::charge::{SELECTIVE, canonical_charge, clean_charge};
use super::penalty::Penalty;
use super::table;

/// The word for a part that a source does not state.
pub const UNKNOWN: &str = "不详";

/// Charges, articles and penalty; `None` for a part written 不详.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Names as written, without 罪 and brackets; at least one, and no two with the same [`canonical_charge`].
    pub charges: Vec<String>,
    /// Articles as written; at least one, and no duplicates.
    pub articles: Option<Vec<Article>>,
    /// The penalty.
    pub penalty: Option<Penalty>,
}

impl Answer {
    /// Parses a known answer or a completion's.
    ///
    /// # Errors
    /// A sentence that names the part and what is wrong with it.
    pub fn parse(text: &str) -> Result<Answer, String> {
        let parts: Vec<&str> = text.trim().split(['；', ';']).collect();
        let [charges, articles, penalty] = parts[..] else {
            return Err(format!("an answer has 3 parts between ；, this one {}", parts.len()));
        };
        let charges = split_charges(charges)?;
        let articles = match articles.trim() {
            UNKNOWN => None,
            list => {
                let mut read = Vec::new();
                for one in list.split('、') {
                    let article = Article::parse(one)?;
                    if read.contains(&article) {
                        return Err(format!("{article} stands twice"));
                    }
                    read.push(article);
                }
                Some(read)
            }
        };
        let penalty = match penalty.trim() {
            UNKNOWN => None,
            text => Some(Penalty::parse(text)?),
        };
        Ok(Answer { charges, articles, penalty })
    }

    /// Parses the answer of a completion, in which no part may be 不详.
    ///
    /// # Errors
    /// As [`Answer::parse`].
    pub fn parse_complete(text: &str) -> Result<(Answer, Penalty), String> {
        let answer = Answer::parse(text)?;
        match (&answer.articles, answer.penalty) {
            (Some(_), Some(penalty)) => Ok((answer, penalty)),
            _ => Err(format!("{UNKNOWN} is not an answer")),
        }
    }

    /// The set of charges under their canonical names.
    pub fn charge_set(&self) -> BTreeSet<String> {
        self.charges.iter().map(|name| canonical_charge(name)).collect()
    }

    /// The set of articles; empty if they are not stated.
    pub fn article_set(&self) -> BTreeSet<Article> {
        self.articles.iter().flatten().copied().collect()
    }

    /// One text for all equivalent answers: sorted and canonical. It is the completion's vote.
    pub fn key(&self) -> String {
        let mut answer = self.clone();
        answer.charges = self.charge_set().into_iter().collect();
        if let Some(articles) = &mut answer.articles {
            articles.sort_unstable();
        }
        answer.to_string()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let articles = self.articles.as_ref().map_or(UNKNOWN.to_string(), |articles| {
            articles.iter().map(Article::to_string).collect::<Vec<_>>().join("、")
        });
        let penalty = self.penalty.map_or(UNKNOWN.to_string(), |penalty| penalty.to_string());
        write!(f, "{}；{articles}；{penalty}", self.charges.join("、"))
    }
}

/// Whether a charge is in the list, in the table, or a form of a selective charge.
pub fn is_known_charge(name: &str) -> bool {
    known_charges().contains(clean_charge(name).as_str())
}

fn known_charges() -> &'static BTreeSet<&'static str> {
    static KNOWN: OnceLock<BTreeSet<&'static str>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let listed = include_str!("../../data/judgment/charges.txt").lines().map(str::trim);
        let tabled = table::tiers().iter().map(|tier| tier.charge.as_str());
        let selective = SELECTIVE.iter().map(|(form, _)| *form);
        listed.chain(tabled).chain(selective).filter(|name| !name.is_empty()).collect()
    })
}

/// Splits a list of charges, longest known names first.
fn split_charges(text: &str) -> Result<Vec<String>, String> {
    let pieces: Vec<String> = text.trim().split('、').map(|piece| piece.trim().to_string()).collect();
    if pieces.iter().any(|piece| clean_charge(piece).is_empty()) {
        return Err("a charge is empty".to_string());
    }
    let (mut charges, mut at) = (Vec::<String>::new(), 0);
    while at < pieces.len() {
        let end =
            (at + 1..=pieces.len()).rev().find(|&end| is_known_charge(&pieces[at..end].join("、"))).unwrap_or(at + 1);
        let name = clean_charge(&pieces[at..end].join("、"));
        if charges.iter().any(|other| canonical_charge(other) == canonical_charge(&name)) {
            return Err(format!("{name} stands twice"));
        }
        charges.push(name);
        at = end;
    }
    Ok(charges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_forms_say_the_same() {
        let long = Answer::parse("盗窃；第二百六十四条；有期徒刑一年六个月").unwrap();
        let short = Answer::parse("盗窃罪；264；1年6月").unwrap();
        assert_eq!(long, short);
        assert_eq!(long.to_string(), "盗窃；第二百六十四条；有期徒刑一年六个月");
        let two = Answer::parse("诈骗、盗窃；第266条、刑法第二百六十四条第一款；三年").unwrap();
        assert_eq!(two.key(), "盗窃、诈骗；第二百六十四条、第二百六十六条；有期徒刑三年");
        let drunk = Answer::parse("危险驾驶；133-1；拘役2个月").unwrap();
        assert_eq!(drunk.to_string(), "危险驾驶；第一百三十三条之一；拘役二个月");
    }

    #[test]
    fn names_that_hold_the_separator_stay_whole() {
        let answer = Answer::parse("走私、贩卖、运输、制造毒品、盗窃；347、264；十年").unwrap();
        assert_eq!(answer.charges, ["走私、贩卖、运输、制造毒品", "盗窃"]);
        let one = Answer::parse("贩卖毒品；347；七年").unwrap();
        assert!(one.charge_set().contains("走私、贩卖、运输、制造毒品"));
        assert_eq!(canonical_charge("[走私、贩卖、运输、制造]毒品"), "走私、贩卖、运输、制造毒品");
    }

    #[test]
    fn awkward_answers_are_refused() {
        for wrong in [
            "",
            "盗窃",
            "盗窃；264",
            "盗窃；264；一年；一年",
            "；264；一年",
            "盗窃、；264；一年",
            "盗窃、盗窃；264；一年",
            "贩卖毒品、运输毒品；347；一年",
            "盗窃；；一年",
            "盗窃；264、264；一年",
            "盗窃；第五百条；一年",
            "盗窃；二六四；一年",
            "盗窃；264；一年至三年",
            "盗窃，264，一年",
        ] {
            assert!(Answer::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Answer::parse("盗窃；不详；不详").is_ok());
        assert!(Answer::parse_complete("盗窃；264；不详").is_err());
    }
}
