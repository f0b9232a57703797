//! Finds a charge's entry in the list of charges.
//!
//! A verdict names only the parts of a selective charge (选择性罪名) that apply, such as 销售假药 of 生产、销售假药. Records for
//! training use the list's names.

use std::sync::LazyLock;

use crate::judgment::charge::canonical_charge;

static ENTRIES: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("../../../data/judgment/charges.txt").lines().map(str::trim).collect());

/// The entry of the list: the charge itself, or the shortest selective charge that contains it; none for newer
/// offences.
pub fn entry(charge: &str) -> Option<&'static str> {
    let canonical = canonical_charge(charge);
    let same = ENTRIES.iter().find(|entry| **entry == charge || **entry == canonical);
    same.or_else(|| ENTRIES.iter().filter(|entry| is_part(charge, entry)).min_by_key(|entry| entry.len())).copied()
}

/// Whether a charge begins where a piece of the entry begins, ends where a piece ends, and otherwise only omits
/// characters.
fn is_part(charge: &str, entry: &str) -> bool {
    let last = charge.chars().next_back();
    if charge.chars().count() < 2
        || !entry.contains('、')
        || !entry.split('、').any(|piece| piece.chars().next_back() == last)
    {
        return false;
    }
    let begins = entry.match_indices('、').map(|(at, mark)| at + mark.len());
    std::iter::once(0).chain(begins).any(|begin| {
        let mut left = entry[begin..].chars();
        entry[begin..].chars().next() == charge.chars().next() && charge.chars().all(|c| left.any(|other| other == c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_selective_charges_find_their_entry() {
        for (charge, expected) in [
            ("盗窃", Some("盗窃")),
            ("贩卖毒品", Some("走私、贩卖、运输、制造毒品")),
            ("销售假药", Some("生产、销售假药")),
            ("非法持有枪支", Some("非法持有、私藏枪支、弹药")),
            ("包庇", Some("窝藏、包庇")),
            ("非法买卖枪支", Some("非法制造、买卖、运输、邮寄、储存枪支、弹药、爆炸物")),
            // Another offence whose words happen to occur in another entry.
            ("骗取出口退税", None),
            ("虚假诉讼", None),
            ("", None),
        ] {
            assert_eq!(entry(charge), expected, "{charge}");
        }
    }
}
