//! SQL with values in it, written piece by piece: names are quoted, values are numbered as the engine does.

use crate::capability::Flavour;
use crate::ident::quoted;
use crate::session::Value;
use crate::table::{Column, Kind, Table};

/// A piece of SQL with its values, that can be put into several statements.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Piece(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Column, Value),
}

impl Piece {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self(vec![Part::Text(text.into())])
    }

    /// The same and this behind it.
    #[must_use]
    pub(crate) fn then(mut self, text: impl Into<String>) -> Self {
        self.0.push(Part::Text(text.into()));
        self
    }

    /// The same and a value of this column's type behind it.
    #[must_use]
    pub(crate) fn value(mut self, column: &Column, value: Value) -> Self {
        self.0.push(Part::Value(column.clone(), value));
        self
    }

    /// The same and another one behind it.
    #[must_use]
    pub(crate) fn piece(mut self, other: &Self) -> Self {
        self.0.extend(other.0.iter().cloned());
        self
    }

    /// The statement and its values.
    pub(crate) fn build(&self, flavour: Flavour) -> (String, Vec<Value>) {
        let (mut sql, mut values) = (String::new(), Vec::new());
        for part in &self.0 {
            match part {
                Part::Text(text) => sql.push_str(text),
                Part::Value(column, value) => {
                    values.push(value.clone());
                    sql.push_str(&column.value(flavour, values.len()));
                }
            }
        }
        (sql, values)
    }
}

/// A value that is a text, whatever column it is for.
pub(crate) fn plain_text() -> Column {
    Column { name: String::new(), type_name: "text".into(), kind: Kind::Text, nullable: true, generated: false }
}

/// A value that is a whole number.
pub(crate) fn plain_number() -> Column {
    Column {
        name: String::new(),
        type_name: "int8".into(),
        kind: Kind::Integer { unsigned: false },
        nullable: true,
        generated: false,
    }
}

/// The rows of `table` that come after `cursor` in the order of `columns`.
///
/// Written out instead of as a comparison of rows, which MySQL does not look up in an index.
pub(crate) fn after(table: &Table, columns: &[Column], cursor: &[Value]) -> Piece {
    let mut all = Piece::text("((");
    for last in 0..columns.len() {
        all = all.then(if last == 0 { "(" } else { " OR (" });
        for (at, (column, value)) in columns.iter().zip(cursor).take(last + 1).enumerate() {
            let and = if at == 0 { "" } else { " AND " };
            let compare = if at == last { " > " } else { " = " };
            all = all.then(format!("{and}{}{compare}", table.of(&column.name))).value(column, value.clone());
        }
        all = all.then(")");
    }
    all = all.then(")");
    // What every such row has in common: where the index is entered.
    match (columns.first(), cursor.first()) {
        (Some(first), Some(value)) if columns.len() > 1 => {
            all.then(format!(" AND {} >= ", table.of(&first.name))).value(first, value.clone()).then(")")
        }
        _ => all.then(")"),
    }
}

/// The rows of `table` with one of these keys.
pub(crate) fn among(table: &Table, keys: &[Vec<Value>]) -> Piece {
    let names: Vec<_> = table.key.iter().map(|c| table.of(&c.name)).collect();
    let row = |piece: Piece, key: &[Value]| {
        table.key.iter().zip(key).enumerate().fold(piece, |piece, (at, (column, value))| {
            piece.then(if at == 0 { "" } else { ", " }).value(column, value.clone())
        })
    };
    let [name] = names.as_slice() else {
        let list = if table.flavour == Flavour::Sqlite { " IN (VALUES " } else { " IN (" };
        let mut piece = Piece::text(format!("({}){list}", names.join(", ")));
        for (at, key) in keys.iter().enumerate() {
            piece = row(piece.then(if at == 0 { "(" } else { ", (" }), key).then(")");
        }
        return piece.then(")");
    };
    if table.flavour == Flavour::Postgres
        && let [column] = table.key.as_slice()
    {
        // As one value: a thousand of them take the server longer to understand than to find.
        let list = Column { type_name: format!("{}[]", column.type_name), ..column.clone() };
        return Piece::text(format!("{name} = ANY (")).value(&list, Some(array(keys))).then(")");
    }
    let mut piece = Piece::text(format!("{name} IN ("));
    for (at, key) in keys.iter().enumerate() {
        piece = row(piece.then(if at == 0 { "" } else { ", " }), key);
    }
    piece.then(")")
}

