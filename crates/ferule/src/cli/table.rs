//! Tables in plain text: columns are as wide as their widest cell, with two blanks between them.

/// The rows as lines. The columns in `left` are aligned to the left, the others to the right. No line ends in blanks.
pub fn aligned(rows: &[Vec<String>], left: &[usize]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().map(|row| row.get(column).map_or(0, |cell| columns(cell))).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            let blanks = " ".repeat(width - columns(cell));
            if left.contains(&column) { format!("{cell}{blanks}") } else { format!("{blanks}{cell}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// The width of a text in columns of a terminal: two for a wide character.
fn columns(text: &str) -> usize {
    let is_wide = |c: char| {
        matches!(c, '\u{1100}'..='\u{115f}' | '\u{2e80}'..='\u{a4cf}' | '\u{ac00}'..='\u{d7a3}' | '\u{f900}'..='\u{faff}')
            || matches!(c, '\u{ff00}'..='\u{ff60}')
    };
    text.chars().map(|c| if is_wide(c) { 2 } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = [["a", "10", ""], ["阶段", "9", "x"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(aligned(&rows, &[0, 2]), "a     10\n阶段   9  x\n");
    }
}
