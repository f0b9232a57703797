//! Parses one written quantity, Chinese or Western: 三年六个月, 2万余元, １，２３４．５, 三分之二, 12.5%, 1 1/2.
//!
//! The whole text must be one quantity; a number inside a sentence is not accepted. Durations are converted to months;
//! a day is a thirtieth of a month. An approximate amount (余, 多) keeps its lower bound and the upper bound that the
//! wording allows.
//!
//! It never evaluates expressions; see `countdown` and `math`.

use std::fmt;

/// A number with its unit.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// The number as written; the lower bound of an approximate one. Durations are in months, percentages are shares.
    pub value: f64,
    /// For 余 and 多: the upper bound, exclusive.
    pub ceiling: Option<f64>,
    /// The unit.
    pub unit: Unit,
}

/// The unit of a quantity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// No unit was written.
    None,
    /// A duration.
    Months,
    /// A written unit in canonical form: 元, 美元, 克, apples.
    Word(String),
}

impl Quantity {
    /// Whether `self`, an answer, equals `known` within tolerances.
    ///
    /// `relative` is a share of the known value, `absolute` is in its unit. If both have a unit, the units must agree;
    /// a unit that only one of them has does not matter. For an approximate known amount, its whole range is accepted.
    /// An approximate answer counts as its lower bound.
    pub fn matches(&self, known: &Quantity, relative: f64, absolute: f64) -> bool {
        if self.unit != Unit::None && known.unit != Unit::None && self.unit != known.unit {
            return false;
        }
        // A rounding error, as in 0.1 × 10000, is not a difference.
        let slack = absolute.max(relative * known.value.abs()).max(1e-9 * known.value.abs());
        let high = known.ceiling.map_or(known.value + slack, |ceiling| ceiling - ceiling.abs() * 1e-9);
        self.value >= known.value - slack && self.value <= high
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.value)?;
        if let Some(ceiling) = self.ceiling {
            write!(f, "..{ceiling}")?;
        }
        match &self.unit {
            Unit::None => Ok(()),
            Unit::Months => write!(f, " months"),
            Unit::Word(word) => write!(f, " {word}"),
        }
    }
}

/// The quantity in `text`, if the text is exactly one quantity.
pub fn parse(text: &str) -> Option<Quantity> {
    let folded = fold(text);
    let text = folded.trim().trim_end_matches(['。', '.']).trim_end();
    let (negative, text) = match text.strip_prefix(['-', '负']) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (currency, text) = strip_currency(text.strip_prefix('约').unwrap_or(text));
    let mut quantity = fraction(text).or_else(|| duration(text)).or_else(|| counted(text))?;
    if let (Some(currency), Unit::None) = (currency, &quantity.unit) {
        quantity.unit = Unit::Word(currency.to_string());
    }
    if negative {
        if quantity.ceiling.is_some() {
            return None;
        }
        quantity.value = -quantity.value;
    }
    quantity.value.is_finite().then_some(quantity)
}

/// Replaces full-width characters and the variants of the minus sign by plain ones; thousands separators stay.
pub fn fold(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{ff01}'..='\u{ff5e}' => char::from_u32(c as u32 - 0xfee0).unwrap_or(c),
            '\u{3000}' | '\u{a0}' => ' ',
            '\u{2212}' | '\u{2012}' | '\u{2013}' => '-',
            '\u{ffe5}' => '¥',
            '圆' => '元',
            _ => c,
        })
        .collect()
}

fn strip_currency(text: &str) -> (Option<&'static str>, &str) {
    for (written, unit) in [("人民币", "元"), ("RMB", "元"), ("CNY", "元"), ("¥", "元"), ("$", "美元"), ("USD", "美元")]
    {
        if let Some(rest) = text.strip_prefix(written) {
            return (Some(unit), rest.trim_start());
        }
    }
    (None, text)
}

