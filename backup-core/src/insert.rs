//! From rows, one a line, to statements that insert many at once.

use crate::error::{Error, ErrorKind, Result};

/// Gathers rows into `INSERT` statements.
#[derive(Debug)]
pub(crate) struct Inserts {
    prefix: Vec<u8>,
    /// A statement is ended at this length in bytes, unless a single row is longer.
    limit: usize,
    statement: Vec<u8>,
    row: Vec<u8>,
}

impl Inserts {
    /// Statements that begin with `prefix`.
    pub(crate) fn new(prefix: &str, limit: usize) -> Self {
        Self { prefix: prefix.into(), limit, statement: Vec::new(), row: Vec::new() }
    }

    /// Takes the next bytes of the rows; gives the statements that are full, without a `;`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut full = Vec::new();
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.row.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            full.extend(self.end_row());
        }
        self.row.extend_from_slice(bytes);
        full
    }

    /// What is left at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] where the last row has no end.
    pub(crate) fn finish(self) -> Result<Option<Vec<u8>>> {
        if !self.row.is_empty() {
            return Err(Error::new(ErrorKind::Damaged, "the snapshot's last row is cut short"));
        }
        Ok((!self.statement.is_empty()).then_some(self.statement))
    }

    fn end_row(&mut self) -> Option<Vec<u8>> {
        let too_long = self.statement.len() + self.row.len() + 2 > self.limit;
        let full = (too_long && !self.statement.is_empty()).then(|| std::mem::take(&mut self.statement));
        if self.statement.is_empty() {
            self.statement.reserve(self.limit);
            self.statement.extend_from_slice(&self.prefix);
        } else {
            self.statement.extend_from_slice(b",\n");
        }
        self.statement.append(&mut self.row);
        full
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_is_in_one_statement_and_pieces_do_not_matter(rows in prop::collection::vec("[(a-c,)]{1,12}", 0..40), cut in 1usize..50, limit in 10usize..60) {
            let text: String = rows.iter().map(|r| format!("{r}\n")).collect();
            let mut inserts = Inserts::new("I ", limit);
            let mut statements = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                statements.extend(inserts.feed(piece));
            }
            statements.extend(inserts.finish().unwrap());
            let back: Vec<String> = statements
                .iter()
                .flat_map(|s| std::str::from_utf8(s).unwrap().strip_prefix("I ").unwrap().split(",\n").map(str::to_owned).collect::<Vec<_>>())
                .collect();
            prop_assert_eq!(back, rows);
            prop_assert!(statements.iter().all(|s| s.len() <= limit || !s.windows(2).any(|w| w == b",\n")));
        }
    }
}
