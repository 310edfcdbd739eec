//! SARIF 2.1.0 (OASIS): what fails or is worth a look, each at its places.

use serde_json::{Value, json};

use super::Report;
use crate::audit::ItemReport;
use crate::item::Risk;
use crate::outcome::{Outcome, Place};

pub(super) fn render(report: &Report) -> Value {
    let audit = &report.audit;
    let rules: Vec<Value> = audit.items.iter().map(rule).collect();
    let results: Vec<Value> = audit.items.iter().enumerate().flat_map(|(at, item)| results(at, item)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "caretaker checklist",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            }},
            "invocations": [{ "executionSuccessful": true, "endTimeUtc": audit.at.format("%FT%TZ").to_string() }],
            "results": results,
        }],
    })
}

fn rule(item: &ItemReport) -> Value {
    let item = &item.item;
    let or = |text: &str| if text.is_empty() { item.title.clone() } else { text.to_owned() };
    json!({
        "id": item.id,
        "shortDescription": { "text": item.title },
        "fullDescription": { "text": or(&item.why) },
        "help": { "text": format!("Next.js: {}\nPHP: {}\n{}", item.remedy_next, item.remedy_php, item.references.join("; ")) },
        "properties": { "security-severity": severity(item.risk), "tags": ["security", item.section] },
    })
}

/// As GitHub's code scanning sorts: above 9 critical, above 7 high, above 4 medium.
fn severity(risk: Risk) -> &'static str {
    match risk {
        Risk::Critical => "9.5",
        Risk::High => "8.0",
        Risk::Medium => "5.5",
        Risk::Low => "2.0",
    }
}

fn results(rule: usize, item: &ItemReport) -> Vec<Value> {
    let level = match item.outcome {
        Outcome::Fail => "error",
        Outcome::Warn => "warning",
        // What could not be seen is said, without being a fault.
        Outcome::Unknown => "note",
        // A waiver is a suppression, with its reason.
        Outcome::Waived => "error",
        _ => return Vec::new(),
    };
    let kind = if item.outcome == Outcome::Unknown { "open" } else { "fail" };
    let level = if kind == "open" { "none" } else { level };
    let suppressions: Vec<Value> = item
        .waiver
        .iter()
        .filter(|_| item.outcome == Outcome::Waived)
        .map(
            |w| json!({ "kind": "external", "status": "accepted", "justification": format!("{}: {}", w.by, w.reason) }),
        )
        .collect();
    let one = |place: Option<&Place>| {
        let text = place.map_or_else(|| item.reason.clone(), |p| format!("{}: {}", item.item.title, p.what));
        let mut result = json!({
            "ruleId": item.item.id,
            "ruleIndex": rule,
            "kind": kind,
            "level": level,
            "message": { "text": text },
        });
        if let Some(place) = place {
            result["locations"] = json!([location(place)]);
        }
        if !suppressions.is_empty() {
            result["suppressions"] = json!(suppressions);
        }
        result
    };
    let bad = |c: &&crate::audit::CheckReport| matches!(c.outcome, Outcome::Fail | Outcome::Warn);
    let places: Vec<&Place> = item.checks.iter().filter(bad).flat_map(|c| &c.places).collect();
    match places.is_empty() || kind == "open" {
        true => vec![one(None)],
        false => places.into_iter().map(|p| one(Some(p))).collect(),
    }
}

/// A file with a line is a physical location; a table, a port, an address has a logical one.
fn location(place: &Place) -> Value {
    match place.line.filter(|_| !place.at.contains("://")) {
        Some(line) => json!({ "physicalLocation": {
            "artifactLocation": { "uri": encoded(&place.at) },
            "region": { "startLine": line.max(1) },
        }}),
        None => json!({ "logicalLocations": [{ "fullyQualifiedName": place.at }] }),
    }
}

/// A path as a relative reference: what is no character of one is encoded.
fn encoded(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=@".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