/// Parses `3/4`, `1 1/2`, 三分之二, 百分之三十.
fn fraction(text: &str) -> Option<Quantity> {
    let plain = |value: f64| Some(Quantity { value, ceiling: None, unit: Unit::None });
    if let Some((below, above)) = text.split_once("分之") {
        let (below, above) = (if below == "百" { 100.0 } else { whole(below)? }, whole(above)?);
        return if below == 0.0 { None } else { plain(above / below) };
    }
    let (above, below) = text.split_once('/')?;
    let below = whole(below.trim())?;
    let (base, above) = match above.trim().rsplit_once(' ') {
        Some((base, above)) => (whole(base.trim())?, whole(above)?),
        None => (0.0, whole(above.trim())?),
    };
    if below == 0.0 { None } else { plain(base + above / below) }
}

/// Parses 三年六个月, 3年半, 一个半月, 半年, 十五天, 一年零二十日.
fn duration(text: &str) -> Option<Quantity> {
    let (mut rest, mut months, mut rank) = (text, 0.0, 4);
    while !rest.is_empty() {
        rest = rest.trim_start().trim_start_matches(['零', '又', '〇']);
        if rank == 3 && rest == "半" {
            months += 6.0;
            break;
        }
        let end = rest.find(['年', '月', '个', '日', '天'])?;
        let (number, tail) = rest.split_at(end);
        let (half, tail) = match tail.strip_prefix("个半") {
            Some(tail) => (0.5, tail),
            None => (0.0, tail.strip_prefix('个').unwrap_or(tail)),
        };
        let written = if number.trim() == "半" { 0.5 } else { whole(number.trim())? } + half;
        let unit = tail.chars().next()?;
        let (size, this) = match unit {
            '年' => (12.0, 3),
            '月' => (1.0, 2),
            '日' | '天' => (1.0 / 30.0, 1),
            _ => return None,
        };
        if this >= rank {
            return None;
        }
        (months, rank, rest) = (months + written * size, this, &tail[unit.len_utf8()..]);
    }
    (rank < 4).then_some(Quantity { value: months, ceiling: None, unit: Unit::Months })
}

/// Parses a number with an optional unit: 2万余元, 1,234.5 kg, 12%.
fn counted(text: &str) -> Option<Quantity> {
    let end = text.char_indices().find(|(_, c)| !is_number_char(*c)).map_or(text.len(), |(at, _)| at);
    let (number, unit) = match exponent_end(text) {
        Some(at) => text.split_at(at),
        None => text.split_at(end),
    };
    let (mut value, mut step) = number_with_step(number.trim())?;
    let mut unit = unit.trim();
    let mut unit_word = Unit::None;
    if let Some(rest) = unit.strip_prefix(['%', '‰']) {
        let size = if unit.starts_with('%') { 100.0 } else { 1000.0 };
        (value, step) = (value / size, step.map(|step| step / size));
        unit = rest;
    } else if !unit.is_empty() {
        let letters = unit.chars().count();
        if letters > 12
            || !unit.chars().all(|c| c == '¥' || c.is_alphabetic() && !is_number_char(c) && !"年月日天".contains(c))
        {
            return None;
        }
        unit_word = Unit::Word(canonical_unit(unit).to_string());
        unit = "";
    }
    unit.is_empty().then(|| Quantity { value, ceiling: step.map(|step| value + step), unit: unit_word })
}

fn canonical_unit(unit: &str) -> &str {
    match unit {
        "元" | "块" | "块钱" | "元人民币" | "人民币元" | "RMB" | "CNY" | "yuan" => "元",
        "美元" | "美金" | "USD" | "dollar" | "dollars" => "美元",
        "kg" | "千克" | "公斤" => "千克",
        "g" | "克" => "克",
        other => other,
    }
}

/// A number without approximation.
fn whole(text: &str) -> Option<f64> {
    match number_with_step(text)? {
        (value, None) => Some(value),
        _ => None,
    }
}

fn is_number_char(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '.' | ',' | '点' | '余' | '多' | ' ') || digit(c).is_some() || power(c).is_some()
}

/// The value of a Chinese digit, including the formal ones.
pub(crate) fn digit(c: char) -> Option<f64> {
    let value = match c {
        '零' | '〇' => 0,
        '一' | '壹' => 1,
        '二' | '两' | '贰' => 2,
        '三' | '叁' => 3,
        '四' | '肆' => 4,
        '五' | '伍' => 5,
        '六' | '陆' => 6,
        '七' | '柒' => 7,
        '八' | '捌' => 8,
        '九' | '玖' => 9,
        _ => return None,
    };
    Some(f64::from(value))
}

