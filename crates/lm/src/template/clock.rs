//! `strftime_now`: today's date for the templates that print it.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use minijinja::{Error, ErrorKind};

/// The conversions that jiff writes as Python's `strftime` does. It writes others, such as `%c`, differently. Then the
/// date would silently differ from the form in the model's training data.
const CONVERSIONS: &str = "YymdebhBaAjHIMSp%";

/// Formats a time in UTC, in C's format language: `%Y %y %m %d %e %b %h %B %a %A %j %H %I %M %S %p %%`, each also with
/// `-` for no padding.
///
/// # Errors
/// For a conversion that is not in this list, and for a time outside the years −9999 to 9999.
pub fn strftime(moment: SystemTime, format: &str) -> Result<String, Error> {
    let fail = |problem: String| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {problem}"));
    let mut letters = format.chars();
    while letters.any(|letter| letter == '%') {
        let conversion = letters.next().filter(|&letter| letter != '-').or_else(|| letters.next());
        if !conversion.is_some_and(|letter| CONVERSIONS.contains(letter)) {
            return Err(fail(format!("`%{}` is not supported", conversion.unwrap_or(' '))));
        }
    }
    let moment = Timestamp::try_from(moment).map_err(|error| fail(error.to_string()))?;
    strtime::format(format, TimeZone::UTC.to_datetime(moment)).map_err(|error| fail(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_are_written_as_python_writes_them() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let full = "%A %d %B %Y, %a %-d %b %y, day %j, %H:%M:%S = %I %p, %e %h 100%%";
        for (seconds, expected) in [
            (0, "Thursday 01 January 1970, Thu 1 Jan 70, day 001, 00:00:00 = 12 AM,  1 Jan 100%"),
            (951_827_696, "Tuesday 29 February 2000, Tue 29 Feb 00, day 060, 12:34:56 = 12 PM, 29 Feb 100%"),
            (1_735_689_599, "Tuesday 31 December 2024, Tue 31 Dec 24, day 366, 23:59:59 = 11 PM, 31 Dec 100%"),
            (4_107_542_400, "Monday 01 March 2100, Mon 1 Mar 00, day 060, 00:00:00 = 12 AM,  1 Mar 100%"),
        ] {
            assert_eq!(strftime(at(seconds), full).unwrap(), expected);
        }
        for unsupported in ["%Q", "%c", "%-c", "%", "%-", "%%%"] {
            assert!(strftime(at(0), unsupported).is_err(), "{unsupported}");
        }
    }
}
