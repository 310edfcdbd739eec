//! What is done for a shop, by its configuration: each of the jobs once, with what it came to.

use std::path::{Path, PathBuf};

use backup_core::{
    BackupOptions, DrillOptions, DrillReport, Error, ErrorKind, Objective, ObjectiveStatus, Repository, Result,
    Selector, Snapshot, Status, Tier, VerifyLevel, VerifyOptions, VerifyReport, new_run, objective,
};
use chrono::{DateTime, TimeDelta, Utc};
use db_maint::{
    Engine, History, InspectOptions, Inspection, JobOptions, JobReport, Lease, Policy, StockReport, Stop, check_stock,
    clean_up, mend_orphans,
};
use health_probe::{Look, Monitor};

use crate::checklist_desk::{self, Desk};
use crate::display::progress;
use crate::locate;
use crate::policy_file;
use crate::shop_file::{ShopFile, secret};
use crate::shop_plan::{BackupPlan, MaintenancePlan, SourcePlan, TierPlan};

/// The crew of a shop.
#[derive(Debug, Clone)]
pub struct Crew {
    config: PathBuf,
    /// The shop's name.
    pub name: String,
    /// The folder of what is remembered.
    pub state: PathBuf,
    /// What is backed up.
    pub backup: BackupPlan,
    /// What is done about the database.
    pub maintenance: MaintenancePlan,
}

/// What became of each source.
#[derive(Debug, Default)]
pub struct BackedUp {
    /// Those that were taken.
    pub snapshots: Vec<Snapshot>,
    /// Sources that were not, and why.
    pub failed: Vec<(String, Error)>,
    /// Stores that did not get it, and why.
    pub without: Vec<(String, String)>,
}

impl BackedUp {
    /// Whether everything is everywhere, and whole.
    pub fn is_good(&self) -> bool {
        let whole = self.snapshots.iter().all(|s| s.manifest.is_complete());
        self.failed.is_empty() && self.without.is_empty() && whole && !self.snapshots.is_empty()
    }
}

/// A store and what was verified in it.
pub type Verified = Vec<(String, std::result::Result<VerifyReport, std::sync::Arc<Error>>)>;

impl Crew {
    /// Reads the configuration; opens nothing yet.
    ///
    /// # Errors
    /// Where it makes no sense: a source or a tier twice, a tier of a source that is not there.
    pub fn read(config: &Path) -> health_probe::Result<Self> {
        let file = ShopFile::read(config)?;
        file.plans()?;
        let (name, state) = (file.shop.name.clone(), file.shop.state.clone());
        Ok(Self { config: config.to_owned(), name, state, backup: file.backup, maintenance: file.maintenance })
    }

    /// The configuration, read anew: what is changed in it counts from the next job on.
    ///
    /// # Errors
    /// Where it makes no sense any more.
    pub fn file(&self) -> health_probe::Result<ShopFile> {
        ShopFile::read(&self.config)
    }

