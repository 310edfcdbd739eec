//! Committing a snapshot to several stores: first where everything is, then in the others, brought up to date from there.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures::TryStreamExt;

use crate::error::{Error, ErrorKind, Result};
use crate::keys::Signing;
use crate::manifest::{Manifest, Snapshot};
use crate::progress::{Event, Progress};
use crate::repository::record::RecordKind;
use crate::repository::{Arrived, Lease, Repository, Store, layout, names_in};
use crate::sync::{SyncReport, bring_up, bring_up_objects};

/// The stores of one backup.
pub(crate) struct Copies<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) lease: &'a Lease,
    pub(crate) progress: &'a dyn Progress,
    /// Those that lack something of what was not sent because it was known to be there.
    pub(crate) incomplete: HashSet<String>,
    /// What was found damaged or missing: the store, where that is known, and the object's name.
    pub(crate) bad: HashSet<(Option<String>, String)>,
}

impl Copies<'_> {
    /// Signs the snapshot and puts it into every store that can be used, none of which lists it before it has all of it.
    pub(crate) async fn commit(
        &self,
        manifest: Manifest,
        signing: Option<&Signing>,
        arrived: Vec<Arrived>,
        min_copies: usize,
    ) -> Result<Snapshot> {
        let mut lags: Vec<(Store, Error)> = Vec::new();
        let mut whole = Vec::new();
        let mut behind = Vec::new();
        for (store, arrived) in self.repository.stores().iter().zip(arrived) {
            match arrived {
                Arrived::Failed(e) => lags.push((store.clone(), e)),
                Arrived::All if !self.incomplete.contains(&store.to_string()) => whole.push(store.clone()),
                // Those that were sent everything first: they lack the least.
                Arrived::All => behind.insert(0, store.clone()),
                Arrived::Behind => behind.push(store.clone()),
            }
        }
        // Each has something that the others lack, from before: the first that can be completed from them, also from one that
        // takes nothing more, is the one to begin with.
        while whole.is_empty() && !behind.is_empty() {
            let store = behind.remove(0);
            match self.complete(&manifest, &store).await {
                Ok(()) => whole.push(store),
                Err(e) => lags.push((store, e)),
            }
        }

        // Signed on the first that takes it, so that it builds on what that one has.
        let mut committed = None;
        let mut rest = Vec::new();
        for store in whole {
            if committed.is_some() {
                rest.push((store, true));
                continue;
            }
            let here = self.of(&store);
            let put = async {
                let signed = here.sign(RecordKind::Snapshot, &manifest, signing).await?;
                self.lease.check_in(&store)?;
                here.put_record(&signed).await.map(|()| signed)
            };
            match put.await {
                Ok(signed) => committed = Some((store, signed)),
                Err(e) if is_about_one_store(&e) => lags.push((store, e)),
                Err(e) => return Err(e),
            }
        }
        let Some((first_store, signed)) = committed else { return Err(first(lags, "no store takes the snapshot")) };
        let mut committed = vec![first_store];
        rest.extend(behind.into_iter().map(|store| (store, false)));
        for (store, has_everything) in rest {
            match self.bring(&committed, &store, &signed, has_everything).await {
                Ok(()) => committed.push(store),
                Err(e) => lags.push((store, e)),
            }
        }
        lags.extend(self.level(&committed).await);
        let stores: Vec<String> = committed.iter().map(ToString::to_string).collect();
        for (store, e) in &lags {
            self.progress.on(Event::Lags { store: &store.to_string(), reason: &e.to_string() });
        }
        let mut snapshot = Snapshot::new(signed.name, manifest);
        if stores.len() < min_copies {
            let why: Vec<_> = lags.iter().map(|(store, e)| format!("{store}: {e}")).collect();
            return Err(Error::new(
                ErrorKind::TooFewCopies,
                format!(
                    "snapshot {} is whole in {} and nowhere else, though {min_copies} copies are wanted ({})",
                    snapshot.id,
                    stores.join(", "),
                    why.join("; ")
                ),
            )
            .with_next_step("make the other stores reachable and run `backup sync`, or take another backup"));
        }
        snapshot.stores = stores;
        Ok(snapshot)
    }

    /// Puts the snapshot into another store, which may lack more than that, from those that have it.
    async fn bring(
        &self,
        from: &[Store],
        to: &Store,
        signed: &crate::repository::Signed,
        has_everything: bool,
    ) -> Result<()> {
        self.lease.check_in(to)?;
        if has_everything && self.of(to).take_record(signed).await? {
            return Ok(());
        }
        // What was rolled back here is for people to look at; to fill it up would hide it.
        self.of(to).check_not_rolled_back().await?;
        let mut damaged = Vec::new();
        for from in from {
            let report = bring_up(&self.of(from), to, self.lease, &self.bad).await?;
            if names_in(to).await?.contains(&signed.name) {
                self.of(to).remember(vec![signed.name]);
                return Ok(());
            }
            // What one of them has lost the next may have.
            damaged = report.damaged;
        }
        let what = damaged.into_iter().next().unwrap_or_else(|| "it does not list the snapshot".into());
        Err(Error::new(ErrorKind::Damaged, format!("{to} could not be brought up to date: {what}"))
            .with_next_step("run `backup verify`, then `backup sync`"))
    }

    /// Gives a store everything that the snapshot needs, from all others.
    async fn complete(&self, manifest: &Manifest, store: &Store) -> Result<()> {
        for other in self.repository.stores().iter().filter(|other| other.to_string() != store.to_string()) {
            if let Err(e) = bring_up_objects(&self.of(other), store, self.lease, &self.bad).await {
                tracing::warn!(from = %other, to = %store, error = %e, "what the one lacks could not be copied from the other");
            }
        }
        let mut needed = HashMap::new();
        let here = self.of(store);
        here.references(manifest, &mut HashSet::new(), |object, stored| {
            needed.insert(object, stored);
            Ok(())
        })
        .await?;
        let mut listed = store.list(layout::OBJECTS);
        while let Some((name, size)) = listed.try_next().await? {
            if let layout::Name::Object(digest) = layout::parse(&name)
                && needed.get(&digest) == Some(&size)
            {
                needed.remove(&digest);
            }
        }
        match needed.into_keys().next() {
            None => Ok(()),
            Some(object) => Err(Error::new(
                ErrorKind::Damaged,
                format!("{store} lacks {}, which no other store could give it", layout::object(&object)),
            )
            .with_next_step("make the other stores reachable, and take another backup")),
        }
    }

    /// Brings together what the stores that have the snapshot lack of one another, from before. What could not be.
    async fn level(&self, stores: &[Store]) -> Vec<(Store, Error)> {
        let mut lags = Vec::new();
        let mut together = BTreeSet::new();
        let mut all = Vec::new();
        for store in stores {
            match names_in(store).await {
                Ok(names) => {
                    together.extend(names.iter().copied());
                    all.push((store, names));
                }
                Err(e) => lags.push((store.clone(), e)),
            }
        }
        for (store, names) in &all {
            if names.len() == together.len() {
                continue;
            }
            for (other, _) in all.iter().filter(|(other, _)| other.to_string() != store.to_string()) {
                let brought = bring_up(&self.of(other), store, self.lease, &self.bad).await;
                let damaged = |r: SyncReport| r.damaged.into_iter().next();
                match brought.map(damaged) {
                    Ok(None) => {}
                    Ok(Some(what)) => {
                        let what = format!("{other} has something that {store} lacks, and it is damaged: {what}");
                        lags.push(((*store).clone(), Error::new(ErrorKind::Damaged, what)));
                    }
                    Err(e) => lags.push(((*store).clone(), e)),
                }
            }
        }
        lags
    }

    fn of(&self, store: &Store) -> Repository {
        self.repository.clone().in_store(store.clone())
    }
}

/// Also where its lease ran out, or it was rolled back: what is left of it is not built upon.
fn is_about_one_store(e: &Error) -> bool {
    e.is_about_the_store() || matches!(e.kind(), ErrorKind::Untrusted | ErrorKind::Locked)
}

fn first(mut lags: Vec<(Store, Error)>, what: &str) -> Error {
    match lags.is_empty() {
        true => Error::new(ErrorKind::StoreUnavailable, what),
        false => lags.swap_remove(0).1,
    }
}