/// The value of a Chinese power of ten, including the formal ones.
pub(crate) fn power(c: char) -> Option<f64> {
    match c {
        '十' | '拾' => Some(1e1),
        '百' | '佰' => Some(1e2),
        '千' | '仟' => Some(1e3),
        '万' | '萬' => Some(1e4),
        '亿' | '億' => Some(1e8),
        _ => None,
    }
}

/// The end of `1.5e3` or `2E-4`, if the text begins with such a number.
fn exponent_end(text: &str) -> Option<usize> {
    let mark = text.find(['e', 'E'])?;
    let tail = text[mark + 1..].trim_start_matches(['+', '-']);
    let digits = tail.len() - tail.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mantissa = text[..mark].chars().all(|c| c.is_ascii_digit() || c == '.');
    (mark > 0 && mantissa && digits > 0).then(|| text.len() - tail.len() + digits)
}

/// The number and, if 余 or 多 is written, the size of its last written place.
fn number_with_step(text: &str) -> Option<(f64, Option<f64>)> {
    if exponent_end(text) == Some(text.len()) {
        return text.parse().ok().map(|value| (value, None));
    }
    if let Some((whole_part, decimals)) = text.split_once('点') {
        let digits: String = decimals.chars().map(|c| digit(c).map(|d| d.to_string())).collect::<Option<_>>()?;
        let tail: f64 = format!("0.{digits}").parse().ok()?;
        return Some((whole(whole_part)? + tail, None));
    }
    Scan::default().run(text)
}

/// Scans digits and powers of ten. `total` collects 亿 and 万, `section` collects what is below 万.
#[derive(Default)]
struct Scan {
    total: f64,
    section: f64,
    current: Option<f64>,
    /// The size of the last non-zero place of `current`.
    place: f64,
    last_power: f64,
    /// The size of the last place written before `current`.
    last_place: f64,
    /// The last power within this section. The powers of a section must decrease.
    section_power: Option<f64>,
    large_power: Option<f64>,
    after_zero: bool,
    /// Whether `current` is a string of digits such as 二〇二三, which no power may follow.
    digit_string: bool,
    step: Option<f64>,
}

