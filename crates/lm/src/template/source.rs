//! Reads the source of a template before the engine does, tag by tag.
//!
//! The engine's fuel does not pay for everything: values that grow from one `set` to the next (lists that double,
//! iterators over iterators, a namespace within itself) can fill the stack or the memory before any fuel is used up.
//! So every value that a `set` keeps goes through one of two filters. Long tags are refused, because the compiler takes
//! quadratic time and deep recursion for long chains of operators.

use std::collections::HashSet;

/// The filter through which the value of a variable goes.
pub const KEEP: &str = "__keep";
/// The filter through which a value inside a namespace goes.
pub const KEEP_INSIDE: &str = "__keep_inside";

/// The longest source in bytes. The longest in use are a quarter of it.
const MOST_BYTES: usize = 128 << 10;
/// The longest tag in bytes.
const MOST_TAG_BYTES: usize = 16 << 10;

/// A template's source, ready for the engine.
#[derive(Debug)]
pub struct Prepared {
    /// The source with `set` guarded and `{% generation %}` replaced.
    pub text: String,
    /// The texts in quotes, to which a template may compare what it is given.
    pub literals: HashSet<String>,
}

/// Prepares a source.
///
/// # Errors
/// A sentence for the user if the source or one of its tags is too long.
pub fn prepare(source: &str) -> Result<Prepared, String> {
    if source.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, more than {MOST_BYTES}", source.len()));
    }
    let mut prepared = Prepared { text: String::with_capacity(source.len()), literals: HashSet::new() };
    let mut rest = source;
    while let Some(start) = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min() {
        let (before, tag) = rest.split_at(start);
        prepared.text.push_str(before);
        let len = match tag.as_bytes()[1] {
            b'#' => tag.find("#}").map(|end| end + 2),
            close => tag_len(tag, if close == b'{' { "}}" } else { "%}" }, &mut prepared.literals),
        };
        // Without an end, the engine finds the fault.
        let Some(len) = len else {
            rest = tag;
            break;
        };
        if len > MOST_TAG_BYTES {
            return Err(format!("a tag has {len} bytes, more than {MOST_TAG_BYTES}"));
        }
        let (tag, after) = tag.split_at(len);
        rest = after;
        if tag.starts_with("{%") {
            statement(tag, &mut prepared.text)
        } else {
            prepared.text.push_str(tag)
        }
        if tag.starts_with("{%") && inside(tag).1 == "raw" {
            let (raw, after) = rest.split_at(rest.find("endraw").unwrap_or(rest.len()));
            prepared.text.push_str(raw);
            rest = after;
        }
    }
    prepared.text.push_str(rest);
    Ok(prepared)
}

/// The length of the tag at the start of `text`, which ends with `close` outside of quotes and brackets. Collects the
/// texts in quotes.
fn tag_len(text: &str, close: &str, literals: &mut HashSet<String>) -> Option<usize> {
    let (bytes, mut depth, mut at) = (text.as_bytes(), 0_usize, 2);
    while at < bytes.len() {
        match bytes[at] {
            _ if depth == 0 && text[at..].starts_with(close) => return Some(at + 2),
            quote @ (b'"' | b'\'') => {
                let start = at + 1;
                at = start;
                while *bytes.get(at)? != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                literals.insert(text[start..at].to_string());
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    None
}

/// The inside of a statement: what comes before it (`{%-` and blanks), the inside itself, and what comes after it.
fn inside(tag: &str) -> (&str, &str, &str) {
    let is_edge = |c: char| c.is_whitespace() || c == '-' || c == '+';
    let without_end = &tag[..tag.len() - 2];
    let start = 2 + (without_end[2..].len() - without_end[2..].trim_start_matches(is_edge).len());
    let end = start + without_end[start..].trim_end_matches(is_edge).len();
    (&tag[..start], &tag[start..end], &tag[end..])
}

/// Appends a statement: `{% set a = b %}` with the value guarded, `{% generation %}`, which marks the assistant's words
/// for a mask that Ferule does not take from templates, as a block that is always entered, and all others unchanged.
fn statement(tag: &str, text: &mut String) {
    let (before, inside, after) = inside(tag);
    text.push_str(before);
    match inside {
        "generation" => text.push_str("if true"),
        "endgeneration" => text.push_str("endif"),
        _ => match inside.split_once('=').filter(|(target, _)| is_set(target)) {
            Some((target, value)) => {
                let filter = if target.contains('.') { KEEP_INSIDE } else { KEEP };
                text.push_str(&format!("{target}=(({value})|{filter})"));
            }
            None => text.push_str(inside),
        },
    }
    text.push_str(after);
    // The arguments of a macro are variables too.
    if let Some((_, parameters)) = inside.strip_prefix("macro").and_then(|rest| rest.split_once('(')) {
        for parameter in parameters.trim_end_matches(')').split(',') {
            let name = parameter.split('=').next().unwrap_or_default().trim();
            if !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                text.push_str(&format!("{{% set {name} = {name}|{KEEP}{after}"));
            }
        }
    }
}

fn is_set(target: &str) -> bool {
    let names = target.strip_prefix("set").filter(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '('));
    names.is_some_and(|names| !names.contains('|'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_kept_are_guarded() {
        for (source, expected) in [
            ("a {%- set x = 1 -%} b", "a {%- set x =(( 1)|__keep) -%} b"),
            ("{% set ns.x, y = '%}', {'a': {}} %}", "{% set ns.x, y =(( '%}', {'a': {}})|__keep_inside) %}"),
            ("{% set x %}y = 1{% endset %}", "{% set x %}y = 1{% endset %}"),
            ("{% set x | trim(chars='a') %}{% endset %}", "{% set x | trim(chars='a') %}{% endset %}"),
            ("{% if set == 1 %}{% settle = 1 %}", "{% if set == 1 %}{% settle = 1 %}"),
            ("{# {% set x = 1 %} #}{{ '{% set x = 1 %}' }}", "{# {% set x = 1 %} #}{{ '{% set x = 1 %}' }}"),
            (
                "{% macro f(x, y='a, b') -%} z",
                "{% macro f(x, y='a, b') -%}{% set x = x|__keep -%}{% set y = y|__keep -%} z",
            ),
            ("{% raw %}{% set x = 1 %}{% endraw %}", "{% raw %}{% set x = 1 %}{% endraw %}"),
            ("{% generation %}x{%- endgeneration -%}", "{% if true %}x{%- endif -%}"),
            ("{{ {'a': {'b': 1}} }}{{ 'a", "{{ {'a': {'b': 1}} }}{{ 'a"),
        ] {
            assert_eq!(prepare(source).unwrap().text, expected);
        }
    }

    #[test]
    fn the_texts_in_quotes_are_collected() {
        let literals = prepare(r#"'no'{{ "a" + 'b"' }}{% if x == 'it\'s' %}"#).unwrap().literals;
        assert_eq!(literals, ["a", "b\"", "it\\'s"].map(String::from).into());
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(prepare(&"x".repeat(MOST_BYTES + 1)).unwrap_err().starts_with("it has 131073 bytes"));
        let chain = format!("{{{{ {}x }}}}", "not ".repeat(5000));
        assert!(prepare(&chain).unwrap_err().starts_with("a tag has "));
    }
}
