//! The items of the guides' checklist: 30 in six sections, and those of upkeep, of a deployment, of an incident.

mod compliance;
mod data;
mod gates;
mod identity;
mod infrastructure;
mod input;
mod monitoring;
mod upkeep;

pub use gates::{deployment_gates, incident_steps};

use crate::item::{Item, Risk};

/// An item as it is written down here.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) risk: Risk,
    pub(crate) why: &'static str,
    pub(crate) references: &'static [&'static str],
    pub(crate) next: &'static str,
    pub(crate) php: &'static str,
    /// What a person says, and whether that is needed even where all checks pass.
    pub(crate) attest: Option<(&'static str, bool)>,
    /// How the checks look, and what can fool them: for the table in `ITEMS.md`.
    pub(crate) how: &'static str,
    pub(crate) fooled: &'static str,
}

const SECTIONS: [(&str, &[Row]); 7] = [
    ("Authentication & Authorization", &identity::ITEMS),
    ("Data Protection", &data::ITEMS),
    ("Input Validation", &input::ITEMS),
    ("Infrastructure", &infrastructure::ITEMS),
    ("Monitoring", &monitoring::ITEMS),
    ("Compliance", &compliance::ITEMS),
    ("Upkeep", &upkeep::ITEMS),
];

/// The items: the thirty of the guides in their six sections, and what upkeep needs, in a seventh.
pub fn items() -> Vec<Item> {
    let of = |section: &str, row: &Row| Item {
        id: row.id.into(),
        section: section.into(),
        title: row.title.into(),
        why: row.why.into(),
        risk: row.risk,
        references: row.references.iter().map(|r| (*r).to_owned()).collect(),
        remedy_next: row.next.into(),
        remedy_php: row.php.into(),
        attest: row.attest.map(|(what, _)| what.to_owned()),
        needs_attestation: row.attest.is_some_and(|(_, always)| always),
    };
    SECTIONS.iter().flat_map(|(section, rows)| rows.iter().map(|row| of(section, row))).collect()
}

/// The table of the items in Markdown: how each is looked at, and what can fool that.
pub fn table() -> String {
    let mut out = String::from(
        "# The items\n\n\
         What is checked automatically, what a person attests, and what can fool the check. Where a check has no access, its\n\
         outcome is unknown; it never passes by having seen nothing.\n",
    );
    for (section, rows) in SECTIONS {
        out.push_str(&format!(
            "\n## {section}\n\n| item | what has to be so | how it is looked at | what can fool that | a person attests |\n|---|---|---|---|---|\n"
        ));
        for row in rows {
            let attest = match row.attest {
                None => "-".to_owned(),
                Some((what, true)) => format!("always: {what}"),
                Some((what, false)) => format!("where no check can know: {what}"),
            };
            let how = if row.how.is_empty() { "by attestation alone" } else { row.how };
            out.push_str(&format!("| `{}` | {} | {how} | {} | {attest} |\n", row.id, row.title, row.fooled));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn thirty_items_in_six_sections_and_each_is_whole() {
        let items = items();
        let guide: Vec<_> = items.iter().filter(|i| i.section != "Upkeep").collect();
        assert_eq!(guide.len(), 30);
        for (section, rows) in &SECTIONS[..6] {
            assert_eq!(rows.len(), 5, "{section}");
        }
        let names: BTreeSet<&str> = items.iter().map(|i| i.id.as_str()).collect();
        assert_eq!(names.len(), items.len(), "a name is used twice");
        for item in &items {
            let texts = [&item.why, &item.remedy_next, &item.remedy_php];
            assert!(texts.iter().all(|t| t.len() > 20), "{}: says too little", item.id);
            assert!(!item.references.is_empty(), "{}: has no reference", item.id);
        }
        let rows = || SECTIONS[..6].iter().flat_map(|(_, rows)| rows.iter());
        assert!(rows().filter(|r| !r.how.is_empty()).count() >= 22);
        assert!(rows().all(|r| !r.how.is_empty() || r.attest.is_some()), "nobody can know it");
        assert!(rows().all(|r| r.how.is_empty() || !r.fooled.is_empty()), "nothing fools it?");
    }

    /// `CARETAKER_BLESS=1` writes the table anew.
    #[test]
    fn the_table_in_the_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ITEMS.md");
        if std::env::var_os("CARETAKER_BLESS").is_some() {
            std::fs::write(path, table()).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == table(), "run this test with CARETAKER_BLESS=1");
    }
}
