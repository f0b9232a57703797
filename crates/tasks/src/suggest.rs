//! "Did you mean …?": the nearest known name to one that is not known.
//!
//! It only suggests; nothing is ever accepted under a name that was not written.

/// The known name nearest to `unknown`, if one is near enough to be meant.
///
/// Near is at most a third of the longer name's characters in insertions, deletions, replacements and swaps of
/// neighbours; case and the difference between `-`, `_` and a blank do not count.
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
        .map(|name| (edits(&plain, &self::plain(name)), name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance * 3 <= plain.len().max(name.chars().count())).then_some(name)
}

/// `did you mean "x"?`, or else the whole list: the words after `hint:`.
pub fn hint<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(unknown, known.clone()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None => format!("known are {}", known.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// The names of the fields of a struct that derives `Deserialize`, as serde knows them (renames applied).
///
/// One source for "known keys": the struct itself. Empty for types that are not structs, and for flattened ones.
pub fn fields_of<T: serde::de::DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // The probe hands out no value, so the result is always an error; only the names matter.
    let _ = T::deserialize(FieldProbe { names: &mut names });
    names
}

struct FieldProbe<'a> {
    names: &'a mut &'static [&'static str],
}

impl<'de> serde::Deserializer<'de> for FieldProbe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only names are asked for"))
    }

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        *self.names = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn plain(name: &str) -> Vec<char> {
    name.chars().flat_map(char::to_lowercase).map(|c| if c == '-' || c == ' ' { '_' } else { c }).collect()
}

/// Optimal string alignment distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_the_textbook_ones() {
        let d = |a: &str, b: &str| edits(&plain(a), &plain(b));
        assert_eq!(d("kitten", "sitting"), 3);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("top-p", "top_p"), 0);
    }

    #[test]
    fn fields_come_from_the_struct() {
        #[derive(serde::Deserialize)]
        #[allow(dead_code)]
        struct Keys {
            first: u8,
            #[serde(rename = "2nd", default)]
            second: Option<String>,
        }
        assert_eq!(fields_of::<Keys>(), ["first", "2nd"]);
        assert!(fields_of::<u8>().is_empty());
    }

    #[test]
    fn far_names_are_listed_instead() {
        assert_eq!(hint("wieght", ["weight", "gate"]), "did you mean \"weight\"?");
        assert_eq!(hint("banana", ["weight", "gate"]), "known are weight, gate");
    }
}
