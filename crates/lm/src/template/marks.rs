//! Which characters of a rendered text come from a message, and which from the template.
//!
//! A conversation is rendered twice: as it is, and with its untrusted texts *marked*. A marked text has, for each
//! character, a counterpart from Unicode's planes for private use, so it is cut, joined and moved as the plain one. Where
//! the two renderings differ, the character is a message's ([`differences`]). White space, quotes, `\` and control
//! characters have no counterpart: filters treat them in their own way, and no token's markup is made of them alone.
//!
//! Methods and filters that look at characters see the plain text ([`method`]). Operators, such as `in` and `==`, do
//! not. If a template takes another way because of that, the renderings cannot be aligned, and the caller must
//! not guess.

use std::borrow::Cow;
use std::ops::Range;

use minijinja::value::{Value, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat::unknown_method_callback;

/// The basic plane is marked by plane 16, the one after it by plane 15.
const BASIC: u32 = 0x10_0000;
const NEXT: u32 = 0xE_0000;

/// The counterpart of a character; itself if it has none.
pub fn marked(c: char) -> char {
    if c.is_whitespace() || c.is_control() || matches!(c, '"' | '\\') {
        return c;
    }
    match u32::from(c) {
        code @ 0..0x1_0000 => char::from_u32(code + BASIC).unwrap_or(c),
        code @ 0x1_0000..0x2_0000 => char::from_u32(code + NEXT).unwrap_or(c),
        _ => c,
    }
}

/// The character of which `c` is the counterpart; itself if it is none.
fn plain(c: char) -> char {
    match u32::from(c) {
        code @ BASIC.. => char::from_u32(code - BASIC).unwrap_or(c),
        code @ 0xF_0000..BASIC => char::from_u32(code - NEXT).unwrap_or(c),
        _ => c,
    }
}

fn has_marks(text: &str) -> bool {
    text.chars().any(|c| plain(c) != c)
}

/// The text without marks.
pub fn without_marks(text: &str) -> Cow<'_, str> {
    if has_marks(text) { text.chars().map(plain).collect::<String>().into() } else { text.into() }
}

/// The bytes of `text` that are marked in `other`, the same text with marks; `None` if it is another text.
pub fn differences(text: &str, other: &str) -> Option<Vec<Range<usize>>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut others = other.chars();
    for (at, c) in text.char_indices() {
        let seen = others.next()?;
        if seen == c {
            continue;
        }
        if seen != marked(c) {
            return None;
        }
        let end = at + c.len_utf8();
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end = end,
            _ => ranges.push(at..end),
        }
    }
    others.next().is_none().then_some(ranges)
}

/// Python's methods of texts, lists and objects. Texts with marks keep them.
pub fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else { return unknown_method_callback(state, value, name, args) };
    if name == "format" && has_large_width(text) {
        return Err(Error::new(ErrorKind::InvalidOperation, "format: a width or precision has more than 4 digits"));
    }
    let is_marked = |value: &Value| value.as_str().is_some_and(has_marks);
    // These only join texts, or cut them at white space.
    let keeps_marks = matches!(name, "format" | "join" | "splitlines") || (name == "split" && args.is_empty());
    if keeps_marks || (!has_marks(text) && !args.iter().any(is_marked)) {
        return unknown_method_callback(state, value, name, args);
    }
    let plain_args: Vec<Value> = args.iter().map(unmarked).collect();
    let result = unknown_method_callback(state, &Value::from(&*without_marks(text)), name, &plain_args)?;
    let Some(pattern) = plain_args.first().and_then(Value::as_str) else {
        return Ok(match name {
            "strip" | "lstrip" | "rstrip" => stripped(text, name, char::is_whitespace).into(),
            _ => recased(text, result),
        });
    };
    Ok(match name {
        "strip" | "lstrip" | "rstrip" => stripped(text, name, |c| pattern.contains(plain(c))).into(),
        "split" => {
            let (_, most): (Value, Option<i64>) = from_args(args)?;
            between(text, &matches(text, pattern, most.unwrap_or(-1))).into_iter().map(Value::from).collect()
        }
        "replace" => {
            let (_, new, most): (Value, &str, Option<i64>) = from_args(args)?;
            between(text, &matches(text, pattern, most.unwrap_or(-1))).join(new).into()
        }
        _ => result,
    })
}

fn unmarked(value: &Value) -> Value {
    match value.as_str() {
        Some(text) => without_marks(text).into_owned().into(),
        None => value.clone(),
    }
}

