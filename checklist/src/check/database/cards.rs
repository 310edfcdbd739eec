//! Card numbers where none may be.

use super::session::{Column, Engine, Session};
use crate::error::Result;
use crate::item::Context;
use crate::outcome::{Finding, Place};

/// Rows of a column that are looked at, and candidates of it that are looked at closely.
const SAMPLE: u32 = 20_000;
const CANDIDATES: u32 = 500;
/// Fewer candidates than this say nothing by their share.
const ENOUGH: usize = 10;

/// Columns with digits: how many of them are numbers of cards, by Luhn and the networks' ranges. Numbers of orders look alike: one in
/// ten of them passes Luhn, of cards all do.
pub(super) async fn cards(session: &mut Session, _: &Context) -> Result<Finding> {
    let columns = session.columns().await?;
    if columns.is_empty() {
        return Ok(Finding::unknown("the login sees no table"));
    }
    let kinds = ["int", "numeric", "decimal"];
    let columns = columns.iter().filter(|c| c.is_text() || c.is_json() || kinds.iter().any(|k| c.kind.contains(k)));
    let columns: Vec<&Column> = columns.collect();
    let (mut places, mut few, mut rows) = (Vec::new(), Vec::new(), 0);
    for column in &columns {
        rows += filled(session, column).await?;
        let values = candidates(session, column).await?;
        let likely = values.iter().filter(|v| in_range(v)).count();
        let cards = values.iter().filter(|v| in_range(v) && luhn(v)).count();
        match (cards, likely) {
            (0, _) => {}
            // Half of what has the right beginning and length: ids come to a tenth.
            (n, all) if all >= ENOUGH && n * 2 >= all => places.push((column.place(), n)),
            (n, all) if all >= ENOUGH && !is_more_than_chance(n, all) => {}
            (n, _) => few.push((column.place(), n)),
        }
    }
    let of = |list: Vec<(String, usize)>| {
        list.into_iter().map(|(at, n)| Place::new(at, None, format!("{n} numbers look like cards")))
    };
    Ok(match (places.len(), few.len()) {
        // A login that row security keeps out sees empty tables as well.
        (0, 0) if rows == 0 => Finding::unknown("the login sees no row"),
        (0, 0) => Finding::pass(format!("no number of a card in samples of {} columns", columns.len())),
        (0, n) => {
            Finding::warn(format!("{n} columns hold numbers among others that look like cards")).with_places(of(few))
        }
        (n, _) => Finding::fail(format!("{n} columns hold numbers of cards")).with_places(of(places)),
    })
}

/// Of numbers that are none of cards, one in ten passes Luhn: with a binomial share of 0.1, whether there are four standard deviations more.
fn is_more_than_chance(cards: usize, all: usize) -> bool {
    let all = all as f64;
    cards as f64 > 0.1 * all + 4.0 * (0.09 * all).sqrt()
}

/// 1 where the column has a value, 0 where it has none.
async fn filled(session: &mut Session, column: &Column) -> Result<usize> {
    let (name, table) = (session.quoted(&column.name), session.table(column));
    let one = session.text("1");
    Ok(session.rows(&format!("SELECT {one} FROM {table} WHERE {name} IS NOT NULL LIMIT 1")).await?.len())
}

/// Runs of 13 to 19 digits in the column, spaces and hyphens left out. They stay in this process, and are shown to nobody.
async fn candidates(session: &mut Session, column: &Column) -> Result<Vec<String>> {
    let (name, table) = (session.quoted(&column.name), session.table(column));
    let value = session.text(&name);
    let shaped = match session.engine {
        Engine::Postgres => "v ~ '[0-9]([ -]?[0-9]){12,18}'",
        Engine::Mysql => "v REGEXP '[0-9]([ -]?[0-9]){12,18}'",
        Engine::Sqlite => {
            "length(v) >= 13 AND v GLOB '*[0-9][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9 -][0-9]*'"
        }
    };
    let sql = format!(
        "SELECT v FROM (SELECT substr({value}, 1, 4000) AS v FROM {table} WHERE {name} IS NOT NULL LIMIT {SAMPLE}) AS sample WHERE {shaped} LIMIT {CANDIDATES}"
    );
    let rows = session.rows(&sql).await?;
    Ok(rows.into_iter().flatten().flatten().flat_map(|text| runs(&text)).collect())
}

/// The runs of digits in a text that are as long as a card's number.
fn runs(text: &str) -> Vec<String> {
    let (mut out, mut run, mut gap) = (Vec::new(), String::new(), 0);
    for c in text.chars().chain(['.']) {
        match c {
            '0'..='9' => {
                run.push(c);
                gap = 0;
            }
            ' ' | '-' if !run.is_empty() && gap == 0 => gap = 1,
            _ => {
                if (13..=19).contains(&run.len()) {
                    out.push(std::mem::take(&mut run));
                }
                run.clear();
                gap = 0;
            }
        }
    }
    out
}

/// Whether beginning and length are those of a network: Visa, Mastercard, American Express, Discover, UnionPay, Verve, JCB, Diners.
fn in_range(number: &str) -> bool {
    let first = |n: usize| number.get(..n).and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
    match number.len() {
        13 => first(1) == 4,
        14 => matches!(first(2), 36 | 38 | 39) || (300..=305).contains(&first(3)),
        15 => matches!(first(2), 34 | 37),
        16 => {
            first(1) == 4
                || (51..=55).contains(&first(2))
                || (2221..=2720).contains(&first(4))
                || first(4) == 6011
                || first(2) == 65
                || (644..=649).contains(&first(3))
                || (3528..=3589).contains(&first(4))
                || matches!(first(4), 5060 | 5061)
                || first(2) == 62
        }
        18 | 19 => first(1) == 4 || first(2) == 62 || matches!(first(4), 5060 | 5061),
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812.
fn luhn(number: &str) -> bool {
    let digits = number.bytes().rev().map(|b| u32::from(b - b'0'));
    let doubled = |(at, d): (usize, u32)| match at % 2 {
        0 => d,
        _ if d > 4 => d * 2 - 9,
        _ => d * 2,
    };
    // 0000… passes, and is none.
    number.bytes().any(|b| b != b'0') && digits.enumerate().map(doubled).sum::<u32>() % 10 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_cards_among_other_numbers() {
        assert!(!is_more_than_chance(12, 120) && !is_more_than_chance(22, 120));
        assert!(is_more_than_chance(42, 120) && is_more_than_chance(8, 12));
    }

    #[test]
    fn cards_and_what_looks_like_them() {
        for card in [
            "4111111111111111",
            "5555555555554444",
            "378282246310005",
            "6011111111111117",
            "2223003122003222",
            "5060666666666666666",
        ] {
            assert!(luhn(card) && in_range(card), "{card}");
        }
        assert!(!luhn("4111111111111112") && !luhn("0000000000000000"));
        assert!(!in_range("1234567890123456") && !in_range("20261126120000001"));
        assert_eq!(runs("paid with 4111 1111-1111 1111, thanks 12345"), ["4111111111111111"]);
        assert!(runs("20261126120000000000001").is_empty(), "too long to be one");
    }
}
