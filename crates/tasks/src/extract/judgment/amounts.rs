//! Parses terms and sums of money in Chinese numerals (also the formal ones), Arabic ones, and mixtures: 三年六个月, 1.5万,
//! 贰万五千.

use crate::judgment::numerals::plain_digit;
use crate::rewards::quantity::{digit, power};

/// The number with which a text begins, and its length in bytes. `None` if the text does not begin with a digit.
pub fn number(text: &str) -> Option<(f64, usize)> {
    // Sums above and below 万, the section since the last 万, the last digit.
    let (mut total, mut section, mut digit, mut bytes) = (0.0, 0.0, None, 0);
    let mut rest = text;
    let mut any = false;
    while let Some(c) = rest.chars().next() {
        if let Some((value, taken)) = arabic(rest) {
            digit = Some(value);
            any = true;
            bytes += taken;
            rest = &rest[taken..];
            continue;
        }
        match (value_of(c), power(c)) {
            // 二五 is 25, as in years and misprints; 零五 is 5.
            (Some(value), _) => {
                digit = Some(digit.map_or(value, |before: f64| 10.0 * before + value));
                any = true;
            }
            (None, Some(10_000.0)) if any => {
                total = (total + section + digit.take().unwrap_or(0.0)) * 10_000.0;
                section = 0.0;
            }
            (None, Some(unit)) if any || unit == 10.0 => {
                section += digit.take().unwrap_or(1.0) * unit;
                any = true;
            }
            _ => break,
        }
        bytes += c.len_utf8();
        rest = &text[bytes..];
    }
    any.then(|| (total + section + digit.unwrap_or(0.0), bytes))
}

/// An Arabic number, full-width too, with commas between thousands and a decimal point.
fn arabic(text: &str) -> Option<(f64, usize)> {
    let (mut digits, mut bytes) = (String::new(), 0);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let next_is_digit = characters.peek().is_some_and(|c| plain_digit(*c).is_some());
        match (plain_digit(c), c) {
            (Some(digit), _) => digits.push(digit),
            (None, '.' | '．') if !digits.is_empty() && next_is_digit && !digits.contains('.') => digits.push('.'),
            (None, ',' | '，') if !digits.is_empty() && thousands(&text[bytes + c.len_utf8()..]) => {}
            _ => break,
        }
        bytes += c.len_utf8();
    }
    Some((digits.parse().ok()?, bytes))
}

/// Whether exactly three digits follow.
fn thousands(text: &str) -> bool {
    text.chars().take_while(|c| plain_digit(*c).is_some()).count() == 3
}

/// The value of a Chinese digit, including two that occur only in documents.
fn value_of(c: char) -> Option<f64> {
    match c {
        '○' => Some(0.0),
        '貳' => Some(2.0),
        c => digit(c),
    }
}

/// The term with which a text begins, in months: 三年六个月, 一年零三个月, 六个半月, 一年半. `None` for anything else, such as 五百年.
pub fn term(text: &str) -> Option<f64> {
    let mut rest = text.trim_start();
    let (mut months, mut any) = (0.0, false);
    if let Some(after) = rest.strip_prefix("半年") {
        return (!after.starts_with(|c| value_of(c).is_some())).then_some(6.0);
    }
    if let Some((years, taken)) = number(rest)
        && let Some(after) = rest[taken..].trim_start().strip_prefix('年')
    {
        (months, any, rest) = (12.0 * years, true, after.trim_start());
        if rest.starts_with("半") {
            return Some(months + 6.0);
        }
        rest = rest.trim_start_matches(['零', '又', '另', '〇', '，']).trim_start();
    }
    if let Some((count, taken)) = number(rest) {
        let after = rest[taken..].trim_start();
        if let Some(after) = after.strip_prefix("个半月") {
            return (months + count > 0.0 && !after.starts_with('年')).then_some(months + count + 0.5);
        } else if let Some(after) = after.strip_prefix("个月").or_else(|| after.strip_prefix('月')) {
            (months, any, rest) = (months + count, true, after);
            rest = rest.strip_prefix(['零', '又']).unwrap_or(rest);
            if let Some((days, taken)) = number(rest)
                && rest[taken..].starts_with(['日', '天'])
            {
                months = (100.0 * (months + days / 30.0)).round() / 100.0;
            }
        }
    }
    (any && months > 0.0 && months <= 300.0).then_some(months)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_all_kinds() {
        for (text, value) in [
            ("五千元", 5000.0),
            ("二万五千元", 25_000.0),
            ("1.5万元", 15_000.0),
            ("2万元", 20_000.0),
            ("5,000元", 5000.0),
            ("25000元", 25_000.0),
            ("十元", 10.0),
            ("一百零五元", 105.0),
            ("叁万元", 30_000.0),
            ("１０００元", 1000.0),
            ("十二万元", 120_000.0),
            ("2万5千元", 25_000.0),
            ("五三条", 53.0),
            ("二百六十四", 264.0),
        ] {
            assert_eq!(number(text).map(|(value, _)| value), Some(value), "{text}");
        }
        assert_eq!(number("元"), None);
        assert_eq!(number("5000，并处").map(|(_, taken)| taken), Some(4));
    }

    #[test]
    fn terms_in_months() {
        for (text, months) in [
            ("三年六个月，缓刑", 42.0),
            ("一年零三个月", 15.0),
            ("十个月", 10.0),
            ("六个半月", 6.5),
            ("一年半", 18.0),
            ("3年6月", 42.0),
            ("两年四个月", 28.0),
            ("十五年，", 180.0),
            ("三个月十五日", 3.5),
            ("三年，", 36.0),
            ("半年", 6.0),
        ] {
            assert_eq!(term(text), Some(months), "{text}");
        }
        for text in ["", "元", "个五月", "徒刑十年", "五百年", "二〇一六年"] {
            assert_eq!(term(text), None, "{text}");
        }
    }
}