    /// Whether all of the configuration makes sense: its secrets are there, its files can be read, its addresses are some.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn check(&self) -> health_probe::Result<()> {
        let mut file = self.file()?;
        file.alerter()?;
        file.heartbeat()?;
        file.metrics()?;
        if file.has_probes() {
            Monitor::new(file.watches()?)?;
        }
        let wrong = |e: &dyn std::error::Error, next: Option<&str>| {
            let error = health_probe::Error::new(health_probe::ErrorKind::Config, e.to_string());
            match next {
                Some(next) => error.with_next_step(next),
                None => error,
            }
        };
        for plan in &self.backup.source {
            let url = secret(&plan.url, &plan.name)?;
            let named = format!("{}={url}", plan.name);
            locate::source(&named, &plan.exclude, None).map_err(|e| wrong(&e, e.next_step()))?;
            for tier in self.backup.tier.iter().filter(|t| t.source == plan.name) {
                let tables = Tier::new(&*tier.name, &tier.tables).map_err(|e| wrong(&e, e.next_step()))?;
                locate::source(&named, &plan.exclude, Some(&tables)).map_err(|e| wrong(&e, e.next_step()))?;
            }
            if let Some(scratch) = &plan.scratch {
                locate::target(&secret(scratch, &plan.name)?).map_err(|e| wrong(&e, e.next_step()))?;
            }
            drill_options(plan).map_err(|e| wrong(&e, e.next_step()))?;
        }
        if self.maintenance.database.is_some() {
            self.maintained().map_err(|e| wrong(&e, e.next_step()))?;
        }
        self.desk().and_then(|desk| desk.tasks()).map_err(|e| wrong(&e, e.next_step()))?;
        Ok(())
    }

    /// Whether there is anything to back up.
    pub fn has_backups(&self) -> bool {
        !self.backup.source.is_empty()
    }

    /// The repository, in all of its stores that are there.
    ///
    /// # Errors
    /// Where none of them is, or a key is missing.
    pub async fn repository(&self) -> Result<Repository> {
        locate::open(&self.backup.stores, self.backup.keys.as_deref(), None).await
    }

    /// Backs up each source, or the tables of a tier. One that fails does not keep the others.
    ///
    /// # Errors
    /// Where there is no repository, or every source fails: the first error.
    pub async fn back_up(&self, tier: Option<&TierPlan>) -> Result<BackedUp> {
        let repository = self.repository().await?;
        let run = new_run()?;
        let mut done = BackedUp::default();
        done.without.extend(repository.unreachable().iter().map(|(store, e)| (store.clone(), e.to_string())));
        let sources = self.backup.source.iter().filter(|s| tier.is_none_or(|tier| tier.source == s.name));
        for plan in sources {
            let taken = async {
                let url = ours(secret(&plan.url, &plan.name))?;
                let tables = tier.map(|t| Tier::new(&*t.name, &t.tables)).transpose()?;
                let source = locate::source(&format!("{}={url}", plan.name), &plan.exclude, tables.as_ref())?;
                let mut options = BackupOptions::default().with_run(&run).with_progress(progress("backing up"));
                if let Some(copies) = self.backup.min_copies {
                    options = options.with_min_copies(copies);
                }
                repository.backup(source.as_ref(), options).await
            };
            match taken.await {
                Ok(snapshot) => done.snapshots.push(snapshot),
                Err(e) => done.failed.push((plan.name.clone(), e)),
            }
        }
        match (done.snapshots.is_empty(), done.failed.is_empty()) {
            (true, false) => Err(done.failed.swap_remove(0).1),
            (true, true) => {
                Err(Error::new(ErrorKind::Config, "there is nothing to back up")
                    .with_next_step("add [[backup.source]]"))
            }
            _ => Ok(done),
        }
    }

    /// Verifies these snapshots in each store, or all of them.
    ///
    /// # Errors
    /// Where it cannot look.
    pub async fn verify(&self, only: Option<&[Snapshot]>, level: VerifyLevel) -> Result<Verified> {
        let repository = self.repository().await?;
        let options = VerifyOptions::new(level).with_progress(progress("verifying"));
        let ids: Option<Vec<_>> = only.map(|all| all.iter().map(|s| s.id.clone()).collect());
        repository.verify_all(ids.as_deref(), options).await
    }

    /// Restores the newest snapshot of each source that has a scratch place, compares, and removes it again. Takes the owner's identity.
    ///
    /// # Errors
    /// Where there is no repository.
    pub async fn drill(&self) -> Result<Vec<(String, Result<DrillReport>)>> {
        let repository = self.repository().await?;
        let catalog = repository.catalog().await?;
        let mut done = Vec::new();
        for plan in &self.backup.source {
            let Some(scratch) = &plan.scratch else { continue };
            let drilled = async {
                let scratch = locate::target(&ours(secret(scratch, &plan.name))?)?;
                let snapshot = catalog.select(&Selector::Latest, Some(&plan.name))?;
                repository.drill(snapshot, scratch.as_ref(), drill_options(plan)?).await
            };
            done.push((plan.name.clone(), drilled.await));
        }
        Ok(done)
    }

    /// What was promised, and whether it is kept: by all stores together.
    ///
    /// # Errors
    /// Where there is no repository.
    pub async fn objectives(&self, now: DateTime<Utc>) -> Result<Vec<ObjectiveStatus>> {
        let catalog = self.repository().await?.catalog().await?;
        Ok(objective::judge(&self.promises(), &catalog, now))
    }

    /// The sources whose newest verified snapshot is older than that, or that have none.
    ///
    /// # Errors
    /// Where there is no repository.
    pub async fn older_than(&self, age: TimeDelta, now: DateTime<Utc>) -> Result<Vec<(String, Option<TimeDelta>)>> {
        let catalog = self.repository().await?.catalog().await?;
        let whole: Vec<Objective> =
            self.backup.source.iter().map(|s| Objective::new(&*s.name, s.rpo.duration())).collect();
        let judged = objective::judge(&whole, &catalog, now);
        let ages = judged.into_iter().map(|s| (s.objective.source, s.age_seconds.map(TimeDelta::seconds)));
        Ok(ages.filter(|(_, is)| is.is_none_or(|is| is > age)).collect())
    }

    /// When the source that was drilled longest ago was drilled last; `None` where one never was.
    ///
    /// # Errors
    /// Where there is no repository.
    pub async fn drilled(&self) -> Result<Option<DateTime<Utc>>> {
        let catalog = self.repository().await?.catalog().await?;
        let status = Status::of(&catalog, Utc::now());
        let of = |name: &str| status.sources.iter().find(|s| s.source == name).and_then(|s| s.drilled_at);
        let all: Option<Vec<_>> = self.backup.source.iter().map(|s| of(&s.name)).collect();
        Ok(all.and_then(|times| times.into_iter().min()))
    }

    fn promises(&self) -> Vec<Objective> {
        let sources = self.backup.source.iter().map(|s| {
            let promise = Objective::new(&*s.name, s.rpo.duration());
            s.rto.map_or(promise.clone(), |rto| promise.rto(rto.duration()))
        });
        let tiers = self.backup.tier.iter().map(|t| {
            let every = t.when.period();
            let rpo = t.rpo.map_or(every * 2, db_maint::Period::delta);
            Objective::new(&*t.source, rpo.to_std().unwrap_or_default())
                .tier(&*t.name)
                .every(every.to_std().unwrap_or_default())
        });
        sources.chain(tiers).collect()
    }

    /// The database that is maintained, and its policy.
    ///
    /// # Errors
    /// Where one of them is not named, or makes no sense.
    pub fn maintained(&self) -> db_maint::Result<(Box<dyn Engine>, Option<Policy>)> {
        let wrong = |why: &str| {
            db_maint::Error::new(db_maint::ErrorKind::Config, why)
                .with_next_step("add [maintenance] to the configuration")
        };
        let url = self.maintenance.database.as_ref().ok_or_else(|| wrong("no database is named"))?;
        let url = secret(url, "maintenance.database").map_err(|e| wrong(&e.to_string()))?;
        let policy = self.maintenance.policy.as_deref().map(policy_file::read).transpose()?;
        Ok((db_maint::open(&url)?, policy))
    }

    /// Looks at the database, beside the looks before.
    ///
    /// # Errors
    /// Where it cannot be reached.
    pub async fn inspect(&self) -> db_maint::Result<Inspection> {
        let (engine, policy) = self.maintained()?;
        let history = self.state.join("database-history.json");
        let mut options = InspectOptions::default().with_history(History::read(&history)?);
        if let Some(policy) = policy {
            options = options.with_policy(policy);
        }
        let inspection = engine.inspect(&options).await?;
        if let Some(look) = &inspection.look {
            History::add(&history, look.clone())?;
        }
        Ok(inspection)
    }

    /// Cleans up by the retention rules of the policy, or counts, as the configuration says.
    ///
    /// # Errors
    /// Where it cannot be done.
    pub async fn clean_up(&self, lease: Option<&Lease>, stop: &Stop) -> db_maint::Result<Vec<JobReport>> {
        let (engine, policy) = self.maintained()?;
        match policy.filter(|p| !p.retention.is_empty()) {
            Some(policy) => clean_up(&*engine, &policy, &job(self.maintenance.clean_up, stop), lease).await,
            None => Ok(Vec::new()),
        }
    }

    /// Mends orphans by the references of the policy, or counts, as the configuration says.
    ///
    /// # Errors
    /// Where it cannot be done.
    pub async fn mend_orphans(&self, lease: Option<&Lease>, stop: &Stop) -> db_maint::Result<Vec<JobReport>> {
        let (engine, policy) = self.maintained()?;
        match policy.filter(|p| !p.reference.is_empty()) {
            Some(policy) => mend_orphans(&*engine, &policy, &job(self.maintenance.mend_orphans, stop), lease).await,
            None => Ok(Vec::new()),
        }
    }

    /// Looks for what is about to run out; `None` without a rule.
    ///
    /// # Errors
    /// Where it cannot be done.
    pub async fn stock(&self) -> db_maint::Result<Option<StockReport>> {
        let (engine, policy) = self.maintained()?;
        match policy.and_then(|p| p.stock) {
            Some(rule) => check_stock(&*engine, &rule, None, true).await.map(Some),
            None => Ok(None),
        }
    }

    /// One look of each probe.
    ///
    /// # Errors
    /// Where a probe makes no sense.
    pub async fn look(&self) -> health_probe::Result<Vec<Look>> {
        Ok(Monitor::new(self.file()?.watches()?)?.look_once().await)
    }

    /// An audit, written into the shop's ledger; with its report.
    ///
    /// # Errors
    /// Where it cannot be done, or the ledger was changed.
    pub async fn audit(&self, now: DateTime<Utc>) -> checklist::Result<checklist::report::Report> {
        let mut desk = self.desk()?;
        let (audit, entries) = desk.audit(now).await?;
        desk.report(&audit, &entries, now).await
    }

    /// What the checklist works with, by the configuration.
    ///
    /// # Errors
    /// Where that makes no sense.
    pub fn desk(&self) -> checklist::Result<Desk> {
        Desk::open(checklist_desk::Look { config: Some(self.config.clone()), ..checklist_desk::Look::default() })
    }
}

fn job(apply: bool, stop: &Stop) -> JobOptions {
    let mut options = JobOptions::default().with_stop(stop.clone());
    options.apply = apply;
    options
}

fn drill_options(plan: &SourcePlan) -> Result<DrillOptions> {
    let mut options = DrillOptions::default().with_progress(progress("drilling"));
    if let Some(rto) = plan.rto {
        options = options.with_rto(rto.duration());
    }
    if let Some(file) = &plan.invariants {
        let text = std::fs::read_to_string(file).map_err(|e| {
            Error::new(ErrorKind::Config, format!("{}: cannot be read: {e}", file.display())).with_source(e)
        })?;
        options = options.with_invariants(text);
    }
    Ok(options)
}

/// A configuration that makes no sense, or a secret that is missing, is the backup's trouble, too.
pub fn of_configuration(e: &health_probe::Error) -> Error {
    let error = Error::new(ErrorKind::Config, e.to_string());
    match e.next_step() {
        Some(next) => error.with_next_step(next),
        None => error,
    }
}

fn ours<T>(value: health_probe::Result<T>) -> Result<T> {
    value.map_err(|e| of_configuration(&e))
}