/// The first value of each key as an array's text (<https://www.postgresql.org/docs/current/arrays.html>, 8.15.6).
fn array(keys: &[Vec<Value>]) -> String {
    let mut text = String::from("{");
    for (at, key) in keys.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        match key.first().and_then(Option::as_deref) {
            Some(value) => {
                text.push('"');
                for c in value.chars() {
                    if matches!(c, '"' | '\\') {
                        text.push('\\');
                    }
                    text.push(c);
                }
                text.push('"');
            }
            None => text.push_str("NULL"),
        }
    }
    text.push('}');
    text
}

/// Columns of `table` as texts, for a SELECT.
pub(crate) fn texts(table: &Table, columns: &[Column]) -> String {
    let text = |c: &Column| c.text(table.flavour, &table.of(&c.name));
    columns.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// `columns` as an order.
pub(crate) fn order(table: &Table, columns: &[Column]) -> String {
    columns.iter().map(|c| table.of(&c.name)).collect::<Vec<_>>().join(", ")
}

/// Whether `a` and `b` are the same, NULL being the same as NULL.
pub(crate) fn same(flavour: Flavour, a: &str) -> String {
    match flavour {
        Flavour::Postgres => format!("{a} IS NOT DISTINCT FROM "),
        Flavour::Mysql | Flavour::MariaDb => format!("{a} <=> "),
        Flavour::Sqlite => format!("{a} IS "),
    }
}

/// Texts put together.
pub(crate) fn concatenated(flavour: Flavour, parts: Vec<Piece>) -> Piece {
    let (open, between, close) = match flavour {
        Flavour::Mysql | Flavour::MariaDb => ("CONCAT(", ", ", ")"),
        _ => ("(", " || ", ")"),
    };
    let mut all = Piece::text(open);
    for (at, part) in parts.iter().enumerate() {
        all = all.then(if at == 0 { "" } else { between }).piece(part);
    }
    all.then(close)
}

/// A column's name as SQL, where a table may not be named: left of `=` in an UPDATE.
pub(crate) fn bare(table: &Table, column: &str) -> String {
    quoted(table.flavour, column)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::TableName;

    fn table(flavour: Flavour) -> Table {
        let column = |name: &str| Column { name: name.into(), ..plain_number() };
        Table {
            flavour,
            name: TableName::new("", "t"),
            columns: vec![column("a"), column("b")],
            key: vec![column("a"), column("b")],
            primary: vec![],
            indexes: vec![],
            followers: vec![],
            is_transactional: true,
        }
    }

    #[test]
    fn a_cursor_is_written_out_column_by_column() {
        let t = table(Flavour::Sqlite);
        let cursor = vec![Some("1".to_owned()), Some("2".to_owned())];
        let (sql, values) = after(&t, &t.key, &cursor).build(t.flavour);
        assert_eq!(
            sql,
            "(((\"t\".\"a\" > CAST(?1 AS INTEGER)) OR (\"t\".\"a\" = CAST(?2 AS INTEGER) AND \"t\".\"b\" > CAST(?3 AS INTEGER))) \
             AND \"t\".\"a\" >= CAST(?4 AS INTEGER))"
        );
        assert_eq!(values.len(), 4);
    }

    #[test]
    fn keys_of_one_column_are_one_array_whatever_they_hold() {
        let mut t = table(Flavour::Postgres);
        t.key.truncate(1);
        let keys = ["1", "a\"b\\c,{}"].map(|key| vec![Some(key.to_owned())]);
        let (sql, values) = among(&t, &keys).build(t.flavour);
        assert_eq!(sql, "\"t\".\"a\" = ANY ($1::text::int8[])");
        assert_eq!(values, [Some(r#"{"1","a\"b\\c,{}"}"#.to_owned())]);
    }

    #[test]
    fn keys_are_numbered_and_quoted_as_the_engine_does() {
        let keys = vec![vec![Some("1".to_owned()), Some("2".to_owned())]; 2];
        let of = |flavour| among(&table(flavour), &keys).build(flavour).0;
        assert!(
            of(Flavour::Postgres).ends_with("IN (($1::text::int8, $2::text::int8), ($3::text::int8, $4::text::int8))")
        );
        assert!(of(Flavour::MariaDb).starts_with("(`t`.`a`, `t`.`b`) IN ((CAST(? AS SIGNED), "));
        assert!(of(Flavour::Sqlite).contains("IN (VALUES (CAST(?1 AS INTEGER), "));
    }
}
