//! Makes texts of models and clients safe for a terminal: nothing in them may move the cursor, change the direction of
//! text or hide.

/// A text on one line, at most `width` characters long. Invisible characters are shown by their codes.
pub(super) fn line(text: &str, width: usize) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: String =
        one_line.chars().map(|c| if unseen(c) { format!("<U+{:04X}>", c as u32) } else { c.into() }).collect();
    match shown.char_indices().nth(width) {
        None => shown,
        Some(_) => shown.chars().take(width - 1).chain(['…']).collect(),
    }
}

/// Whether a character is a control, a mark of direction, or has no width.
fn unseen(c: char) -> bool {
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
}
