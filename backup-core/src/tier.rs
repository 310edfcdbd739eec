//! Part of a database on purpose: some tables, with what they need to be restored.

use globset::{Glob, GlobMatcher};

use crate::error::{Error, ErrorKind, Result};

/// A named set of tables that is backed up more often than everything: the orders every quarter of an hour, say.
///
/// A snapshot of a tier holds all definitions, but rows only of the tables it names and of those that their foreign keys
/// lead to: so it can be restored by itself, and no key leads nowhere. It is never what "latest" means.
///
/// ```
/// # fn main() -> backup_core::Result<()> {
/// use backup_core::{SqliteSource, Tier};
/// let critical = SqliteSource::new("shop.db").only_tier(Tier::new("critical", &["orders", "order_*"])?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Tier {
    name: String,
    tables: Vec<GlobMatcher>,
}

impl Tier {
    /// The tier called `name`, of the tables that one of the globs matches: `orders`, `order_*`, `accounting.*`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a glob makes no sense or there is none.
    pub fn new<S: AsRef<str>>(name: impl Into<String>, tables: &[S]) -> Result<Self> {
        let name = name.into();
        if tables.is_empty() {
            return Err(Error::new(ErrorKind::Config, format!("the tier {name:?} names no table")));
        }
        let tables = tables.iter().map(|glob| {
            let glob = glob.as_ref();
            Glob::new(glob).map(|g| g.compile_matcher()).map_err(|e| {
                Error::new(ErrorKind::Config, format!("the tier {name:?}: {glob:?} is no glob: {e}"))
                    .with_next_step("name tables, or globs such as order_*")
            })
        });
        Ok(Self { tables: tables.collect::<Result<_>>()?, name })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of the tables belong to it, given by their names. A pair in `needs` says that the rows of the first table
    /// are incomplete without those of the second.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where one of its globs matches nothing: a table that was renamed is not to be missed in silence.
    pub(crate) fn members(&self, tables: &[String], needs: &[(usize, usize)]) -> Result<Vec<bool>> {
        for glob in &self.tables {
            if !tables.iter().any(|name| glob.is_match(name)) {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("the tier {:?}: no table is called {}", self.name, glob.glob()),
                )
                .with_next_step(
                    "name tables as the database does; one that is not in the schema public with its schema",
                ));
            }
        }
        let mut members: Vec<bool> = tables.iter().map(|name| self.tables.iter().any(|g| g.is_match(name))).collect();
        loop {
            let missing: Vec<usize> =
                needs.iter().filter(|(from, to)| members[*from] && !members[*to]).map(|(_, to)| *to).collect();
            if missing.is_empty() {
                return Ok(members);
            }
            missing.into_iter().for_each(|n| members[n] = true);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(tables: &[&str]) -> Vec<String> {
        tables.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn ancestors_come_along_and_nothing_else() {
        let tables = named(&["customers", "orders", "order_items", "products", "sessions"]);
        let needs = [(1, 0), (2, 1), (2, 3), (4, 0)];
        let tier = |globs: &[&str]| Tier::new("t", globs).unwrap().members(&tables, &needs).unwrap();
        assert_eq!(tier(&["orders"]), [true, true, false, false, false]);
        assert_eq!(tier(&["order*"]), [true, true, true, true, false]);
        assert_eq!(tier(&["customers"]), [true, false, false, false, false]);
    }

    #[test]
    fn a_name_that_fits_nothing_is_a_mistake() {
        let e =
            Tier::new("critical", &["orders", "order_item"]).unwrap().members(&named(&["orders"]), &[]).unwrap_err();
        assert!(e.to_string().contains("order_item"), "{e}");
        assert!(Tier::new("critical", &[""; 0]).is_err());
        assert!(Tier::new("critical", &["a[b"]).is_err());
    }

    proptest! {
        /// Whatever leads where, in circles too: no member needs what is no member, and none is there for no reason.
        #[test]
        fn the_set_is_closed_and_no_larger_than_it_must_be(needs in prop::collection::vec((0usize..12, 0usize..12), 0..30), first in 0usize..12) {
            let tables: Vec<String> = (0..12).map(|n| format!("t{n:02}")).collect();
            let members = Tier::new("t", &[&tables[first]]).unwrap().members(&tables, &needs).unwrap();
            prop_assert!(members[first]);
            prop_assert!(needs.iter().all(|(from, to)| !members[*from] || members[*to]));
            for (n, _) in members.iter().enumerate().filter(|(n, is)| **is && *n != first) {
                prop_assert!(needs.iter().any(|(from, to)| *to == n && members[*from]));
            }
        }
    }
}