impl Scan {
    fn run(mut self, text: &str) -> Option<(f64, Option<f64>)> {
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let c = chars[at];
            if c.is_ascii_digit() {
                let end =
                    (at..chars.len()).find(|i| !matches!(chars[*i], '0'..='9' | '.' | ',')).unwrap_or(chars.len());
                let written: String = chars[at..end].iter().collect();
                self.number(western(&written)?, western_place(&written))?;
                at = end;
                continue;
            }
            if digit(c).is_some() {
                let end = (at..chars.len()).find(|i| digit(chars[*i]).is_none()).unwrap_or(chars.len());
                self.chinese_digits(&chars[at..end])?;
                at = end;
                continue;
            }
            match (c, power(c)) {
                (_, Some(power)) => self.power(power)?,
                ('余' | '多', _) if self.step.is_none() => {
                    self.step = Some(if self.current.is_some() { self.place } else { self.last_place });
                }
                _ => return None,
            }
            at += 1;
        }
        self.finish()
    }

    fn number(&mut self, value: f64, place: f64) -> Option<()> {
        if self.current.is_some() || self.step.is_some() {
            return None;
        }
        (self.current, self.place) = (Some(value), place);
        Some(())
    }

    /// Parses 零五 within a number, or a string of digits such as 二〇二三.
    fn chinese_digits(&mut self, digits: &[char]) -> Option<()> {
        let inside = self.last_power > 0.0;
        self.after_zero = inside && digit(digits[0]) == Some(0.0);
        let value = digits.iter().filter_map(|c| digit(*c)).fold(0.0, |value, digit| value * 10.0 + digit);
        // Inside a number at most one digit may follow a zero. A string of digits is a number by itself.
        self.digit_string = digits.len() > 1 + usize::from(self.after_zero);
        if inside && self.digit_string {
            return None;
        }
        if inside && value == 0.0 {
            return None;
        }
        self.number(value, western_place(&format!("{value}")))
    }

    fn power(&mut self, power: f64) -> Option<()> {
        if self.digit_string {
            return None;
        }
        self.last_place = match self.current {
            Some(_) => self.place * power,
            None if self.section > 0.0 => self.last_place * power,
            None => power,
        };
        if power < 1e4 {
            if self.section_power.is_some_and(|before| before <= power) || self.step.is_some() {
                return None;
            }
            let factor = match self.current.take() {
                Some(factor) => factor,
                None if power == 10.0 => 1.0,
                None => return None,
            };
            self.section += factor * power;
            self.section_power = Some(power);
        } else {
            self.section += self.current.take().unwrap_or(0.0);
            let bare = self.section == 0.0;
            if power == 1e8 {
                if bare && self.total == 0.0 || self.large_power == Some(1e8) {
                    return None;
                }
                self.total = (self.total + self.section) * 1e8;
            } else {
                if bare || self.large_power == Some(1e4) {
                    return None;
                }
                self.total += self.section * 1e4;
            }
            self.step = self.step.map(|step| step * power);
            (self.section, self.section_power, self.large_power) = (0.0, None, Some(power));
        }
        (self.last_power, self.after_zero) = (power, false);
        Some(())
    }

    fn finish(self) -> Option<(f64, Option<f64>)> {
        if self.current.is_none() && self.last_power == 0.0 {
            return None;
        }
        let rest = self.current.unwrap_or(0.0);
        // 两万三 is 23000, 两万零三 is 20003.
        let colloquial =
            self.last_power >= 100.0 && !self.after_zero && rest > 0.0 && rest < 10.0 && self.step.is_none();
        let rest = if colloquial { rest * self.last_power / 10.0 } else { rest };
        Some((self.total + self.section + rest, self.step))
    }
}

