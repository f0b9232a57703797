//! Real records: lines of cases, in this project's format or in CAIL2018's.
//!
//! A line with `meta` is in CAIL2018's format:
//!
//! ```text
//! {"fact", "charges": […], "articles"?, "months"?, "life"?, "death"?}
//! {"fact", "meta": {"accusation", "relevant_articles",
//!                   "term_of_imprisonment": {"imprisonment", "life_imprisonment", "death_penalty"}}}
//! ```
//!
//! 0 months mean exemption or no custodial term. A part that a source omits stays unknown; nothing is guessed. An
//! invalid line is refused with its file, line and field, and never skipped.

use std::path::Path;

use serde_json::{Map, Value};

use super::answer::Answer;
use super::article::Article;
use super::charge::clean_charge;
use super::penalty::Penalty;
use crate::data::file;
use crate::refusal::Refusal;

/// One case with what its source states.
#[derive(Clone, Debug, PartialEq)]
pub struct RealCase {
    /// The facts.
    pub fact: String,
    /// Charges, articles and penalty, as far as they are stated.
    pub answer: Answer,
    /// File and line, `cases.jsonl:12`.
    pub origin: String,
}

/// All cases of a file.
///
/// # Errors
/// A file that cannot be read as UTF-8, by the key `files`; the first invalid line, by its number.
pub fn read(path: &Path) -> Result<Vec<RealCase>, Refusal> {
    let text = file::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::InvalidData => "cases are read as UTF-8; convert the file (iconv -f GB18030 -t UTF-8)",
            _ => "give a file of JSON lines with `fact` and `charges`, or CAIL2018's",
        };
        Refusal::new(error.to_string(), hint).in_file(path).in_key("files")
    })?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| parse(line, &At { path, line: index + 1 }))
        .collect()
}

/// A place in a file.
struct At<'a> {
    path: &'a Path,
    line: usize,
}

impl At<'_> {
    fn error(&self, field: &str, problem: impl Into<String>, hint: &str) -> Refusal {
        Refusal::new(problem, hint).in_key(field).in_line(self.path, self.line)
    }
}

fn parse(line: &str, at: &At) -> Result<RealCase, Refusal> {
    let value: Value = serde_json::from_str(line)
        .map_err(|error| at.error("line", format!("not JSON: {error}"), "each line is one JSON object"))?;
    let object =
        value.as_object().ok_or_else(|| at.error("line", "not a JSON object", "each line is one JSON object"))?;
    let fact =
        object.get("fact").and_then(Value::as_str).map(str::trim).filter(|fact| !fact.is_empty()).ok_or_else(|| {
            at.error("fact", "missing, empty or not a text", "`fact` is what the court found, as text")
        })?;
    let answer = match object.get("meta") {
        Some(meta) => {
            let meta = meta.as_object().ok_or_else(|| at.error("meta", "not an object", "as in CAIL2018's files"))?;
            cail(meta, at)?
        }
        None => own(object, at)?,
    };
    let name = at.path.file_name().map_or_else(|| at.path.display().to_string(), |n| n.to_string_lossy().into_owned());
    Ok(RealCase { fact: fact.to_string(), answer, origin: format!("{name}:{}", at.line) })
}

fn own(object: &Map<String, Value>, at: &At) -> Result<Answer, Refusal> {
    let penalty = penalty(object, ["months", "life", "death"], "", at)?;
    Ok(Answer {
        charges: charges(object.get("charges"), "charges", at)?,
        articles: articles(object.get("articles"), "articles", at)?,
        penalty,
    })
}

fn cail(meta: &Map<String, Value>, at: &At) -> Result<Answer, Refusal> {
    let term = meta
        .get("term_of_imprisonment")
        .and_then(Value::as_object)
        .ok_or_else(|| at.error("meta.term_of_imprisonment", "missing or not an object", "as in CAIL2018's files"))?;
    let keys = ["imprisonment", "life_imprisonment", "death_penalty"];
    Ok(Answer {
        charges: charges(meta.get("accusation"), "meta.accusation", at)?,
        articles: articles(meta.get("relevant_articles"), "meta.relevant_articles", at)?,
        penalty: penalty(term, keys, "meta.term_of_imprisonment.", at)?,
    })
}

fn charges(value: Option<&Value>, field: &str, at: &At) -> Result<Vec<String>, Refusal> {
    let hint = "a non-empty list of names, such as [\"盗窃\"]";
    let list = value.and_then(Value::as_array).ok_or_else(|| at.error(field, "missing or not a list", hint))?;
    let mut names = Vec::new();
    for entry in list {
        let name = entry.as_str().map(clean_charge).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| at.error(field, format!("{entry} is not a name"), hint))?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        true => Err(at.error(field, "empty", hint)),
        false => Ok(names),
    }
}

