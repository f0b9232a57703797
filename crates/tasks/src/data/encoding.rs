//! Decodes a file's bytes into text.

use std::path::Path;

use crate::refusal::Refusal;

/// Decodes UTF-8, UTF-16 with a byte order mark, or GB18030. Returns the text and the name of the encoding.
///
/// # Errors
/// A binary file; text in another encoding, by the line of the first invalid byte.
pub(super) fn decode(path: &Path, bytes: Vec<u8>) -> Result<(String, &'static str), Refusal> {
    if let Some((encoding, mark)) = encoding_rs::Encoding::for_bom(&bytes) {
        let (text, wrong) = encoding.decode_without_bom_handling(&bytes[mark..]);
        if wrong {
            let problem = format!("it begins like {} and is not", encoding.name());
            return Err(Refusal::new(problem, "save it as UTF-8").in_file(path));
        }
        return Ok((text.into_owned(), encoding.name()));
    }
    let line_of = |bytes: &[u8], at: usize| bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        let hint = "give JSONL, JSON, CSV, Excel or Parquet";
        return Err(Refusal::new("a zero byte: the file is binary", hint).in_line(path, line_of(&bytes, at)));
    }
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok((text, "UTF-8")),
        Err(error) => error,
    };
    match encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(error.as_bytes()) {
        Some(text) => Ok((text.into_owned(), "GB18030")),
        None => {
            let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
            Err(Refusal::new("neither UTF-8 nor GB18030", "save it as UTF-8").in_line(path, line))
        }
    }
}
