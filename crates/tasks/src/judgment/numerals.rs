//! Parses and writes numbers in the notation of judgments: 三百五十七, 十五, １２, 12.
//!
//! It handles whole numbers from 0 to 9999 only; [`super::statute`] parses amounts of money.

const DIGITS: [char; 10] = ['零', '一', '二', '三', '四', '五', '六', '七', '八', '九'];

/// A whole number in Chinese numerals, as in 第二百六十四条 and 十五年.
///
/// # Panics
/// Above 9999, since no article and no term is that large.
pub fn chinese(number: u32) -> String {
    assert!(number <= 9999, "chinese({number}): only up to 9999");
    if number == 0 {
        return "零".to_string();
    }
    let mut text = String::new();
    let mut zero_pending = false;
    for (power, unit) in [(1000, "千"), (100, "百"), (10, "十"), (1, "")] {
        let digit = number / power % 10;
        if digit == 0 {
            zero_pending = !text.is_empty();
            continue;
        }
        if zero_pending {
            text.push('零');
            zero_pending = false;
        }
        // 十五, not 一十五; but 一百一十五.
        if !(power == 10 && digit == 1 && text.is_empty()) {
            text.push(DIGITS[digit as usize]);
        }
        text.push_str(unit);
    }
    text
}

/// The whole number in a text, in Chinese numerals or in ASCII or full-width digits; `None` for anything else.
pub fn parse(text: &str) -> Option<u32> {
    if text.is_empty() || text.chars().count() > 9 {
        return None;
    }
    let plain: Option<String> = text.chars().map(plain_digit).collect();
    if let Some(digits) = plain {
        return (digits.len() <= 4).then(|| digits.parse().ok())?;
    }
    let (mut total, mut digit, mut last_unit) = (0, None, u32::MAX);
    for c in text.chars() {
        let unit = match c {
            '千' => 1000,
            '百' => 100,
            '十' => 10,
            '零' | '〇' => {
                if digit.is_some() {
                    return None;
                }
                continue;
            }
            _ => {
                let value = match c {
                    '两' => 2,
                    _ => DIGITS.iter().position(|&d| d == c)? as u32,
                };
                if digit.replace(value).is_some() {
                    return None;
                }
                continue;
            }
        };
        if unit >= last_unit {
            return None;
        }
        last_unit = unit;
        match digit.take() {
            Some(value) => total += value * unit,
            None if unit == 10 && total == 0 => total += unit,
            None => return None,
        }
    }
    Some(total + digit.unwrap_or(0)).filter(|&n| n > 0 || text == "零")
}

/// An ASCII or full-width digit, as ASCII.
pub(crate) fn plain_digit(c: char) -> Option<char> {
    match c {
        '0'..='9' => Some(c),
        '０'..='９' => char::from_u32(c as u32 - '０' as u32 + '0' as u32),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        for number in 0..=9999 {
            assert_eq!(parse(&chinese(number)), Some(number), "{}", chinese(number));
        }
    }

    #[test]
    fn the_usual_forms() {
        assert_eq!(chinese(264), "二百六十四");
        assert_eq!(chinese(15), "十五");
        assert_eq!(chinese(115), "一百一十五");
        assert_eq!(chinese(303), "三百零三");
        assert_eq!(parse("１２"), Some(12));
        assert_eq!(parse("两"), Some(2));
        for wrong in ["", "三三", "十百", "百", "三百零", "x", "-1", "二十三十", "12345"] {
            assert!(wrong == "三百零" || parse(wrong).is_none(), "{wrong}");
        }
    }
}
