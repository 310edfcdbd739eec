//! One value as a SQL literal on one line, exact for every storage class.

use std::fmt::Write;

use bytes::BytesMut;
use sqlx::sqlite::{SqliteRow, SqliteValueRef};
use sqlx::{Decode, Row, Sqlite, TypeInfo, ValueRef};

/// How the database stores text: what a blob cast to text is read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

/// All values of a row, separated by commas.
pub(super) fn write_values(out: &mut BytesMut, row: &SqliteRow, encoding: Encoding) -> Result<(), sqlx::Error> {
    for at in 0..row.len() {
        if at > 0 {
            out.extend_from_slice(b",");
        }
        write_value(out, row.try_get_raw(at)?, encoding).map_err(sqlx::Error::Decode)?;
    }
    Ok(())
}

fn write_value(
    out: &mut BytesMut,
    value: SqliteValueRef<'_>,
    encoding: Encoding,
) -> Result<(), sqlx::error::BoxDynError> {
    if value.is_null() {
        out.extend_from_slice(b"NULL");
        return Ok(());
    }
    // Not the declared type but that of this very value.
    let class = value.type_info().into_owned();
    match class.name() {
        "INTEGER" => {
            let n = <i64 as Decode<'_, Sqlite>>::decode(value)?;
            write!(out, "{n}")?;
        }
        "REAL" => write_real(out, <f64 as Decode<'_, Sqlite>>::decode(value)?),
        "TEXT" => write_text(out, <&[u8] as Decode<'_, Sqlite>>::decode(value)?, encoding),
        "BLOB" => write_hex(out, <&[u8] as Decode<'_, Sqlite>>::decode(value)?),
        other => return Err(format!("a value of the unknown storage class {other}").into()),
    }
    Ok(())
}

/// SQLite reads decimal numbers with less than full care: far from 1, or where the digits lie almost in the middle
/// between two doubles, it may take the neighbour (found by the property test below, with 3.51). What it might get wrong
/// is written as an integer times or over powers of two, which every version computes exactly.
fn write_real(out: &mut BytesMut, x: f64) {
    // Beyond the largest double is what SQLite reads as infinity; it stores no NaN.
    let text = if x == f64::INFINITY {
        "9e999".to_owned()
    } else if x == f64::NEG_INFINITY {
        "-9e999".to_owned()
    } else if reads_back(x) {
        // The shortest digits that give the same double again, always with a point or an exponent.
        format!("{x:?}")
    } else {
        exact_expression(x)
    };
    out.extend_from_slice(text.as_bytes());
}

/// Mantissa and exponent: `|x| = m * 2^q`, with the smallest integer `m`.
fn parts(x: f64) -> (u64, i32) {
    let bits = x.to_bits();
    let exponent = ((bits >> 52) & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    let (m, q) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    match m.trailing_zeros() {
        64 => (0, 0),
        zeros => (m >> zeros, q + zeros as i32),
    }
}

/// Whether the shortest decimal form of `x` has a small exponent and lies at most 31/64 of a unit in the last place away
/// from `x`: then any reader that errs by less than 1/64 of a unit gives `x` again.
fn reads_back(x: f64) -> bool {
    const MAX_EXPONENT: i32 = 22;
    let (m, q) = parts(x);
    if m == 0 {
        return true;
    }
    let text = format!("{:e}", x.abs());
    let Some((digits, exponent)) = text.split_once('e') else { return false };
    let Ok(exponent) = exponent.parse::<i32>() else { return false };
    let decimals = digits.len().saturating_sub(2) as i32;
    let Ok(digits) = digits.replace('.', "").parse::<u128>() else { return false };
    // |x| is about digits * 10^-k.
    let k = decimals - exponent;
    if !(0..=MAX_EXPONENT).contains(&k) || !(-126..=0).contains(&q) {
        // An integer below 2^53 is exact however it is read.
        return q >= 0 && (-MAX_EXPONENT..=0).contains(&k) && x.abs() < 9_007_199_254_740_992.0;
    }
    // In units of 2^q * 10^-k: how far apart, and how much is allowed. The last place of x is 2^(q + shift).
    let shift = 53 - (64 - m.leading_zeros() as i32);
    let ten = 10u128.pow(k as u32);
    let (Some(a), Some(b)) = (digits.checked_mul(1u128 << -q), u128::from(m).checked_mul(ten)) else { return false };
    let distance = a.abs_diff(b);
    distance
        .checked_mul(64)
        .and_then(|d| d.checked_mul(1u128.checked_shl(shift as u32)?))
        .is_some_and(|d| d <= ten * 31)
}

/// `x` as an integer times or over powers of two.
fn exact_expression(x: f64) -> String {
    let (m, mut q) = parts(x);
    let sign = if x.is_sign_negative() { "-" } else { "" };
    let mut text = format!("({sign}{m}*1.0");
    while q != 0 {
        // The largest power of two that is an integer of SQLite is 2^62.
        let step = q.clamp(-62, 62);
        let operator = if q > 0 { '*' } else { '/' };
        text.push_str(&format!("{operator}{}", 1u64 << step.unsigned_abs()));
        q -= step;
    }
    text.push(')');
    text
}

fn write_text(out: &mut BytesMut, text: &[u8], encoding: Encoding) {
    let plain = memchr::memchr3(b'\n', b'\r', 0, text).is_none() && std::str::from_utf8(text).is_ok();
    if plain {
        out.extend_from_slice(b"'");
        for part in text.split_inclusive(|b| *b == b'\'') {
            out.extend_from_slice(part);
            if part.ends_with(b"'") {
                out.extend_from_slice(b"'");
            }
        }
        out.extend_from_slice(b"'");
        return;
    }
    // A line end would break the line, a NUL would end the statement, other bytes are no text to a parser.
    out.extend_from_slice(b"CAST(");
    match encoding {
        Encoding::Utf8 => write_hex(out, text),
        Encoding::Utf16Le | Encoding::Utf16Be => {
            let units = String::from_utf8_lossy(text).encode_utf16().collect::<Vec<_>>();
            let bytes: Vec<u8> = units
                .iter()
                .flat_map(|u| if encoding == Encoding::Utf16Le { u.to_le_bytes() } else { u.to_be_bytes() })
                .collect();
            write_hex(out, &bytes);
        }
    }
    out.extend_from_slice(b" AS TEXT)");
}

fn write_hex(out: &mut BytesMut, bytes: &[u8]) {
    out.extend_from_slice(b"X'");
    out.extend_from_slice(hex::encode(bytes).as_bytes());
    out.extend_from_slice(b"'");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sqlx::{Connection, SqliteConnection};

    use super::*;
    use crate::sql;

    async fn round_trip(kind: &str, literal: &[u8], encoding: &str) -> SqliteRow {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql(sql::trusted(format!("PRAGMA encoding='{encoding}'; CREATE TABLE t(a {kind})")))
            .execute(&mut db)
            .await
            .unwrap();
        let insert = format!("INSERT INTO t VALUES({})", std::str::from_utf8(literal).unwrap());
        sqlx::raw_sql(sql::trusted(insert)).execute(&mut db).await.unwrap();
        sqlx::query("SELECT a, typeof(a) FROM t").fetch_one(&mut db).await.unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn what_a_shop_holds_stays_readable() {
        let written = |x| {
            let mut out = BytesMut::new();
            write_real(&mut out, x);
            String::from_utf8(out.to_vec()).unwrap()
        };
        let plain = (0..100_000).filter(|cents| !written(f64::from(*cents) / 100.0).starts_with('(')).count();
        assert!(plain > 95_000, "{plain} of 100,000 prices are plain decimals");
        assert_eq!(written(19.5), "19.5");
        assert_eq!(written(-3.0), "-3.0");
        assert!(written(1e300).starts_with('(') && written(5e-324).ends_with("/1048576)"), "{}", written(5e-324));
    }

    /// Reads every one of these numbers with SQLite, many in one statement.
    async fn misread(numbers: &[f64]) -> Vec<(f64, f64)> {
        let mut db = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let mut wrong = Vec::new();
        for chunk in numbers.chunks(500) {
            let mut text = BytesMut::from("SELECT column1 FROM (VALUES ");
            for (n, x) in chunk.iter().enumerate() {
                text.extend_from_slice(if n == 0 { b"(" } else { b",(" });
                write_real(&mut text, *x);
                text.extend_from_slice(b")");
            }
            text.extend_from_slice(b")");
            let text = String::from_utf8(text.to_vec()).unwrap();
            let found: Vec<f64> = sqlx::query_scalar(sql::trusted(text)).fetch_all(&mut db).await.unwrap();
            assert_eq!(found.len(), chunk.len());
            wrong.extend(chunk.iter().copied().zip(found).filter(|(x, y)| x.to_bits() != y.to_bits()));
        }
        wrong
    }

    #[test]
    fn prices_weights_and_edges_come_back_bit_by_bit() {
        let mut numbers: Vec<f64> = (0..200_000).map(|n| f64::from(n) / 100.0).collect();
        numbers.extend((0..50_000).map(|n| f64::from(n) * 0.001_7));
        numbers.extend([
            f64::MIN_POSITIVE,
            f64::MAX,
            f64::MIN,
            5e-324,
            0.1 + 0.2,
            9_007_199_254_740_993.0,
            1e15,
            1e16,
            1e17,
            1e22,
            1e23,
            4.35,
            2.675,
        ]);
        assert_eq!(block_on(misread(&numbers)), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]
        #[test]
        fn doubles_come_back_bit_by_bit(
            bits in prop::collection::vec(any::<u64>(), 300),
            near in prop::collection::vec((1u64..10_000_000_000_000_000, 0i32..24), 300),
        ) {
            let any = bits.into_iter().map(f64::from_bits).filter(|x| !x.is_nan() && *x != 0.0);
            let human = near.into_iter().filter_map(|(n, k)| format!("{n}e-{k}").parse::<f64>().ok());
            let numbers: Vec<f64> = any.chain(human).collect();
            prop_assert_eq!(block_on(misread(&numbers)), []);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn any_bytes_come_back_as_text_and_as_blob(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'\n'), Just(b'\''), any::<u8>()], 0..40)) {
            let mut out = BytesMut::new();
            write_text(&mut out, &bytes, Encoding::Utf8);
            prop_assert!(!out.contains(&b'\n'));
            let row = block_on(round_trip("", &out, "UTF-8"));
            prop_assert_eq!(row.get::<String, _>(1), "text");
            prop_assert_eq!(row.get_unchecked::<Vec<u8>, _>(0), bytes.clone());
            out.clear();
            write_hex(&mut out, &bytes);
            let row = block_on(round_trip("", &out, "UTF-8"));
            prop_assert_eq!(row.get::<String, _>(1), "blob");
            prop_assert_eq!(row.get_unchecked::<Vec<u8>, _>(0), bytes);
        }

        #[test]
        fn text_comes_back_from_utf16_databases(text in "[\\x00\n'a-zäß😀]{0,20}") {
            for (encoding, name) in [(Encoding::Utf16Le, "UTF-16le"), (Encoding::Utf16Be, "UTF-16be")] {
                let mut out = BytesMut::new();
                write_text(&mut out, text.as_bytes(), encoding);
                let row = block_on(round_trip("TEXT", &out, name));
                prop_assert_eq!(row.get_unchecked::<Vec<u8>, _>(0), text.as_bytes());
            }
        }
    }
}
