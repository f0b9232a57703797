//! Checks the head of a document: whether it is a criminal judgment of the first instance against one person.

/// Bytes of the head that are searched for the kind and the number of the document. The court's name and the number
/// take fewer.
const HEAD: usize = 900;

/// Refuses every other document.
///
/// # Errors
/// The reason why the document is refused.
pub fn check(text: &str) -> Result<(), &'static str> {
    let head = upto(text, HEAD);
    let compact: String = head.chars().filter(|c| !c.is_whitespace()).collect();
    let early: String = compact.chars().take(120).collect();
    // A claim for damages may be joined to a criminal case (刑事附带民事判决书).
    if !early.contains("刑事") && (early.contains("民事") || early.contains("行政")) {
        return Err("it is no criminal judgment");
    }
    if early.contains("裁定书") {
        let review = text.contains("死刑") && (text.contains("核准") || text.contains("复核"));
        return Err(if review { "it reviews a death sentence" } else { "it is a ruling" });
    }
    if early.contains("决定书") || early.contains("调解书") {
        return Err("it is a decision");
    }
    match instance(&compact) {
        Some("first") => {}
        Some(other) => return Err(other),
        None if compact.contains("公诉机关") || compact.contains("自诉人") => {}
        None => return Err("it does not say that it is of the first instance"),
    }
    let opening: String = compact.chars().take(260).collect();
    if ["上诉人", "原审被告人", "抗诉机关", "原公诉机关", "申诉人"].iter().any(|word| opening.contains(word))
    {
        return Err("it is an appeal or a retrial");
    }
    if opening.contains("被告单位") {
        return Err("it accuses a company");
    }
    Ok(())
}

/// "first", or the reason why the document is refused, according to its number: （2015）临刑初字第10号.
fn instance(head: &str) -> Option<&'static str> {
    for (at, _) in head.match_indices('刑') {
        let after: String = head[at..].chars().skip(1).take(14).collect();
        let Some(end) = after.find('号') else { continue };
        let number = &after[..end];
        if !number.chars().any(|c| c.is_numeric() || "一二三四五六七八九十百〇○".contains(c)) {
            continue;
        }
        return Some(match number {
            number if number.contains('再') => "it is a retrial",
            number if number.contains('初') => "first",
            number if number.contains('终') => "it is an appeal",
            _ => "it is of another instance",
        });
    }
    None
}

/// The beginning of a text, at most `bytes` bytes long.
pub fn upto(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_instance_is_read() {
        let head = |number: &str, kind: &str| {
            format!("某县人民法院 刑 事 {kind} （2018）{number} 公诉机关某县人民检察院。被告人王某，男。")
        };
        assert_eq!(check(&head("某刑初字第12号", "判决书")), Ok(()));
        assert_eq!(check(&head("某0102刑初12号", "判决书")), Ok(()));
        assert!(check(&head("某刑终12号", "判决书")).unwrap_err().contains("appeal"));
        assert!(check(&head("某刑再1号", "判决书")).unwrap_err().contains("retrial"));
        assert!(check(&head("某刑初12号", "裁定书")).unwrap_err().contains("ruling"));
        assert!(check("某法院 民事判决书 （2018）某民初3号 原告甲").unwrap_err().contains("no criminal judgment"));
        assert!(check("随便什么文字").unwrap_err().contains("first instance"));
    }
}
