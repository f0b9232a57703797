//! Texts for pretraining: files and folders of `.txt`, `.md` and `.jsonl`, in UTF-8, UTF-16 with a byte order mark, or
//! GB18030.
//!
//! A `.txt` or `.md` file is one text. In a `.jsonl` file, the field `text` of each line is one. A text's id depends on
//! its content alone, so neither the names nor the order of files change what is trained on. [`Texts`] counts
//! everything that was left out.
//!
//! Read next: [`super::held_out`], which finds held-out cases in texts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::encoding::decode;
use super::{file, json};
use crate::partition;
use crate::refusal::Refusal;
use serde_json::Value;

/// Endings of files that hold texts.
const ENDINGS: [&str; 3] = ["txt", "md", "jsonl"];

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// An id from the content.
    pub id: String,
    /// The text as it is in its file.
    pub text: String,
}

/// The texts of some files, and counts of what was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// The texts, sorted by id.
    pub texts: Vec<Text>,
    /// Texts that repeat an earlier one.
    pub repeated: usize,
    /// Texts that are empty or only white space.
    pub blank: usize,
    /// Files in folders that have another ending.
    pub passed_over: usize,
}

/// Reads files, and folders with all their subfolders.
///
/// # Errors
/// A path that cannot be read, a named file with another ending, the line where a file cannot be decoded, or no text at
/// all.
pub fn read(paths: &[PathBuf]) -> Result<Texts, Refusal> {
    let mut found = Texts::default();
    let mut seen = HashSet::new();
    for path in paths {
        for file in files(path, &mut found.passed_over)? {
            for text in texts_of(&file)? {
                let id = partition::id(&text);
                if text.trim().is_empty() {
                    found.blank += 1;
                } else if seen.insert(id.clone()) {
                    found.texts.push(Text { id, text });
                } else {
                    found.repeated += 1;
                }
            }
        }
    }
    if found.texts.is_empty() {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        let hint = "give .txt or .md files, or .jsonl with `text` on every line";
        return Err(Refusal::new("there is no text", hint).in_file(path));
    }
    found.texts.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

/// The file itself, or all files below a folder. Links are not followed.
fn files(path: &Path, passed_over: &mut usize) -> Result<Vec<PathBuf>, Refusal> {
    let failed = |error| unreadable(path, error);
    if !std::fs::metadata(path).map_err(failed)?.is_dir() {
        if !is_text(path) {
            let hint = "give it the ending of what it holds";
            return Err(Refusal::new("it is neither .txt nor .md nor .jsonl", hint).in_file(path));
        }
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            found.extend(files(&entry.path(), passed_over)?);
        } else if kind.is_file() && is_text(&entry.path()) {
            found.push(entry.path());
        } else {
            *passed_over += 1;
        }
    }
    found.sort();
    Ok(found)
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

/// The text of one file, in any of the encodings listed at the top of this module.
///
/// # Errors
/// A file that cannot be read, or with another encoding.
pub fn read_text(path: &Path) -> Result<String, Refusal> {
    let bytes = file::read(path).map_err(|error| unreadable(path, error))?;
    Ok(decode(path, bytes)?.0)
}

/// Decodes one line of a file in UTF-8 or GB18030; none if it is neither.
pub fn decode_line(bytes: &[u8]) -> Option<Cow<'_, str>> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(_) => encoding_rs::GB18030.decode_without_bom_handling_and_without_replacement(bytes),
    }
}

fn texts_of(path: &Path) -> Result<Vec<String>, Refusal> {
    let text = read_text(path)?;
    if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("jsonl")) {
        return Ok(vec![text]);
    }
    let mut texts = Vec::new();
    json::lines(path, &text, &mut |_, mut row| match row.remove("text") {
        Some(Value::String(text)) => {
            texts.push(text);
            Ok(())
        }
        _ => Err(Refusal::new("there is no `text`", "every line is one JSON object with its text in `text`")),
    })?;
    Ok(texts)
}

fn unreadable(path: &Path, error: std::io::Error) -> Refusal {
    Refusal::new(error.to_string(), "give .txt, .md or .jsonl files, or folders of them").in_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_folder_is_read_whole_whatever_its_files_are_called() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (gb, _, _) = encoding_rs::GB18030.encode("第二百六十四条　盗窃公私财物");
        write(here.path(), "a/law.md", &gb);
        write(here.path(), "b.jsonl", b"{\"text\": \"one\"}\n\n{\"text\": \" \"}\n{\"text\": \"two\", \"n\": 1}\n");
        write(here.path(), "c.TXT", b"one");
        write(here.path(), "d.pdf", b"%PDF");
        let found = read(&[here.path().to_path_buf()]).unwrap();
        assert_eq!((found.texts.len(), found.repeated, found.blank, found.passed_over), (3, 1, 1, 1));
        assert!(found.texts.iter().any(|text| text.text == "第二百六十四条　盗窃公私财物"));
        write(there.path(), "1.txt", b"two");
        write(there.path(), "2.txt", b"one");
        write(there.path(), "3.md", "第二百六十四条　盗窃公私财物".as_bytes());
        assert_eq!(read(&[there.path().to_path_buf()]).unwrap().texts, found.texts);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], part: &str| {
            write(folder.path(), name, bytes);
            let error = read(&[folder.path().join(name)]).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        };
        check("a.jsonl", b"{\"text\": \"a\"}\n{\"txt\": \"b\"}", "a.jsonl:2: there is no `text`");
        check("b.txt", b"one\n\xff\xff", "b.txt:2: neither UTF-8 nor GB18030");
        check("c.pdf", b"%PDF", "neither .txt nor .md nor .jsonl");
        check("d.md", b" \n", "no text");
        assert!(read(&[folder.path().join("missing")]).unwrap_err().to_string().contains("missing"));
    }
}
