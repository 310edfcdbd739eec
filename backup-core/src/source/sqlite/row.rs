//! One value as a SQL literal on one line, exact for every storage class.

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
    let class = value.type_info().name().to_owned();
    match class.as_str() {
        "INTEGER" => {
            let n = <i64 as Decode<'_, Sqlite>>::decode(value)?;
            out.extend_from_slice(n.to_string().as_bytes());
        }
        "REAL" => write_real(out, <f64 as Decode<'_, Sqlite>>::decode(value)?),
        "TEXT" => write_text(out, <&[u8] as Decode<'_, Sqlite>>::decode(value)?, encoding),
        "BLOB" => write_hex(out, <&[u8] as Decode<'_, Sqlite>>::decode(value)?),
        other => return Err(format!("a value of the unknown storage class {other}").into()),
    }
    Ok(())
}

fn write_real(out: &mut BytesMut, x: f64) {
    // Beyond the largest double is what SQLite reads as infinity; it stores no NaN.
    let text = if x == f64::INFINITY {
        "9e999".to_owned()
    } else if x == f64::NEG_INFINITY {
        "-9e999".to_owned()
    } else {
        // The shortest digits that give the same double again, always with a point or an exponent.
        format!("{x:?}")
    };
    out.extend_from_slice(text.as_bytes());
}

fn write_text(out: &mut BytesMut, text: &[u8], encoding: Encoding) {
    let plain = !text.iter().any(|b| matches!(b, b'\n' | b'\r' | 0)) && std::str::from_utf8(text).is_ok();
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
        sqlx::raw_sql(sql::trusted(format!("PRAGMA encoding='{encoding}'; CREATE TABLE t(a {kind})"))).execute(&mut db).await.unwrap();
        let insert = format!("INSERT INTO t VALUES({})", std::str::from_utf8(literal).unwrap());
        sqlx::raw_sql(sql::trusted(insert)).execute(&mut db).await.unwrap();
        sqlx::query("SELECT a, typeof(a) FROM t").fetch_one(&mut db).await.unwrap()
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn doubles_come_back_bit_by_bit(bits: u64) {
            let x = f64::from_bits(bits);
            prop_assume!(!x.is_nan());
            let mut out = BytesMut::new();
            write_real(&mut out, x);
            let row = block_on(round_trip("", &out, "UTF-8"));
            prop_assert_eq!(row.get::<String, _>(1), "real");
            prop_assert_eq!(row.get::<f64, _>(0).to_bits(), x.to_bits(), "{:?}", x);
        }

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
