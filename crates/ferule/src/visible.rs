//! Makes texts of models, templates, files and hubs safe for a terminal: nothing in them may move the cursor, change
//! the direction of text or pretend to be another line.

use std::borrow::Cow;
use std::fmt::Write;

/// Writes a line to stderr, with everything in it [visible](text).
macro_rules! note {
    ($($argument:tt)*) => { eprintln!("{}", $crate::visible::text(&format!($($argument)*))) };
}
pub(crate) use note;

/// A text with its lines and tabs. Other controls and overrides of direction are shown by their codes, as `<U+001B>`.
pub fn text(text: &str) -> Cow<'_, str> {
    replaced(text, is_active, |c, shown| write!(shown, "<U+{:04X}>", c as u32))
}

/// JSON in which the same characters are written as escapes, so that it still says the same.
pub fn json(json: &str) -> Cow<'_, str> {
    replaced(json, is_active, |c, shown| write!(shown, "\\u{:04x}", c as u32))
}

/// A text on one line, at most `width` characters long. Invisible characters are shown by their codes too.
pub fn line(text: &str, width: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = replaced(&one_line, is_unseen, |c, shown| write!(shown, "<U+{:04X}>", c as u32));
    match shown.char_indices().nth(width) {
        None => shown.into_owned(),
        Some(_) => shown.chars().take(width - 1).chain(['…']).collect(),
    }
}

fn replaced(
    text: &str,
    chosen: impl Fn(char) -> bool,
    write: impl Fn(char, &mut String) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&chosen) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match chosen(c) {
            true => write(c, &mut shown).expect("a string takes everything"),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Whether a character does something to a terminal: a control other than line end and tab, or an embedding, override
/// or isolation of direction. All of them have four hexadecimal digits.
fn is_active(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether a character is a control, a mark of direction, or has no width.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}')
        || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
        || matches!(c, '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_reaches_the_terminal() {
        assert_eq!(line("a\u{1b}[2J\n b\u{202e}c\u{200b}", 40), "a<U+001B>[2J b<U+202E>c<U+200B>");
        assert_eq!(line("戒尺是平的", 4), "戒尺是…");
        assert_eq!(line("戒尺是平", 4), "戒尺是平");
    }

    #[test]
    fn nothing_active_reaches_the_terminal() {
        assert_eq!(text("a\tb\nc\r\u{9b}2J\u{7f}\u{2066}"), "a\tb\nc<U+000D><U+009B>2J<U+007F><U+2066>");
        assert!(matches!(text("戒尺\n👩\u{200d}🏫"), Cow::Borrowed(_)));
        let value = serde_json::json!({ "a\u{9b}": "b\u{202e}\u{7f}\u{1b}" });
        let shown = json(&value.to_string()).into_owned();
        assert!(shown.is_ascii() && serde_json::from_str::<serde_json::Value>(&shown).unwrap() == value, "{shown}");
    }
}
