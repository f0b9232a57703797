//! Chinese criminal judgments (刑事判决书) of the first instance with one defendant: facts, charges, sentence, articles.
//!
//! | file | what it reads |
//! |---|---|
//! | [`head`] | which kind of document, of which instance, against how many |
//! | [`sections`] | where facts, reasoning and verdict begin and end |
//! | [`verdict`] | the charges of the verdict, and the sentence for each and in the end |
//! | [`sentence`] | one sentence: kind, term, suspension, fine |
//! | [`defendant`] | what is kept of a defendant |
//! | [`amounts`] | terms and sums of money in Chinese and Arabic numerals |
//! | [`charge_list`] | the list's name for a charge |
//! | [`articles`] | the articles of the Criminal Law in the sentence that opens the verdict |
//!
//! What misleads a reader of such documents: older convictions in the head, the prosecutor's proposal, and statutes after the signature are full of terms and charges. So
//! charges and terms are read between 判决如下 and the end of the verdict, and nowhere else.
//!
//! It is not legal advice, and its labels say what a court decided, not what is just.

pub mod amounts;
pub mod articles;
pub mod charge_list;
pub mod defendant;
pub mod head;
pub mod sections;
pub mod sentence;
pub mod verdict;

use serde::Serialize;

use defendant::Defendant;
use sections::Sections;

/// What a document holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Extract {
    /// "full" or "refused".
    pub status: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// The defendant; none in a refused document.
    pub defendants: Vec<Defendant>,
    /// Articles of the Criminal Law that the verdict rests on, without their parts; rising.
    pub articles: Vec<u32>,
    /// Where its parts stand.
    pub sections: Sections,
    /// The document as a case to train on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<Case>,
}

/// A line of the records that the task `judgment` reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// What happened, without what anybody concluded from it.
    pub fact: String,
    /// Charges by the names of the list.
    pub charges: Vec<&'static str>,
    /// Articles of the offences, from 102 on.
    pub articles: Vec<u32>,
    /// Months behind bars; 0 for exemption, control and a fine alone, none for life and death.
    pub months: Option<u32>,
    /// Whether it is for life.
    pub life: bool,
    /// Whether it is death, suspended or not.
    pub death: bool,
}

/// Characters below which a fact tells nothing.
const SHORTEST_FACT: usize = 30;

/// Reads a document.
pub fn extract(text: &str) -> Extract {
    match read(text) {
        Ok(extract) => extract,
        Err((why, sections)) => Extract { status: "refused", why: Some(why), sections, ..Extract::default() },
    }
}

fn read(text: &str) -> Result<Extract, (&'static str, Sections)> {
    let nowhere = Sections::default();
    head::check(text).map_err(|why| (why, nowhere))?;
    let places = sections::find(text).ok_or(("it holds no verdict", nowhere))?;
    let sections = places.in_characters(text);
    let read = verdict::read(&text[places.decided.clone()]).map_err(|why| (why, sections))?;
    let articles = articles::cited(&text[..places.verdict.start]);
    let case = places.facts.clone().and_then(|facts| case(&text[facts], &read, &articles));
    Ok(Extract { status: "full", why: None, defendants: vec![read], articles, sections, case })
}

/// The document as a case; none for an acquittal, half a month, a charge that the list lacks or a fact of which nothing is left.
fn case(facts: &str, defendant: &Defendant, articles: &[u32]) -> Option<Case> {
    let sentence = &defendant.sentence;
    let fact = sections::without_conclusions(facts);
    let months = if sentence.kind == "管制" { 0.0 } else { sentence.months.unwrap_or(0.0) };
    let mut charges: Vec<&'static str> = Vec::new();
    for charged in &defendant.charges {
        let entry = charge_list::entry(&charged.charge)?;
        if !charges.contains(&entry) {
            charges.push(entry);
        }
    }
    if charges.is_empty() || months.fract() != 0.0 || fact.chars().count() < SHORTEST_FACT {
        return None;
    }
    let (life, death) = (sentence.kind == "无期徒刑", matches!(sentence.kind, "死刑" | "死缓"));
    Some(Case {
        fact,
        charges,
        articles: articles.iter().copied().filter(|&article| article > 101).collect(),
        months: (!life && !death).then_some(months as u32),
        life,
        death,
    })
}
