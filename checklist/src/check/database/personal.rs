//! Personal data that is readable.

use super::session::{Column, Session};
use crate::error::{Error, ErrorKind, Result};
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// Names of columns whose data has to be encrypted.
const SENSITIVE: [&str; 17] = [
    "ssn",
    "social_security",
    "national_id",
    "nin",
    "bvn",
    "passport",
    "tax_id",
    "taxid",
    "iban",
    "account_number",
    "bank_account",
    "sort_code",
    "date_of_birth",
    "birth_date",
    "birthday",
    "driver_licen",
    "id_card",
];
/// Names of those that a shop cannot do without; they are counted.
const CONTACT: [&str; 8] = ["email", "phone", "mobile", "street", "address", "postcode", "first_name", "last_name"];
/// Rows of a column that are looked at.
const SAMPLE: u32 = 2_000;
/// A nonce, a tag and a block, in base64: nothing encrypted is shorter.
const SHORTEST: u32 = 40;

/// Columns named like numbers of identity papers, bank accounts and dates of birth: whether what is in them can be read.
pub(super) async fn readable(session: &mut Session, _: &Context) -> Result<Finding> {
    let columns = session.columns().await?;
    if columns.is_empty() {
        return Ok(Finding::unknown("the login sees no table"));
    }
    let contact = columns.iter().filter(|c| is_named(c, &CONTACT)).count();
    let (mut places, mut facts, mut values) = (Vec::new(), Vec::new(), 0);
    let sensitive: Vec<&Column> = columns.iter().filter(|c| is_named(c, &SENSITIVE)).collect();
    for column in &sensitive {
        let (filled, short) = sample(session, column).await?;
        values += filled;
        facts.push(format!("{} {}", column.place(), short > 0));
        if short > 0 {
            places.push(Place::new(column.place(), None, format!("{short} of {filled} values can be read")));
        }
    }
    let fact = facts.join("\n");
    Ok(match places.len() {
        // A login that row security keeps out sees empty columns as well.
        0 if values == 0 && !sensitive.is_empty() => {
            Finding::unknown(format!("{} columns of personal data, and no value of them is seen", sensitive.len()))
        }
        0 => Finding::pass(format!(
            "of {} columns none of {} that are named like identity papers, accounts or dates of birth can be read; {contact} hold contacts",
            columns.len(),
            sensitive.len()
        )),
        n => Finding::fail(format!("{n} columns of personal data can be read by whoever reads the database")).with_places(places),
    }
    .with_fact(fact))
}

/// Whole words of a name: `nin` is none of `opening`.
fn is_named(column: &Column, names: &[&str]) -> bool {
    let name = column.name.to_lowercase();
    let words: Vec<&str> = name.split('_').collect();
    names.iter().any(|wanted| match wanted.contains('_') {
        true => name.contains(wanted),
        false => words.contains(wanted) || name == *wanted,
    })
}

/// Values in a sample, and how many of them are too short to be encrypted.
async fn sample(session: &mut Session, column: &Column) -> Result<(u64, u64)> {
    let (name, table) = (session.quoted(&column.name), session.table(column));
    let value = session.text(&name);
    let sql = format!(
        "SELECT {}, {} FROM (SELECT {value} AS v FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLE}) AS sample WHERE v <> ''",
        session.text("count(*)"),
        session.text(&format!("count(CASE WHEN length(v) < {SHORTEST} THEN 1 END)")),
    );
    let rows = session.rows(&sql).await?;
    let number = |at: usize| {
        let value = rows.first().and_then(|row| row.get(at)).and_then(|v| v.as_deref()?.parse().ok());
        value.ok_or_else(|| {
            Error::new(ErrorKind::Malformed, format!("{}: the server's count is no number", column.place()))
        })
    };
    Ok((number(0)?, number(1)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_whole_words() {
        let column =
            |name: &str| Column { schema: "public".into(), table: "t".into(), name: name.into(), kind: "text".into() };
        for name in ["ssn", "customer_ssn", "date_of_birth", "IBAN", "passport_number", "bvn"] {
            assert!(is_named(&column(name), &SENSITIVE), "{name}");
        }
        for name in ["opening", "assn", "passports_seen_at", "name", "nine"] {
            assert!(!is_named(&column(name), &SENSITIVE), "{name}");
        }
    }
}