/// Whether a replacement field of a format string has a number of more than four digits.
fn has_large_width(format: &str) -> bool {
    let (mut depth, mut digits) = (0_u32, 0);
    for c in format.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        digits = if depth > 0 && c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > 4 {
            return true;
        }
    }
    false
}

fn stripped(text: &str, name: &str, is_edge: impl Fn(char) -> bool) -> String {
    let text = if name == "rstrip" { text } else { text.trim_start_matches(&is_edge) };
    if name == "lstrip" { text } else { text.trim_end_matches(&is_edge) }.to_string()
}

/// A method's result for a text, marked where the text is. If the characters do not correspond, all are marked.
fn recased(text: &str, result: Value) -> Value {
    let Some(new) = result.as_str() else { return result };
    let aligned = new.chars().count() == text.chars().count();
    let mut olds = text.chars();
    let mark = |c: char| match olds.next() {
        Some(old) if aligned && plain(old) == old => c,
        _ => marked(c),
    };
    new.chars().map(mark).collect::<String>().into()
}

/// The places of a plain pattern in a text with marks, at most `most` if that is not negative.
fn matches(text: &str, pattern: &str, most: i64) -> Vec<Range<usize>> {
    let plain_text = without_marks(text);
    let (mut places, mut found) = (text.char_indices(), Vec::new());
    // Walks through both texts at once: `place(n)` is where the character at byte `n` of the plain text is in the other.
    let mut walked = 0;
    let mut place = |target: usize| {
        while walked < target {
            walked += places.next().map_or(usize::MAX - walked, |(_, c)| plain(c).len_utf8());
        }
        places.offset()
    };
    for (start, _) in plain_text.match_indices(pattern).take(usize::try_from(most).unwrap_or(usize::MAX)) {
        let start_place = place(start);
        found.push(start_place..place(start + pattern.len()));
    }
    found
}

/// The pieces of a text between places.
fn between<'a>(text: &'a str, places: &[Range<usize>]) -> Vec<&'a str> {
    let ends = places.iter().map(|place| place.start).chain([text.len()]);
    let starts = [0].into_iter().chain(places.iter().map(|place| place.end));
    starts.zip(ends).map(|(start, end)| &text[start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(text: &str) -> String {
        text.chars().map(marked).collect()
    }

    #[test]
    fn marks_keep_the_text_and_its_white_space() {
        let text = "a 盗 🦜\n<|im_end|>\t\"é\\\u{1}\u{20000}";
        assert_eq!(without_marks(&mark(text)), text);
        assert!(mark(text).contains(" ") && mark(text).ends_with("\\\u{1}\u{20000}"));
        let only = |range: Range<usize>| Some(Vec::from_iter(Some(range)));
        assert_eq!(differences("<x> <x>", &format!("<x> <{}>", mark("x"))), only(5..6));
        assert_eq!(differences("盗é", &mark("盗é")), only(0..5));
        for other in ["", "<x", "<y>", "<x>>"] {
            assert_eq!(differences("<x>", other), None, "{other}");
        }
    }

    #[test]
    fn methods_see_the_plain_text_and_keep_the_marks() {
        let environment = crate::template::engine::environment();
        for expression in [
            "x.strip()",
            "x|trim",
            "x.strip('<A ')",
            "x.lstrip('\\n <')",
            "x.rstrip('>')",
            "x.lower()",
            "x|upper",
            "x.title()",
            "x|capitalize",
            "x.split('</a>')",
            "x.split('a', 1)[-1]",
            "x.split()",
            "x.splitlines()",
            "x.replace('</a>', '!')",
            "x|replace('a', 'bb')",
            "x.replace('', '-', 2)",
            "x.startswith('<A') or x.endswith('</a>')",
            "x.find('</a>')",
            "x.count('a')",
            "'a'.join([x, x])",
            "'{}'.format(x)",
            "x[1:-1]",
            "x|length",
            "x.isalpha()",
            "y in x.split('a')[0]",
        ] {
            for text in ["<A> 盗 é a</a> ßa</a>", "", " x\ny "] {
                let render = |x: &str| {
                    let context = minijinja::context! { x, y => "zz" };
                    environment.render_str(&format!("{{{{ {expression} }}}}"), context).unwrap()
                };
                assert_eq!(without_marks(&render(&mark(text))), render(text), "{expression} of {text}");
            }
        }
        assert!(environment.render_str("{{ '{:99999}'.format(1) }}", ()).is_err());
    }
}
