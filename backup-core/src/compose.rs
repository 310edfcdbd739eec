//! A state put together from a full snapshot and the newer ones of its tiers.
//!
//! The orders of a quarter of an hour ago are worth little without the products of last night. So each table is taken from
//! the newest snapshot that holds its rows. They all have to have the same definitions. Between tables of
//! different instants a foreign key may lead nowhere: such rows are restored all the same, and listed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{Digest, EntryKind, EntryRecord, Manifest, Snapshot, SnapshotId};
use crate::pipeline::EntryReader;
use crate::progress::NoProgress;
use crate::repository::{Catalog, Repository};
use crate::select::Selector;

/// What one snapshot gives to a [`Composition`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Share {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The tier that it is of; `None` for the full one.
    pub tier: Option<String>,
    /// The instant whose state it holds.
    pub taken_at: DateTime<Utc>,
    /// The tables, as the entries of their rows are called.
    pub tables: Vec<String>,
}

/// The newest state of a source that its snapshots can give together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Composition {
    /// What comes from where, oldest first: the full snapshot, then those of tiers.
    pub shares: Vec<Share>,
    /// What could not be used, and why.
    pub notes: Vec<String>,
    /// As if it were one snapshot.
    pub(crate) manifest: Manifest,
    /// The full one.
    pub(crate) base: SnapshotId,
    /// The key of the chunk ids of each entry.
    pub(crate) id_keys: HashMap<String, Digest>,
}

impl Repository {
    /// Puts together the newest state, or the newest before an instant, of the source called `of`, which may be left out where
    /// there is only one. `catalog` is this repository's. Needs the owner's identity where it is encrypted.
    ///
    /// # Errors
    /// As [`select`](Catalog::select) for the full snapshot that it is built on; [`ErrorKind::Config`] for an id: that names
    /// one snapshot.
    pub async fn compose(&self, catalog: &Catalog, selector: &Selector, of: Option<&str>) -> Result<Composition> {
        let (base, tiers, mut notes) = candidates(catalog, selector, of)?;
        let mut fitting = vec![base];
        let mut definitions = None;
        for tier in tiers {
            if tier.manifest.schema != base.manifest.schema {
                let old = match &definitions {
                    Some(known) => known,
                    None => &*definitions.insert(self.definitions(&base.manifest).await?),
                };
                if *old != self.definitions(&tier.manifest).await? {
                    notes.push(format!(
                        "{} is not used: its definitions are others than those of {}, which has the other tables",
                        tier.id, base.id
                    ));
                    continue;
                }
            }
            fitting.push(tier);
        }
        Ok(put_together(&fitting, notes))
    }

    /// The definitions without what is no definition: how far a key has counted.
    async fn definitions(&self, manifest: &Manifest) -> Result<Vec<String>> {
        let reader = EntryReader::new(self, manifest, Arc::new(NoProgress))?;
        let mut definitions = Vec::new();
        for entry in manifest.entries.iter().filter(|e| matches!(e.kind, EntryKind::PreData | EntryKind::PostData)) {
            let bytes = reader.read(entry).try_collect::<Vec<_>>().await?.concat();
            let text = String::from_utf8_lossy(&bytes);
            definitions.extend(text.lines().filter(|line| !line.contains("sqlite_sequence")).map(without_counter));
        }
        Ok(definitions)
    }
}

/// The full snapshot, those of tiers that are newer, oldest first, and why others are none of them.
fn candidates<'a>(
    catalog: &'a Catalog,
    selector: &Selector,
    of: Option<&str>,
) -> Result<(&'a Snapshot, Vec<&'a Snapshot>, Vec<String>)> {
    let before = match selector {
        Selector::Latest => None,
        Selector::Before(instant) => Some(*instant),
        Selector::Id(_) => {
            return Err(Error::new(ErrorKind::Config, "an id names one snapshot: there is nothing to compose")
                .with_next_step("say latest, or before: and an instant"));
        }
    };
    let base = catalog.select(selector, of)?;
    let assurance = catalog.assurance();
    let mut notes = Vec::new();
    let mut tiers: Vec<&Snapshot> = Vec::new();
    for s in &catalog.snapshots {
        let m = &s.manifest;
        let fits = m.source.name == base.manifest.source.name
            && m.tier.is_some()
            && m.taken_at > base.manifest.taken_at
            && before.is_none_or(|before| m.taken_at < before);
        if !fits {
            continue;
        }
        if !m.is_complete() {
            notes.push(format!("{} is not used: it is not complete", s.id));
        } else if assurance.get(&s.id).is_some_and(|a| a.damaged_at.is_some()) {
            notes.push(format!("{} is not used: it was found damaged", s.id));
        } else {
            tiers.push(s);
        }
    }
    tiers.sort_by_key(|s| (s.manifest.taken_at, s.record));
    Ok((base, tiers, notes))
}

/// The line without ` AUTO_INCREMENT=7`, which MySQL writes into a definition.
fn without_counter(line: &str) -> String {
    const COUNTER: &str = " AUTO_INCREMENT=";
    let Some((before, after)) = line.split_once(COUNTER) else { return line.to_owned() };
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    format!("{before}{}", &after[digits..])
}

/// Who gives the rows of each table: the newest of these, oldest first, that holds them.
fn providers<'a>(snapshots: &[&'a Snapshot]) -> BTreeMap<&'a str, (&'a Snapshot, &'a EntryRecord)> {
    let mut providers = BTreeMap::new();
    for s in snapshots {
        for entry in s.manifest.entries.iter().filter(|e| e.kind == EntryKind::Data) {
            providers.insert(entry.name.as_str(), (*s, entry));
        }
    }
    providers
}

/// `snapshots`: the full one, then those of tiers, oldest first.
fn put_together(snapshots: &[&Snapshot], notes: Vec<String>) -> Composition {
    let providers = providers(snapshots);
    let (base, newest) = (snapshots[0], snapshots[snapshots.len() - 1]);
    let mut manifest = newest.manifest.clone();
    manifest.tier = None;
    let mut id_keys = HashMap::new();
    let mut entries: Vec<EntryRecord> =
        newest.manifest.entries.iter().filter(|e| e.kind != EntryKind::Data).cloned().collect();
    id_keys.extend(entries.iter().map(|e| (e.name.clone(), newest.manifest.id_key)));
    for (name, (s, entry)) in &providers {
        id_keys.insert((*name).to_owned(), s.manifest.id_key);
        entries.push((*entry).clone());
    }
    manifest.entries = entries;
    let shares = snapshots.iter().map(|s| Share {
        snapshot: s.id.clone(),
        tier: s.manifest.tier.clone(),
        taken_at: s.manifest.taken_at,
        tables: providers.iter().filter(|(_, (of, _))| of.id == s.id).map(|(name, _)| (*name).to_owned()).collect(),
    });
    Composition {
        shares: shares.filter(|share| share.tier.is_none() || !share.tables.is_empty()).collect(),
        notes,
        manifest,
        base: base.id.clone(),
        id_keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_counter_is_left_out() {
        let line = ") ENGINE=InnoDB AUTO_INCREMENT=4711 DEFAULT CHARSET=utf8mb4 COMMENT='x AUTO_INCREMENT=9'";
        let other = ") ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 COMMENT='x AUTO_INCREMENT=9'";
        assert_eq!(without_counter(line), without_counter(other));
        assert_ne!(without_counter(line), without_counter(&other.replace("=9", "=8")));
        assert_eq!(without_counter("`id` int NOT NULL AUTO_INCREMENT,"), "`id` int NOT NULL AUTO_INCREMENT,");
    }
}
