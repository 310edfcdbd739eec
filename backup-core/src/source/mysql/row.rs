//! Rows as text that is safe for every type.

use futures::TryStreamExt;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use super::table::Select;
use crate::error::{Error, ErrorKind, Result};
use crate::mysql::Database;
use crate::pipeline::Blocks;
use crate::source::sessions::Pieces;
use crate::sql::trusted;

/// Rows are handed on in pieces of this many bytes.
const PIECE: usize = 512 * 1024;

/// How a column's values are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As the server prints it.
    Number,
    /// As a double: a FLOAT is printed rounded, and does not come back the same.
    Float,
    /// As a number: bits are no text, and a number is all that tells some values of an ENUM apart.
    Bit,
    /// In hexadecimal: bytes are no text either.
    Bytes,
    /// The same, already in hexadecimal: the driver does not know the type.
    Vector,
    /// In quotes, as `utf8mb4`.
    Text,
}

impl Form {
    /// Of a type as `information_schema` names it: in short, and with all its details.
    pub(super) fn of(data_type: &str, column_type: &str) -> Self {
        match data_type.to_ascii_lowercase().as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "double" | "year" => Self::Number,
            // What is not one of its values reads as '', and so does the value ''.
            "enum" if has_empty_member(column_type) => Self::Bit,
            "float" => Self::Float,
            "vector" => Self::Vector,
            "bit" => Self::Bit,
            "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry" | "point"
            | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection"
            | "geomcollection" => Self::Bytes,
            _ => Self::Text,
        }
    }

    /// What to select for the column of this name.
    pub(super) fn expression(self, column: &str) -> String {
        match self {
            // A sum would lose the sign of a zero.
            Self::Float => format!("{column}*1e0"),
            Self::Bit => format!("{column}+0"),
            Self::Vector => format!("HEX({column})"),
            Self::Number | Self::Bytes | Self::Text => column.to_owned(),
        }
    }

    fn write(self, value: &[u8], out: &mut Vec<u8>) {
        match self {
            // As a whole number it would be 0.
            Self::Number | Self::Float if value == b"-0" => out.extend_from_slice(b"-0e0"),
            Self::Number | Self::Float | Self::Bit => out.extend_from_slice(value),
            Self::Bytes => {
                out.extend_from_slice(b"X'");
                let at = out.len();
                out.resize(at + 2 * value.len(), 0);
                // The room is exactly right, so this cannot fail.
                let _ = hex::encode_to_slice(value, &mut out[at..]);
                out.push(b'\'');
            }
            Self::Vector => {
                out.extend_from_slice(b"X'");
                out.extend_from_slice(value);
                out.push(b'\'');
            }
            Self::Text => {
                out.push(b'\'');
                let mut rest = value;
                while let Some(at) = rest.iter().position(|b| matches!(b, 0 | b'\n' | b'\r' | b'\\' | b'\'' | 0x1a)) {
                    out.extend_from_slice(&rest[..at]);
                    out.push(b'\\');
                    out.push(match rest[at] {
                        0 => b'0',
                        b'\n' => b'n',
                        b'\r' => b'r',
                        0x1a => b'Z',
                        other => other,
                    });
                    rest = &rest[at + 1..];
                }
                out.extend_from_slice(rest);
                out.push(b'\'');
            }
        }
    }
}

/// Whether one of the members of `enum('a','','b')` is empty.
fn has_empty_member(column_type: &str) -> bool {
    let Some(list) = column_type.split_once('(').map(|(_, list)| list) else { return false };
    let mut inside = false;
    let mut empty = false;
    let mut characters = list.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, inside) {
            ('\'', false) => (inside, empty) = (true, true),
            ('\'', true) if characters.next_if_eq(&'\'').is_some() => empty = false,
            ('\'', true) if empty => return true,
            ('\'', true) => inside = false,
            (_, true) => empty = false,
            _ => {}
        }
    }
    false
}

/// Reads a table, one row a line.
pub(super) async fn read(
    database: &Database,
    session: &mut MySqlConnection,
    select: &Select,
    send: &Pieces,
    blocks: &Blocks,
) -> Result<()> {
    let failed = |e| database.failed(&format!("could not read {} to its end", select.table), e);
    let mut out = blocks.take(PIECE + PIECE / 8);
    let mut rows = session.fetch(sqlx::raw_sql(trusted(select.sql.as_str())));
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        write(&row, &select.forms, &mut out).map_err(failed)?;
        if out.len() >= PIECE {
            let full = std::mem::replace(&mut out, blocks.take(PIECE + PIECE / 8));
            if send.send(Ok(blocks.share(full).into())).await.is_err() {
                return Err(Error::new(ErrorKind::Source, format!("reading {} was broken off", database.location())));
            }
        }
    }
    if !out.is_empty() {
        // Whether anybody still listens shows at the end of the capture.
        let _ = send.send(Ok(blocks.share(out).into())).await;
    }
    Ok(())
}

fn write(row: &MySqlRow, forms: &[Form], out: &mut Vec<u8>) -> Result<(), sqlx::Error> {
    for (n, form) in forms.iter().enumerate() {
        out.push(if n == 0 { b'(' } else { b',' });
        // The first value of each row is not data.
        match row.try_get_unchecked::<Option<&[u8]>, _>(n + 1)? {
            None => out.extend_from_slice(b"NULL"),
            Some(value) => form.write(value, out),
        }
    }
    out.extend_from_slice(b")\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the server reads a quoted string.
    fn unquote(text: &[u8]) -> Vec<u8> {
        let mut inner = text[1..text.len() - 1].iter();
        let mut out = Vec::new();
        while let Some(b) = inner.next() {
            out.push(match b {
                b'\\' => match inner.next().unwrap() {
                    b'0' => 0,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b'Z' => 0x1a,
                    other => *other,
                },
                b'\'' => panic!("a quote inside"),
                other => *other,
            });
        }
        out
    }

    #[test]
    fn an_empty_member_is_found() {
        for (column_type, empty) in [
            ("enum('a','b')", false),
            ("enum('a','')", true),
            ("enum('')", true),
            ("enum('b''c','''')", false),
            ("enum('','x')", true),
            ("int(11)", false),
        ] {
            assert_eq!(has_empty_member(column_type), empty, "{column_type}");
        }
    }

    proptest! {
        #[test]
        fn text_comes_back_and_stays_on_its_line(text in "(?s).{0,60}", raw in prop::collection::vec(any::<u8>(), 0..40)) {
            let mut out = Vec::new();
            Form::Text.write(text.as_bytes(), &mut out);
            prop_assert!(!out.contains(&b'\n'));
            prop_assert_eq!(unquote(&out), text.as_bytes());
            out.clear();
            Form::Bytes.write(&raw, &mut out);
            prop_assert_eq!(out, format!("X'{}'", hex::encode(&raw)).into_bytes());
        }
    }
}