/// Parses `1,234.5`. Separators are accepted only between thousands.
fn western(text: &str) -> Option<f64> {
    let (integer, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.contains([',', '.']) || text.ends_with('.') {
        return None;
    }
    let groups: Vec<&str> = integer.split(',').collect();
    let fits =
        groups.len() == 1 || (1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|group| group.len() == 3);
    if !fits || integer.is_empty() {
        return None;
    }
    text.replace(',', "").parse().ok()
}

fn western_place(text: &str) -> f64 {
    let digits = text.replace(',', "");
    match digits.split_once('.') {
        Some((_, decimals)) => 10f64.powi(-(decimals.len() as i32)),
        None => 10f64.powi((digits.len() - digits.trim_end_matches('0').len()).min(digits.len() - 1) as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, value: f64, unit: &str) {
        let found = parse(text).unwrap_or_else(|| panic!("{text} is not read"));
        assert!((found.value - value).abs() <= 1e-9 * value.abs().max(1.0), "{text}: {found}, not {value}");
        let unit = match unit {
            "" => Unit::None,
            "months" => Unit::Months,
            word => Unit::Word(word.to_string()),
        };
        assert_eq!(found.unit, unit, "{text}");
    }

    #[test]
    fn western_numbers() {
        for (text, value) in [
            ("42", 42.0),
            (" -3.50 ", -3.5),
            ("−7", -7.0),
            ("1,234,567.8", 1_234_567.8),
            ("１，２３４．５", 1234.5),
            ("12.5%", 0.125),
            ("５０％", 0.5),
            ("3‰", 0.003),
            ("3/4", 0.75),
            ("1 1/2", 1.5),
            ("1.5e3", 1500.0),
            ("2E-2", 0.02),
            ("72.", 72.0),
        ] {
            check(text, value, "");
        }
        check("$1,200", 1200.0, "美元");
        check("18 dollars", 18.0, "美元");
        check("5 kg", 5.0, "千克");
    }

    #[test]
    fn chinese_numbers() {
        for (text, value) in [
            ("十", 10.0),
            ("十五", 15.0),
            ("二十", 20.0),
            ("一百零五", 105.0),
            ("一百五", 150.0),
            ("一百五十", 150.0),
            ("两千三百", 2300.0),
            ("两万三", 23_000.0),
            ("两万零三", 20_003.0),
            ("一万零五百", 10_500.0),
            ("三十万零二百", 300_200.0),
            ("一亿两千万", 120_000_000.0),
            ("三万亿", 3e12),
            ("二〇二三", 2023.0),
            ("三点二五", 3.25),
            ("负三", -3.0),
            ("三分之二", 2.0 / 3.0),
            ("百分之三十", 0.3),
            ("壹仟贰佰", 1200.0),
            ("2万", 20_000.0),
            ("1.5亿", 1.5e8),
            ("1亿2000万", 1.2e8),
            ("2万3千", 23_000.0),
            ("零", 0.0),
        ] {
            check(text, value, "");
        }
        check("人民币3,500元", 3500.0, "元");
        check("两万圆", 20_000.0, "元");
        check("三公斤", 3.0, "千克");
    }

    #[test]
    fn durations_are_months() {
        for (text, months) in [
            ("三年六个月", 42.0),
            ("3年6个月", 42.0),
            ("３年６月", 42.0),
            ("三年", 36.0),
            ("三年半", 42.0),
            ("半年", 6.0),
            ("一个半月", 1.5),
            ("十一个月", 11.0),
            ("一年零十五日", 12.5),
            ("十年零六个月", 126.0),
            ("15天", 0.5),
        ] {
            check(text, months, "months");
        }
    }

    #[test]
    fn approximations_have_a_floor_and_a_ceiling() {
        for (text, low, high) in [
            ("2万余元", 20_000.0, 30_000.0),
            ("三十余万元", 300_000.0, 400_000.0),
            ("20多万元", 200_000.0, 300_000.0),
            ("3000余元", 3000.0, 4000.0),
            ("三千五百余元", 3500.0, 3600.0),
            ("1亿2000余万元", 1.2e8, 1.3e8),
            ("2.5万余元", 25_000.0, 26_000.0),
        ] {
            let found = parse(text).unwrap_or_else(|| panic!("{text} is not read"));
            let ceiling = found.ceiling.unwrap_or_else(|| panic!("{text} is exact"));
            assert!((found.value - low).abs() < 1e-6 && (ceiling - high).abs() < 1e-3, "{text}: {found}");
        }
    }

    #[test]
    fn what_is_not_one_quantity_is_not_read() {
        for text in [
            "",
            "元",
            "about",
            "1 2",
            "12,34",
            "1.2.3",
            "3 or 4",
            "3-4",
            "十十",
            "百",
            "万",
            "三年三年",
            "六个月三年",
            "1/0",
            "--3",
            "3、4",
            "一二百",
            "2万余3",
            "答案是3",
            "inf",
            "nan",
            "点五",
            "年",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert!(parse(&"9".repeat(400)).is_none(), "an endless number is infinite, not a quantity");
    }

    #[test]
    fn matching_respects_units_tolerance_and_ranges() {
        let matches = |answer: &str, known: &str, relative: f64, absolute: f64| {
            parse(answer).unwrap().matches(&parse(known).unwrap(), relative, absolute)
        };
        assert!(matches("42个月", "三年六个月", 0.0, 0.0));
        assert!(matches("42", "三年六个月", 0.0, 0.0));
        assert!(!matches("42元", "三年六个月", 0.0, 0.0));
        assert!(matches("20000元", "2万元", 0.0, 0.0));
        assert!(matches("2.3万", "23000元", 0.0, 0.0));
        assert!(matches("101", "100", 0.01, 0.0) && !matches("102", "100", 0.01, 0.0));
        assert!(matches("3", "2", 0.0, 1.0) && !matches("4", "2", 0.0, 1.0));
        assert!(matches("29999", "2万余元", 0.0, 0.0) && !matches("30000", "2万余元", 0.0, 0.0));
        assert!(matches("2万余元", "20000", 0.0, 0.0) && !matches("2万余元", "23000", 0.0, 0.0));
        assert!(matches("50%", "0.5", 0.0, 0.0) && !matches("50", "50%", 0.0, 0.0));
    }
}
