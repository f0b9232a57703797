//! Formats numbers for the page: short and exact enough.
//!
//! Read next: [`super::ladder`].

/// A share as a percentage with one decimal: `47.8`.
pub fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// A count with a thin space between thousands; an en dash for 0.
pub fn count(n: u64) -> String {
    if n == 0 {
        return "–".to_owned();
    }
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

/// An amount of money with two decimals; an en dash if it is unknown.
pub fn money(amount: Option<f64>) -> String {
    amount.map_or_else(|| "–".to_owned(), |amount| format!("{amount:.2}"))
}

/// A large number in three digits: `950`, `12.3 k`, `2.05 M`, `1.20 × 10¹⁴`; an en dash for 0.
pub fn large(x: f64) -> String {
    if x == 0.0 {
        "–".to_owned()
    } else if x < 1e3 {
        format!("{x:.0}")
    } else if x < 1e6 {
        format!("{} k", three_digits(x / 1e3))
    } else if x < 1e9 {
        format!("{} M", three_digits(x / 1e6))
    } else {
        let exponent = x.log10().floor();
        let mantissa = x / 10f64.powf(exponent);
        // 9.999 rounds up to the next power.
        let (mantissa, exponent) = if mantissa >= 9.995 { (1.0, exponent + 1.0) } else { (mantissa, exponent) };
        let raised: String = format!("{exponent:.0}").chars().map(superscript).collect();
        format!("{mantissa:.2} × 10{raised}")
    }
}

fn three_digits(x: f64) -> String {
    let decimals = if x < 9.995 {
        2
    } else if x < 99.95 {
        1
    } else {
        0
    };
    format!("{x:.decimals$}")
}

fn superscript(c: char) -> char {
    c.to_digit(10).map_or(c, |d| ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][d as usize])
}

/// A length of time: `0.4 s`, `12 s`, `3 min 12 s`, `1 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

/// A number on an axis, in as few characters as possible.
pub fn axis(x: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let size = x.abs();
    if !(1e-3..1e5).contains(&size) {
        return format!("{x:.1e}");
    }
    let decimals = (2.0 - size.log10().floor()).clamp(0.0, 5.0) as usize;
    let text = format!("{x:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(7), count(1234567)], ["–", "7", "1\u{202f}234\u{202f}567"]);
        assert_eq!(
            [large(950.0), large(12345.0), large(2.05e6), large(9.999e5)],
            ["950", "12.3 k", "2.05 M", "1000 k"]
        );
        assert_eq!([large(1.2e14), large(9.9999e9)], ["1.20 × 10¹⁴", "1.00 × 10¹⁰"]);
        assert_eq!([duration(0.44), duration(59.4), duration(192.0)], ["0.4 s", "59 s", "3 min 12 s"]);
        assert_eq!(duration(3900.0), "1 h 05 min");
        assert_eq!(
            [axis(0.0), axis(0.25), axis(123.4), axis(-1.5), axis(2e-7)],
            ["0", "0.25", "123", "-1.5", "2.0e-7"]
        );
        assert_eq!(percent(0.4781), "47.8");
    }
}