fn articles(value: Option<&Value>, field: &str, at: &At) -> Result<Option<Vec<Article>>, Refusal> {
    let hint = "a list of article numbers, such as [264], or null where they are not known";
    let list = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_array().ok_or_else(|| at.error(field, "not a list", hint))?,
    };
    let mut articles = Vec::new();
    for entry in list {
        let text = entry.as_str().map_or_else(|| entry.to_string(), str::to_string);
        let article = Article::parse(&text).map_err(|message| at.error(field, message, hint))?;
        if !articles.contains(&article) {
            articles.push(article);
        }
    }
    Ok((!articles.is_empty()).then_some(articles))
}

fn penalty(
    object: &Map<String, Value>,
    [months, life, death]: [&str; 3],
    prefix: &str,
    at: &At,
) -> Result<Option<Penalty>, Refusal> {
    let flag = |key: &str| match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => {
            Err(at.error(&format!("{prefix}{key}"), format!("{other} is not true or false"), "true or false"))
        }
    };
    if flag(death)? {
        return Ok(Some(Penalty::Death));
    }
    if flag(life)? {
        return Ok(Some(Penalty::Life));
    }
    match object.get(months) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(term) if term <= 300 => Ok(Some(Penalty::of_months(term as u32))),
            _ => Err(at.error(
                &format!("{prefix}{months}"),
                format!("{value} is not a term"),
                "months of imprisonment from 0 to 300, or null where unknown",
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Result<RealCase, String> {
        let path = Path::new("some/cases.jsonl");
        parse(line, &At { path, line: 7 }).map_err(|error| error.to_string())
    }

    #[test]
    fn both_formats_are_read() {
        let own = one(
            r#"{"fact":"被告人张某窃得手机。","charges":["盗窃"],"articles":[264],"months":8,"life":false,"death":false}"#,
        );
        let cail = one(
            r#"{"fact":"被告人张某窃得手机。","meta":{"accusation":["[盗窃]"],"relevant_articles":[264],"criminals":["张某"],
            "term_of_imprisonment":{"death_penalty":false,"imprisonment":8,"life_imprisonment":false}}}"#,
        );
        assert_eq!(own, cail);
        let case = own.unwrap();
        assert_eq!(case.answer.to_string(), "盗窃；第二百六十四条；有期徒刑八个月");
        assert_eq!(case.origin, "cases.jsonl:7");
    }

    #[test]
    fn what_is_not_stated_stays_unknown() {
        let case =
            one(r#"{"fact":"甲","charges":["走私、贩卖、运输、制造毒品","盗窃"],"articles":null,"months":null}"#)
                .unwrap();
        assert_eq!(case.answer.to_string(), "走私、贩卖、运输、制造毒品、盗窃；不详；不详");
        let life = one(r#"{"fact":"甲","charges":["抢劫"],"months":null,"life":true}"#).unwrap();
        assert_eq!(life.answer.penalty, Some(Penalty::Life));
        let none = one(r#"{"fact":"甲","charges":["抢劫"],"months":0}"#).unwrap();
        assert_eq!(none.answer.penalty, Some(Penalty::Exempt));
    }

    #[test]
    fn bad_lines_name_file_line_field_and_mend() {
        for (line, field) in [
            ("{", "line"),
            ("[]", "line"),
            (r#"{"charges":["盗窃"]}"#, "fact"),
            (r#"{"fact":" ","charges":["盗窃"]}"#, "fact"),
            (r#"{"fact":"甲"}"#, "charges"),
            (r#"{"fact":"甲","charges":[]}"#, "charges"),
            (r#"{"fact":"甲","charges":[1]}"#, "charges"),
            (r#"{"fact":"甲","charges":["盗窃"],"articles":[900]}"#, "articles"),
            (r#"{"fact":"甲","charges":["盗窃"],"months":-1}"#, "months"),
            (r#"{"fact":"甲","charges":["盗窃"],"life":"yes"}"#, "life"),
            (r#"{"fact":"甲","meta":{"accusation":["盗窃"]}}"#, "meta.term_of_imprisonment"),
        ] {
            let message = one(line).unwrap_err();
            assert!(message.starts_with(&format!("some/cases.jsonl:7: {field}: ")), "{message}");
            assert!(message.contains("\nhint: "), "{message}");
        }
    }
}
