//! `strftime_now`: today's date for the templates that print it.

use minijinja::{Error, ErrorKind};
use std::time::{Duration, SystemTime};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Writes a moment in UTC by C's format letters (`%Y %y %m %d %e %b %B %a %A %j %H %I %M %S %p %%`, `-` for no zero).
///
/// # Errors
/// For a letter that is not among these: a wrong date in a prompt would go unnoticed.
pub fn strftime(moment: SystemTime, format: &str) -> Result<String, Error> {
    let seconds = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second_of_day) = ((seconds / 86_400) as i64, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let weekday = WEEKDAYS[(days + 4).rem_euclid(7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let day_of_year = days - days_before(year, 1, 1) + 1;

    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut letter = letters.next();
        let bare = letter == Some('-');
        if bare {
            letter = letters.next();
        }
        let two = |number: u64| if bare { number.to_string() } else { format!("{number:02}") };
        text += &match letter {
            Some('Y') => year.to_string(),
            Some('y') => two(year.rem_euclid(100) as u64),
            Some('m') => two(month),
            Some('d') => two(day),
            Some('e') => format!("{day:2}"),
            Some('b' | 'h') => month_name[..3].to_string(),
            Some('B') => month_name.to_string(),
            Some('a') => weekday[..3].to_string(),
            Some('A') => weekday.to_string(),
            Some('j') => format!("{day_of_year:03}"),
            Some('H') => two(hour),
            Some('I') => two((hour + 11) % 12 + 1),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('p') => if hour < 12 { "AM" } else { "PM" }.to_string(),
            Some('%') => "%".to_string(),
            other => {
                let problem = format!("strftime_now: `%{}` is not supported", other.unwrap_or(' '));
                return Err(Error::new(ErrorKind::InvalidOperation, problem));
            }
        };
    }
    Ok(text)
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// The year is taken to begin in March, so that the leap day is its last.
fn civil(days: i64) -> (i64, u64, u64) {
    let since = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month as u64, day as u64)
}

/// Days from 1970-01-01 to a date; the inverse of [`civil`].
fn days_before(year: i64, month: u64, day: u64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month_from_march = (month as i64 + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day as i64 - 1;
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_python_writes_them() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let full = "%A %d %B %Y, %a %-d %b %y, day %j, %H:%M:%S = %I %p";
        for (seconds, expected) in [
            (0, "Thursday 01 January 1970, Thu 1 Jan 70, day 001, 00:00:00 = 12 AM"),
            (951_827_696, "Tuesday 29 February 2000, Tue 29 Feb 00, day 060, 12:34:56 = 12 PM"),
            (1_735_689_599, "Tuesday 31 December 2024, Tue 31 Dec 24, day 366, 23:59:59 = 11 PM"),
            (4_107_542_400, "Monday 01 March 2100, Mon 1 Mar 00, day 060, 00:00:00 = 12 AM"),
        ] {
            assert_eq!(strftime(at(seconds), full).unwrap(), expected);
        }
        assert!(strftime(at(0), "%Q").is_err());
    }

    #[test]
    fn dates_and_days_are_inverse() {
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_before(year, month, day), days);
        }
    }
}
