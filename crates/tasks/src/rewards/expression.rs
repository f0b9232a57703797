//! Parses arithmetic expressions safely and evaluates them exactly.
//!
//! An expression has numbers, + - * / (also as × ÷ − and in full width) and brackets. Values are fractions of 128-bit
//! integers, so 8 / 3 × 3 is exactly 8. Overflow, division by zero and deep nesting are errors. There are no names,
//! functions, powers or implied products.

use super::quantity;

/// The deepest nesting of brackets and signs. Deeper expressions are refused, because they could overflow the stack.
const MAX_DEPTH: usize = 64;

/// An exact fraction in lowest terms with a positive denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    numerator: i128,
    denominator: i128,
}

impl Ratio {
    /// A whole number.
    pub fn integer(value: i128) -> Ratio {
        Ratio { numerator: value, denominator: 1 }
    }

    /// `numerator / denominator`; `None` for a denominator of 0 or on overflow.
    pub fn new(numerator: i128, denominator: i128) -> Option<Ratio> {
        if denominator == 0 {
            return None;
        }
        let divisor = gcd(numerator.unsigned_abs(), denominator.unsigned_abs());
        let divisor = i128::try_from(divisor).ok()? * denominator.signum();
        Some(Ratio { numerator: numerator.checked_div(divisor)?, denominator: denominator.checked_div(divisor)? })
    }

    /// The nearest `f64`.
    pub fn to_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    fn add(self, other: Ratio) -> Option<Ratio> {
        let left = self.numerator.checked_mul(other.denominator)?;
        let right = other.numerator.checked_mul(self.denominator)?;
        Ratio::new(left.checked_add(right)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn negate(self) -> Option<Ratio> {
        Some(Ratio { numerator: self.numerator.checked_neg()?, denominator: self.denominator })
    }

    fn multiply(self, other: Ratio) -> Option<Ratio> {
        Ratio::new(self.numerator.checked_mul(other.numerator)?, self.denominator.checked_mul(other.denominator)?)
    }

    fn divide(self, other: Ratio) -> Option<Ratio> {
        Ratio::new(self.numerator.checked_mul(other.denominator)?, self.denominator.checked_mul(other.numerator)?)
    }
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// The value of an expression and the numbers in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// Its exact value.
    pub value: Ratio,
    /// Every number in it, in order.
    pub numbers: Vec<Ratio>,
    /// The number of operators, signs included.
    pub operators: usize,
}

/// Evaluates an expression.
///
/// # Errors
/// A sentence: what cannot be parsed, a division by zero, an overflow, or too many brackets.
pub fn evaluate(text: &str) -> Result<Evaluated, String> {
    let plain: Vec<char> = quantity::fold(text)
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| match c {
            '×' | '✕' | '·' | '∗' => '*',
            '÷' | '∕' => '/',
            '[' | '{' => '(',
            ']' | '}' => ')',
            other => other,
        })
        .collect();
    let mut reader = Reader { chars: &plain, at: 0, depth: 0, numbers: Vec::new(), operators: 0 };
    let value = reader.sum()?;
    match reader.peek() {
        None => Ok(Evaluated { value, numbers: reader.numbers, operators: reader.operators }),
        Some(c) => Err(format!("cannot read '{c}' as arithmetic")),
    }
}

struct Reader<'a> {
    chars: &'a [char],
    at: usize,
    depth: usize,
    numbers: Vec<Ratio>,
    operators: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self, wanted: &[char]) -> Option<char> {
        let c = self.peek().filter(|c| wanted.contains(c))?;
        self.at += 1;
        Some(c)
    }

    fn sum(&mut self) -> Result<Ratio, String> {
        let mut value = self.product()?;
        while let Some(operator) = self.take(&['+', '-']) {
            self.operators += 1;
            let right = self.product()?;
            let right = if operator == '-' { right.negate() } else { Some(right) };
            value = right.and_then(|right| value.add(right)).ok_or("the numbers overflow")?;
        }
        Ok(value)
    }

    fn product(&mut self) -> Result<Ratio, String> {
        let mut value = self.factor()?;
        while let Some(operator) = self.take(&['*', '/']) {
            self.operators += 1;
            let right = self.factor()?;
            if operator == '/' && right.numerator == 0 {
                return Err("division by zero".to_string());
            }
            let result = if operator == '*' { value.multiply(right) } else { value.divide(right) };
            value = result.ok_or("the numbers overflow")?;
        }
        Ok(value)
    }

    fn factor(&mut self) -> Result<Ratio, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("too many brackets".to_string());
        }
        let value = match self.take(&['(', '-', '+']) {
            Some('(') => {
                let inner = self.sum()?;
                self.take(&[')']).ok_or("a bracket is not closed")?;
                inner
            }
            Some(sign) => {
                self.operators += 1;
                let inner = self.factor()?;
                if sign == '-' { inner.negate().ok_or("the numbers overflow")? } else { inner }
            }
            None => self.number()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn number(&mut self) -> Result<Ratio, String> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '.') {
            self.at += 1;
        }
        let written: String = self.chars[start..self.at].iter().collect();
        let number = decimal(&written).ok_or_else(|| match self.peek() {
            Some(c) if written.is_empty() => format!("cannot read '{c}' as arithmetic"),
            None if written.is_empty() => "a number is missing at the end".to_string(),
            _ => format!("cannot read {written} as a number"),
        })?;
        self.numbers.push(number);
        Ok(number)
    }
}

