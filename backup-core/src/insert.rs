//! From rows, one a line, to statements that insert many at once.

use crate::error::{Error, ErrorKind, Result};

/// Gathers rows into `INSERT` statements.
#[derive(Debug)]
pub(crate) struct Inserts {
    prefix: Vec<u8>,
    /// A statement is ended at this length in bytes, unless a single row is longer,
    limit: usize,
    /// and after so many rows.
    rows: usize,
    statement: Statement,
    row: Vec<u8>,
}

/// A statement, without a `;`.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    pub(crate) text: Vec<u8>,
    /// How many rows it inserts.
    pub(crate) rows: usize,
}

impl Inserts {
    /// Statements that begin with `prefix`.
    pub(crate) fn new(prefix: &str, limit: usize) -> Self {
        Self { prefix: prefix.into(), limit, rows: usize::MAX, statement: Statement::default(), row: Vec::new() }
    }

    /// From now on a statement has no more than so many rows, which is at least one.
    #[cfg(any(feature = "mysql", test))]
    pub(crate) fn limit_rows(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// Takes the next bytes of the rows up to where a statement is full, and gives that; `None` where more bytes are
    /// needed. What was taken is cut off `bytes`.
    pub(crate) fn feed(&mut self, bytes: &mut &[u8]) -> Option<Statement> {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.row.extend_from_slice(&bytes[..end]);
            *bytes = &bytes[end + 1..];
            if let Some(full) = self.end_row() {
                return Some(full);
            }
        }
        self.row.extend_from_slice(bytes);
        *bytes = &[];
        None
    }

    /// What is left at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the last row has no end.
    pub(crate) fn finish(self) -> Result<Option<Statement>> {
        if !self.row.is_empty() {
            return Err(Error::new(ErrorKind::Damaged, "the snapshot's last row is cut short"));
        }
        Ok((self.statement.rows > 0).then_some(self.statement))
    }

    fn end_row(&mut self) -> Option<Statement> {
        let statement = &self.statement;
        let is_full = statement.text.len() + self.row.len() + 2 > self.limit || statement.rows >= self.rows;
        let full = (is_full && statement.rows > 0).then(|| std::mem::take(&mut self.statement));
        if self.statement.rows == 0 {
            self.statement.text.reserve(full.as_ref().map_or(0, |full| full.text.len()));
            self.statement.text.extend_from_slice(&self.prefix);
        } else {
            self.statement.text.extend_from_slice(b",\n");
        }
        self.statement.text.append(&mut self.row);
        self.statement.rows += 1;
        full
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_statement_and_pieces_do_not_matter(rows in prop::collection::vec("[(a-c,)]{1,12}", 0..40), cut in 1usize..50, limit in 10usize..60, most in 1usize..5) {
            let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
            let mut inserts = Inserts::new("I ", limit);
            inserts.limit_rows(most);
            let mut statements = Vec::new();
            for mut piece in text.as_bytes().chunks(cut) {
                while let Some(statement) = inserts.feed(&mut piece) {
                    statements.push(statement);
                }
                prop_assert!(piece.is_empty());
            }
            statements.extend(inserts.finish().unwrap());
            let mut back = Vec::new();
            for Statement { text, rows } in statements {
                let text = String::from_utf8(text).unwrap();
                let some: Vec<_> = text.strip_prefix("I ").unwrap().split(",\n").map(str::to_owned).collect();
                prop_assert_eq!(some.len(), rows);
                prop_assert!(rows == 1 || rows <= most && text.len() <= limit);
                back.extend(some);
            }
            prop_assert_eq!(back, rows);
        }
    }
}
