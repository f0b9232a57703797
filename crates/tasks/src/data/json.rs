//! Rows from JSON: one object per line, or one list of objects.

use std::fmt;
use std::path::Path;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::Value;

use super::row::{Each, Row};
use crate::refusal::Refusal;

/// Gives the rows with their line numbers.
///
/// # Errors
/// The first line that is not an object, or that `each` refuses.
pub(super) fn lines(path: &Path, text: &str, each: &mut Each) -> Result<(), Refusal> {
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let bad = |problem: String| Refusal::new(problem, "every line is one JSON object").in_line(path, number);
        let row = match serde_json::from_str(line) {
            Ok(Value::Object(row)) => row,
            Ok(_) => return Err(bad("not an object".into())),
            Err(error) => return Err(bad(format!("no JSON: {error}"))),
        };
        each(number, row).map_err(|refusal| refusal.in_line(path, number))?;
    }
    Ok(())
}

/// Gives the rows with their index, counted from 1.
///
/// # Errors
/// The line where the text is not a list of objects, or the first row that `each` refuses.
pub(super) fn list(path: &Path, text: &str, each: &mut Each) -> Result<(), Refusal> {
    let mut refusal = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_seq(List { each, refusal: &mut refusal }).and_then(|()| json.end());
    match (refusal, read) {
        (Some(refusal), _) => Err(refusal.in_file(path)),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => {
            let hint = "mend the line, or write one object a line";
            Err(Refusal::new(format!("no list of JSON objects: {error}"), hint).in_line(path, error.line()))
        }
    }
}

/// Hands over the elements of a list one by one, so that the limits hold before the whole list is in memory.
struct List<'a, 'b> {
    each: &'a mut Each<'b>,
    refusal: &'a mut Option<Refusal>,
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(row) = list.next_element::<Row>()? {
            index += 1;
            if let Err(refusal) = (self.each)(index, row) {
                *self.refusal = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
