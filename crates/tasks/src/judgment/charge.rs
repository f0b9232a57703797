//! The canonical name of a charge (罪名), by which charges are compared.

/// Forms of a selective charge (选择性罪名) that judgments use, and their entries in CAIL2018's list.
pub(super) const SELECTIVE: [(&str, &str); 8] = [
    ("贩卖毒品", "走私、贩卖、运输、制造毒品"),
    ("运输毒品", "走私、贩卖、运输、制造毒品"),
    ("贩卖、运输毒品", "走私、贩卖、运输、制造毒品"),
    ("走私毒品", "走私、贩卖、运输、制造毒品"),
    ("制造毒品", "走私、贩卖、运输、制造毒品"),
    ("掩饰、隐瞒犯罪所得", "掩饰、隐瞒犯罪所得、犯罪所得收益"),
    ("虚开增值税专用发票", "虚开增值税专用发票、用于骗取出口退税、抵扣税款发票"),
    ("容留卖淫", "组织、强迫、引诱、容留、介绍卖淫"),
];

/// A charge's name without 罪 and CAIL's brackets. A selective form is replaced by its entry in the list.
pub fn canonical_charge(name: &str) -> String {
    let clean = clean_charge(name);
    match SELECTIVE.iter().find(|(form, _)| *form == clean) {
        Some((_, entry)) => entry.to_string(),
        None => clean,
    }
}

/// A charge's name without 罪 and CAIL's brackets.
pub fn clean_charge(name: &str) -> String {
    let name: String = name.trim().chars().filter(|c| !matches!(c, '[' | ']')).collect();
    name.strip_suffix('罪').map(str::to_string).unwrap_or(name)
}
