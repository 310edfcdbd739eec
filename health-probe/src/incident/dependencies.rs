//! What depends on what.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};

/// What depends on what: local network, DNS, TLS, app, database, gateway.
#[derive(Debug, Clone, Default)]
pub struct Dependencies {
    /// Of each probe, all that it depends on, directly or not.
    pub(super) all: BTreeMap<String, BTreeSet<String>>,
}

impl Dependencies {
    /// From each probe and what it depends on directly.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where something depends on what is not there, or on itself by a detour.
    pub fn new<'a>(direct: impl IntoIterator<Item = (&'a str, &'a [String])>) -> Result<Self> {
        let direct: BTreeMap<&str, &[String]> = direct.into_iter().collect();
        for (probe, on) in &direct {
            if let Some(unknown) = on.iter().find(|d| !direct.contains_key(d.as_str())) {
                return Err(Error::new(ErrorKind::Config, format!("{probe}: depends on {unknown}, which is no probe"))
                    .with_next_step("correct the name, or leave it out"));
            }
        }
        let mut all = BTreeMap::new();
        for probe in direct.keys() {
            let (mut found, mut open) = (BTreeSet::new(), vec![*probe]);
            while let Some(at) = open.pop() {
                for on in direct.get(at).copied().unwrap_or_default() {
                    if on == probe {
                        return Err(Error::new(
                            ErrorKind::Config,
                            format!("{probe}: depends on itself, by way of {at}"),
                        )
                        .with_next_step("leave out the dependency that is not one"));
                    }
                    if found.insert(on.clone()) {
                        open.push(on);
                    }
                }
            }
            all.insert((*probe).to_owned(), found);
        }
        Ok(Self { all })
    }

    /// All that a probe depends on, directly or not.
    pub fn of(&self, probe: &str) -> impl Iterator<Item = &str> {
        self.all.get(probe).into_iter().flatten().map(String::as_str)
    }
}
