//! Chinese criminal judgments (刑事判决书) of the first instance with one defendant: facts, charges, sentence, articles.
//!
//! | file | what it finds |
//! |---|---|
//! | [`head`] | the kind of document, its instance, and the number of defendants |
//! | [`sections`] | the beginning and end of facts, reasoning and verdict |
//! | [`verdict`] | the charges of the verdict, the sentence for each, and the sentence to be served |
//! | [`sentence`] | one sentence: kind, term, suspension, fine |
//! | [`defendant`] | the data that are kept of a defendant |
//! | [`amounts`] | terms and sums of money in Chinese and Arabic numerals |
//! | [`charge_list`] | the list's name for a charge |
//! | [`articles`] | the articles of the Criminal Law in the sentence that opens the verdict |
//!
//! Other parts of such documents can mislead: older convictions in the head, the prosecutor's proposal, and statutes
//! after the signature are full of terms and charges. So charges and terms are taken only from the text between 判决如下
//! and the end of the verdict.
//!
//! This is not legal advice. The labels say what a court decided, not what is just.

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

/// The content of a document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Extract {
    /// "full" or "refused".
    pub status: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// The defendant; none in a refused document.
    pub defendants: Vec<Defendant>,
    /// Articles of the Criminal Law that the verdict cites, without paragraphs, in increasing order.
    pub articles: Vec<u32>,
    /// The positions of its sections.
    pub sections: Sections,
    /// The document as a case to train on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub case: Option<Case>,
}

/// A line of the records that the task `judgment` reads.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Case {
    /// The facts, without anybody's conclusions from them.
    pub fact: String,
    /// The charges, by their names in the list.
    pub charges: Vec<&'static str>,
    /// Articles of the offences, from 102 on.
    pub articles: Vec<u32>,
    /// Months of imprisonment or detention; 0 for exemption, control and a fine alone; none for life and death.
    pub months: Option<u32>,
    /// Whether the sentence is for life.
    pub life: bool,
    /// Whether the sentence is death, suspended or not.
    pub death: bool,
}

/// The shortest facts that are kept, in characters; shorter ones say too little.
const SHORTEST_FACT: usize = 30;

/// Extracts a document.
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

/// The document as a case; none for an acquittal, a term with half a month, a charge that is not in the list, or facts
/// that are too short without their conclusions.
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
