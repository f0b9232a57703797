//! "Did you mean …?": suggests the nearest known name for an unknown one.
//!
//! It only suggests; a wrong name is never accepted.

use strsim::osa_distance;

/// Names in a list, and characters of a name there.
const LISTED: usize = 40;
const LONGEST: usize = 60;

/// The known name nearest to `unknown`, if one is near enough.
///
/// A name is near if the insertions, deletions, replacements and swaps of neighbours number at most a third of the
/// longer name's characters. Case and the difference between `-`, `_` and a blank do not count.
///
/// ```
/// use tasks::suggest::nearest;
/// assert_eq!(nearest("tolerence", ["weight", "tolerance"]), Some("tolerance"));
/// assert_eq!(nearest("colour", ["weight", "tolerance"]), None);
/// ```
pub fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = plain(unknown);
    let (distance, name) = known
        .into_iter()
        .map(|name| (osa_distance(&plain, &self::plain(name)), name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= plain.chars().count().max(name.chars().count())).then_some(name)
}

/// The text of a hint: `did you mean "x"?`, or the whole list if no name is near.
pub fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(unknown, known.clone()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known are {}", listed(known)),
    }
}

/// Names for a message: the first [`LISTED`], and how many follow. Long ones are cut.
pub fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let cut = |name: &str| match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_string(),
    };
    let shown: Vec<String> = names.by_ref().take(LISTED).map(cut).collect();
    match names.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The name in lower case, with `_` in place of `-` and blanks.
fn plain(name: &str) -> String {
    name.to_lowercase().replace(['-', ' '], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_dashes_and_swapped_neighbours_do_not_matter_much() {
        assert_eq!(nearest("top-p", ["top_k", "top_p"]), Some("top_p"));
        assert_eq!(nearest("Gaet", ["weight", "gate"]), Some("gate"));
        assert_eq!(nearest("", ["weight"]), None);
    }

    #[test]
    fn far_names_are_listed_instead() {
        assert_eq!(hint("wieght", ["weight", "gate"]), "did you mean \"weight\"?");
        assert_eq!(hint("banana", ["weight", "gate"]), "known are weight, gate");
        let names: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        assert!(listed(names.iter().map(String::as_str)).ends_with(", 38, 39 and 960 more"));
        assert_eq!(listed(["三".repeat(61).as_str()]), "三".repeat(60) + "…");
    }
}
