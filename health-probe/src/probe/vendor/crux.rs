//! The answers of the Chrome UX Report.

use chrono::{DateTime, NaiveDate, Utc};
use http::StatusCode;
use serde_json::Value as Json;

use crate::observation::{Observation, Unit};

/// Each vital: the reading, its name in the report, and how many of the report's units make one of the reading's.
const VITALS: [(&str, &str, Unit, f64); 3] = [
    ("LCP", "largest_contentful_paint", Unit::Seconds, 1000.0),
    ("INP", "interaction_to_next_paint", Unit::Seconds, 1000.0),
    ("CLS", "cumulative_layout_shift", Unit::Ratio, 1.0),
];
/// The report is made anew each day, of days up to two before.
const OLDEST_DAYS: i64 = 14;

/// `{"record":{"metrics":{"largest_contentful_paint":{"percentiles":{"p75":1200}},…},"collectionPeriod":{…}}}`: times in
/// milliseconds, shifts as text.
pub(super) fn read(seen: &mut Observation, json: &Json, now: DateTime<Utc>) {
    let Some(metrics) = json.pointer("/record/metrics").and_then(Json::as_object) else {
        seen.evidence("the answer has no metrics");
        return;
    };
    seen.flag("key accepted", true);
    let day = |which: &str| -> Option<NaiveDate> {
        let date = json.pointer(&format!("/record/collectionPeriod/{which}"))?;
        let part = |name: &str| u32::try_from(date.get(name)?.as_u64()?).ok();
        NaiveDate::from_ymd_opt(part("year")?.try_into().ok()?, part("month")?, part("day")?)
    };
    let Some(last) = day("lastDate") else {
        seen.evidence("the answer does not say of which days it is");
        return;
    };
    let first = day("firstDate").map(|d| format!("{d} to ")).unwrap_or_default();
    seen.evidence(format!("visitors of {first}{last}"));
    if (now.date_naive() - last).num_days() > OLDEST_DAYS {
        seen.evidence("that is too long ago");
        return;
    }
    for (name, metric, unit, per) in VITALS {
        let Some(metric) = metrics.get(metric) else {
            // Too few visitors did anything, on a page that nobody has to touch.
            seen.not_applicable(name, "the report has none of this site");
            continue;
        };
        let p75 = match metric.pointer("/percentiles/p75") {
            Some(Json::Number(n)) => n.as_f64(),
            Some(Json::String(text)) => text.parse().ok(),
            _ => None,
        };
        if let Some(p75) = p75 {
            seen.number(name, p75 / per, unit);
        }
    }
}

/// `{"error":{"code":404,"message":"chrome ux report data not found","status":"NOT_FOUND"}}`
pub(super) fn refused(seen: &mut Observation, status: StatusCode, json: Option<&Json>) {
    let error = |key: &str| json.and_then(|j| j.pointer(&format!("/error/{key}"))).and_then(Json::as_str);
    let said = error("message").unwrap_or_default();
    if !said.is_empty() {
        seen.evidence(said.chars().take(200).collect::<String>());
    }
    match status.as_u16() {
        404 if error("status") == Some("NOT_FOUND") => {
            let why = "the report has too few visitors of this site";
            seen.not_applicable("key accepted", why);
            for (name, ..) in VITALS {
                seen.not_applicable(name, why);
            }
        }
        401 | 403 => {
            seen.flag("key accepted", false);
        }
        // A key that is none is a bad request.
        400 if said.contains("API key") => {
            seen.flag("key accepted", false);
        }
        _ => {}
    }
}
