//! When a job is due, by the calendar of a time zone.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Days, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc, Weekday};
use chrono_tz::Tz;

/// When a job is due: `every 15m`, `daily 03:00`, `weekly Sun 04:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// So many minutes apart, counted from midnight UTC of 1 January 1970: all servers agree on them.
    Every(u32),
    /// At a time of day.
    Daily(NaiveTime),
    /// At a time of a day of the week.
    Weekly(Weekday, NaiveTime),
}

impl When {
    /// The newest time at or before `now` at which it was due.
    ///
    /// A time of day that a change of clocks leaves out is due when the clocks have moved; one that comes twice is due the first time.
    pub fn newest(self, now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        match self {
            Self::Every(minutes) => {
                let step = i64::from(minutes.max(1)) * 60;
                let at = now.timestamp().div_euclid(step) * step;
                DateTime::from_timestamp(at, 0).unwrap_or(now)
            }
            Self::Daily(time) => newest_day(now, zone, time, |_| true),
            Self::Weekly(day, time) => newest_day(now, zone, time, |date| date.weekday() == day),
        }
    }

    /// The first time after `now`.
    pub fn next(self, now: DateTime<Utc>, zone: Tz) -> DateTime<Utc> {
        match self {
            Self::Every(minutes) => self.newest(now, zone) + TimeDelta::minutes(minutes.max(1).into()),
            Self::Daily(time) => next_day(now, zone, time, |_| true),
            Self::Weekly(day, time) => next_day(now, zone, time, |date| date.weekday() == day),
        }
    }

    /// How far its times are apart, about.
    pub fn period(self) -> TimeDelta {
        match self {
            Self::Every(minutes) => TimeDelta::minutes(minutes.max(1).into()),
            Self::Daily(_) => TimeDelta::days(1),
            Self::Weekly(..) => TimeDelta::weeks(1),
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(minutes) if minutes % 60 == 0 => write!(f, "every {}h", minutes / 60),
            Self::Every(minutes) => write!(f, "every {minutes}m"),
            Self::Daily(time) => write!(f, "daily {}", time.format("%H:%M")),
            Self::Weekly(day, time) => write!(f, "weekly {day} {}", time.format("%H:%M")),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no schedule: write every 15m, every 1h, daily 03:00 or weekly Sun 04:00");
        let words: Vec<&str> = text.split_whitespace().collect();
        let time = |text: &str| NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| wrong());
        match words[..] {
            ["every", span] => {
                let (number, unit) = span.split_at(span.len().saturating_sub(1));
                let number: u32 = number.parse().map_err(|_| wrong())?;
                let minutes = match unit {
                    "m" => Some(number),
                    "h" => number.checked_mul(60),
                    "d" => number.checked_mul(1440),
                    _ => None,
                };
                // More than a month is no schedule of days.
                minutes.filter(|m| (1..=44_640).contains(m)).map(Self::Every).ok_or_else(wrong)
            }
            ["daily", at] => Ok(Self::Daily(time(at)?)),
            ["weekly", day, at] => Ok(Self::Weekly(day.parse().map_err(|_| wrong())?, time(at)?)),
            _ => Err(wrong()),
        }
    }
}

/// The moment at which a time of a day begins.
fn moment(date: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let mut local = date.and_time(time);
    // Clocks leave out three hours at most.
    for _ in 0..=180 {
        if let Some(at) = zone.from_local_datetime(&local).earliest() {
            return at.to_utc();
        }
        local += TimeDelta::minutes(1);
    }
    Utc.from_utc_datetime(&local)
}

fn newest_day(now: DateTime<Utc>, zone: Tz, time: NaiveTime, is_one: impl Fn(NaiveDate) -> bool) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive();
    // Tomorrow's, too: where a zone skips a day, the moment of a day can lie in the one before.
    let days = (0..=9u64).filter_map(|back| today.checked_add_days(Days::new(1))?.checked_sub_days(Days::new(back)));
    days.filter(|date| is_one(*date)).map(|date| moment(date, time, zone)).find(|at| *at <= now).unwrap_or(now)
}

fn next_day(now: DateTime<Utc>, zone: Tz, time: NaiveTime, is_one: impl Fn(NaiveDate) -> bool) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive();
    let days = (0..=9u64).filter_map(|on| today.checked_sub_days(Days::new(1))?.checked_add_days(Days::new(on)));
    let at = days.filter(|date| is_one(*date)).map(|date| moment(date, time, zone)).find(|at| *at > now);
    at.unwrap_or(now + TimeDelta::weeks(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn words_and_times() {
        for text in ["every 15m", "every 1h", "daily 03:00", "weekly Sun 04:00"] {
            assert_eq!(text.parse::<When>().unwrap().to_string(), text);
        }
        for wrong in
            ["", "daily", "daily 25:00", "every 0m", "every 15", "every 400d", "weekly Someday 04:00", "hourly"]
        {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
        let lagos = chrono_tz::Africa::Lagos;
        let daily: When = "daily 03:00".parse().unwrap();
        // 03:00 in Lagos is 02:00 UTC.
        assert_eq!(daily.newest(utc("2026-11-26T01:59:59Z"), lagos), utc("2026-11-25T02:00:00Z"));
        assert_eq!(daily.newest(utc("2026-11-26T02:00:00Z"), lagos), utc("2026-11-26T02:00:00Z"));
        assert_eq!(daily.next(utc("2026-11-26T02:00:00Z"), lagos), utc("2026-11-27T02:00:00Z"));
        let sunday: When = "weekly Sun 04:00".parse().unwrap();
        assert_eq!(sunday.newest(utc("2026-11-26T12:00:00Z"), lagos), utc("2026-11-22T03:00:00Z"));
        let often: When = "every 15m".parse().unwrap();
        assert_eq!(often.newest(utc("2026-11-26T12:14:59Z"), lagos), utc("2026-11-26T12:00:00Z"));
        assert_eq!(often.next(utc("2026-11-26T12:14:59Z"), lagos), utc("2026-11-26T12:15:00Z"));
    }

    #[test]
    fn a_time_that_clocks_leave_out_or_repeat_is_due_once() {
        let berlin = chrono_tz::Europe::Berlin;
        let at: When = "daily 02:30".parse().unwrap();
        // 29 March 2026: 02:00 becomes 03:00. 25 October 2026: 03:00 becomes 02:00.
        for (from, to) in
            [("2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z"), ("2026-10-24T00:00:00Z", "2026-10-27T00:00:00Z")]
        {
            let (mut now, mut times) = (utc(from), Vec::new());
            while now < utc(to) {
                let due = at.newest(now, berlin);
                assert!(due <= now && at.next(now, berlin) > now);
                if due >= utc(from) && times.last() != Some(&due) {
                    times.push(due);
                }
                now += TimeDelta::minutes(1);
            }
            assert_eq!(times.len(), 3, "{times:?}");
            let days: Vec<_> = times.iter().map(|t| t.with_timezone(&berlin).date_naive()).collect();
            assert!(days.windows(2).all(|d| d[1] == d[0].succ_opt().unwrap()), "{times:?}");
        }
    }
}
