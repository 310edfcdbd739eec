//! The values of rows of text, as a prepared statement takes them.

use sqlx::Arguments;
use sqlx::mysql::MySqlArguments;

/// A value as the source writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Null,
    Number(&'a str),
    /// In hexadecimal.
    Bytes(&'a str),
    /// With its escapes.
    Text(&'a str),
}

/// How many values the first of these rows has; `None` where they are not written as this crate's source writes them.
pub(super) fn columns(rows: &str) -> Option<usize> {
    let mut reader = Reader { rest: rows };
    let mut columns = 0;
    loop {
        let (_, is_last) = reader.value(columns == 0)?;
        columns += 1;
        if is_last {
            return Some(columns);
        }
    }
}

/// The values of these rows, which have `columns` each. `None` where they are not written as this crate's source writes
/// them.
///
/// A column gets from each value what it would get from the literal: whole numbers are sent as numbers, because a BIT, a
/// YEAR and an ENUM take a text otherwise; all others as text, because a double would not hold every DECIMAL.
pub(super) fn arguments(rows: &str, columns: usize) -> Option<MySqlArguments> {
    let mut reader = Reader { rest: rows };
    let mut arguments = MySqlArguments::default();
    arguments.reserve(0, rows.len());
    let mut scratch = Vec::new();
    let mut text = String::new();
    loop {
        for column in 0..columns {
            let (value, is_last) = reader.value(column == 0)?;
            if is_last != (column + 1 == columns) {
                return None;
            }
            let added = match value {
                Value::Null => arguments.add(None::<&str>),
                Value::Number(number) => match (number.parse::<i64>(), number.parse::<u64>()) {
                    (Ok(n), _) => arguments.add(n),
                    (_, Ok(n)) => arguments.add(n),
                    _ => arguments.add(number),
                },
                Value::Bytes(hexadecimal) => {
                    scratch.resize(hexadecimal.len() / 2, 0);
                    hex::decode_to_slice(hexadecimal, &mut scratch).ok()?;
                    arguments.add(scratch.as_slice())
                }
                Value::Text(escaped) if !escaped.contains('\\') => arguments.add(escaped),
                Value::Text(escaped) => {
                    unescape(escaped, &mut text)?;
                    arguments.add(text.as_str())
                }
            };
            added.ok()?;
        }
        if reader.rest.is_empty() {
            return Some(arguments);
        }
        reader.rest = reader.rest.strip_prefix(",\n")?;
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// The next value of a row, and whether it is the row's last.
    fn value(&mut self, is_first: bool) -> Option<(Value<'a>, bool)> {
        if is_first {
            self.rest = self.rest.strip_prefix('(')?;
        }
        let value = match self.rest.as_bytes().first()? {
            b'\'' => Value::Text(self.quoted(1)?),
            b'X' => Value::Bytes(self.quoted(2)?),
            b'N' => {
                self.rest = self.rest.strip_prefix("NULL")?;
                Value::Null
            }
            _ => {
                let end = self.rest.find([',', ')'])?;
                let number = self.take(end);
                let is_number = !number.is_empty()
                    && number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e' | b'E'));
                Value::Number(is_number.then_some(number)?)
            }
        };
        let is_last = match self.take(1) {
            "," => false,
            ")" => true,
            _ => return None,
        };
        Some((value, is_last))
    }

    /// What stands between quotes, the first of which ends at `from`.
    fn quoted(&mut self, from: usize) -> Option<&'a str> {
        let bytes = self.rest.as_bytes();
        if bytes.get(from - 1) != Some(&b'\'') {
            return None;
        }
        let mut end = from;
        loop {
            end += memchr::memchr2(b'\'', b'\\', bytes.get(end..)?)?;
            if bytes[end] == b'\'' {
                break;
            }
            end += 2;
        }
        let whole = self.take(end + 1);
        whole.get(from..end)
    }

    /// The next bytes; none where a character is not whole.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or_default();
        self.rest = rest;
        taken
    }
}

fn unescape(escaped: &str, out: &mut String) -> Option<()> {
    out.clear();
    let mut parts = escaped.split('\\');
    out.push_str(parts.next()?);
    while let Some(part) = parts.next() {
        let mut characters = part.chars();
        match characters.next() {
            Some('0') => out.push('\0'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('Z') => out.push('\x1a'),
            Some('\'') => out.push('\''),
            // A backslash of its own: what follows it up to the next one is plain.
            None => {
                out.push('\\');
                out.push_str(parts.next()?);
            }
            Some(_) => return None,
        }
        out.push_str(characters.as_str());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(rows: &str) -> Option<Vec<(Value<'_>, bool)>> {
        let mut reader = Reader { rest: rows };
        let mut all = Vec::new();
        let mut is_first = true;
        while !reader.rest.is_empty() {
            let (value, is_last) = reader.value(is_first)?;
            all.push((value, is_last));
            is_first = is_last;
            reader.rest = if is_last { reader.rest.strip_prefix(",\n").unwrap_or(reader.rest) } else { reader.rest };
        }
        Some(all)
    }

    #[test]
    fn values_are_what_the_source_wrote() {
        let rows = "(1,-2.5,NULL,X'00FF','a,(b)\\'\\\\'),\n(18446744073709551615,-1e-7,'',X'','ü')";
        assert_eq!(columns(rows), Some(5));
        assert_eq!(
            values(rows).unwrap(),
            [
                (Value::Number("1"), false),
                (Value::Number("-2.5"), false),
                (Value::Null, false),
                (Value::Bytes("00FF"), false),
                (Value::Text("a,(b)\\'\\\\"), true),
                (Value::Number("18446744073709551615"), false),
                (Value::Number("-1e-7"), false),
                (Value::Text(""), false),
                (Value::Bytes(""), false),
                (Value::Text("ü"), true),
            ]
        );
        assert_eq!(arguments(rows, 5).unwrap().len(), 10);
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_the_server() {
        for rows in [
            "",
            "(1",
            "(1,2",
            "(1,2)",
            "(1,2,3),(4,5,6)",
            "(1,2,3),\n(4,5)",
            "(1,2,3),\n",
            "(1,2,now())",
            "(1,2,'a",
            "(1,2,'a\\",
            "(1,2,'a\\'",
            "(1,2,'a\\x')",
            "(1,2,X'0')",
            "(1,2,X'0g')",
            "(1,2,)",
            "(1,2,_latin1'x')",
            "(1,2,ü)",
            "(1,2,3) ON DUPLICATE KEY UPDATE a = 1",
        ] {
            assert!(arguments(rows, 3).is_none(), "{rows}");
        }
    }

    proptest! {
        #[test]
        fn text_comes_back(text in r"[\\'\n\r\x00\x1aa0nrZü,()]{0,40}") {
            // As the source escapes it.
            let escaped: String = text
                .chars()
                .map(|c| match c {
                    '\0' => "\\0".into(),
                    '\n' => "\\n".into(),
                    '\r' => "\\r".into(),
                    '\x1a' => "\\Z".into(),
                    '\\' | '\'' => format!("\\{c}"),
                    other => other.to_string(),
                })
                .collect();
            let mut out = "before".to_owned();
            unescape(&escaped, &mut out).unwrap();
            prop_assert_eq!(out, text);
            let row = format!("('{escaped}',7)");
            prop_assert_eq!(values(&row), Some(vec![(Value::Text(&escaped), false), (Value::Number("7"), true)]));
        }

        #[test]
        fn no_text_makes_it_fall_over(rows in r"[(),'\\X0-9e.NUL\nü-]{0,60}", columns in 1usize..4) {
            let _ = arguments(&rows, columns);
            let _ = super::columns(&rows);
        }
    }
}