fn decimal(written: &str) -> Option<Ratio> {
    let (whole, decimals) = written.split_once('.').unwrap_or((written, ""));
    if whole.is_empty() || decimals.contains('.') || written.ends_with('.') {
        return None;
    }
    let numerator: i128 = format!("{whole}{decimals}").parse().ok()?;
    Ratio::new(numerator, 10i128.checked_pow(u32::try_from(decimals.len()).ok()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn value(text: &str) -> (i128, i128) {
        let value = evaluate(text).unwrap_or_else(|error| panic!("{text}: {error}")).value;
        (value.numerator, value.denominator)
    }

    #[test]
    fn precedence_brackets_and_signs() {
        assert_eq!(value("1+2*3"), (7, 1));
        assert_eq!(value("(1+2)*3"), (9, 1));
        assert_eq!(value("8 - 3 - 2"), (3, 1));
        assert_eq!(value("8/4/2"), (1, 1));
        assert_eq!(value("-(2-5)"), (3, 1));
        assert_eq!(value("2×（3＋4）÷7"), (2, 1));
        assert_eq!(value("8/(3-8/3)"), (24, 1));
        assert_eq!(value("0.1+0.2"), (3, 10));
        assert_eq!(value("1/3−1/2"), (-1, 6));
    }

    #[test]
    fn numbers_are_listed_in_order() {
        let found = evaluate("(7-3)*5").unwrap();
        assert_eq!(found.numbers, [7, 3, 5].map(Ratio::integer));
        assert_eq!(found.operators, 2);
    }

    #[test]
    fn what_is_not_arithmetic_is_an_error() {
        for (text, part) in [
            ("", "missing"),
            ("1+", "missing"),
            ("(1", "not closed"),
            ("1)", "cannot read ')'"),
            ("2(3)", "cannot read '('"),
            ("2**3", "cannot read '*'"),
            ("x+1", "cannot read 'x'"),
            ("1/0", "division by zero"),
            ("1/(2-2)", "division by zero"),
            ("1.2.3", "as a number"),
            ("__import__", "cannot read"),
        ] {
            let error = evaluate(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(evaluate(&"(".repeat(100_000)).unwrap_err().contains("brackets"));
        assert!(evaluate(&"-".repeat(100_000)).unwrap_err().contains("brackets"));
        assert!(evaluate(&["9999999999"; 8].join("*")).unwrap_err().contains("overflow"));
        assert!(evaluate(&"9".repeat(100)).is_err());
    }
}
