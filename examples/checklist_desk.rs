//! What the checklist works with: the flags of the command line, the configuration, the ledger; and all the checks that they ask for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Keys, Repository, Store};
use checklist::check::{backups, database, host, maintenance, monitor, source, web};
use checklist::dependencies::{Advisories, DependencyCheck, OsvApi};
use checklist::ledger::{Entries, FileLedger, Ledger, MemoryLedger, Record};
use checklist::report::{Report, TaskLine};
use checklist::{
    Audit, Auditor, Check, Contact, Context, Error, ErrorKind, Result, Standing, Task, TaskState, completions, items,
    scaling, secret_ages, whole_months,
};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use clap::Args;
use health_probe::{Metric, MissingDay};

use crate::checklist_file::ChecklistFile;
use crate::cli;
use crate::policy_file;
use crate::shop_file::{ShopFile, secret};

/// What is looked at, and where it is remembered. What stands here has precedence over the configuration.
#[derive(Debug, Default, Args)]
pub struct Look {
    /// The shop, described once; see examples/caretaker.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The ledger of evidence; without one, and without a configuration, nothing is remembered.
    #[arg(long, global = true, value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// Look at this site, as a visitor does.
    #[arg(long, global = true, value_name = "URL")]
    pub site: Option<String>,
    /// Certificates that are trusted instead of the system's, in PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub roots: Option<PathBuf>,
    /// The site is staging: try bad log-ins and hostile input as well.
    #[arg(long, global = true)]
    pub staging: bool,
    /// Look at this database; give the address that the shop itself uses. It may be `env:NAME`.
    #[arg(long, global = true, value_name = "URL")]
    pub database: Option<String>,
    /// The policy of the database: how long data is kept, who may reach what.
    #[arg(long = "data-policy", global = true, value_name = "FILE")]
    pub data_policy: Option<PathBuf>,
    /// Look at this source tree.
    #[arg(long, global = true, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Compare its dependencies with the advisories in this folder: an unpacked dump of OSV.
    #[arg(long, global = true, value_name = "DIR")]
    pub advisories: Option<PathBuf>,
    /// Ask the API of OSV, or one like it at the address, about its dependencies: it is told their names and versions.
    #[arg(long, global = true, value_name = "URL", num_args = 0..=1, require_equals = true, default_missing_value = OsvApi::ADDRESS)]
    pub osv: Option<String>,
    /// Look at this host.
    #[arg(long, global = true)]
    pub host: bool,
    /// Look at the backups in this store. May be repeated.
    #[arg(long, global = true, value_name = "URL")]
    pub backups: Vec<String>,
    /// The keys that read the log of the backups: the writer's, or the owner's.
    #[arg(long, global = true, value_name = "DIR")]
    pub keys: Option<PathBuf>,
}

/// What a command works with: the configuration, the flags, the ledger.
#[derive(Debug)]
pub struct Desk {
    flags: Look,
    shop: Option<ShopFile>,
    /// The part of the configuration that is about the checklist.
    pub file: ChecklistFile,
    /// What is remembered.
    pub ledger: Arc<dyn Ledger>,
    path: Option<PathBuf>,
}

impl Desk {
    /// Reads the configuration; opens nothing yet.
    ///
    /// # Errors
    /// Where it makes no sense.
    pub fn open(flags: Look) -> Result<Self> {
        let mut shop = flags.config.as_deref().map(ShopFile::read).transpose().map_err(|e| ours(&e, e.next_step()))?;
        let file = shop.as_mut().map(|s| std::mem::take(&mut s.checklist)).unwrap_or_default();
        let path = flags.ledger.clone().or_else(|| file.ledger.clone());
        let path = match (path, &shop) {
            (None, Some(shop)) => {
                let state = &shop.shop.state;
                std::fs::create_dir_all(state).map_err(|e| {
                    Error::new(ErrorKind::Storage, format!("{}: cannot be made", state.display()))
                        .with_next_step("let the user that runs this write there, or set shop.state")
                        .with_source(e)
                })?;
                Some(state.join("evidence.log"))
            }
            (path, _) => path,
        };
        let ledger: Arc<dyn Ledger> = match &path {
            Some(path) => Arc::new(FileLedger::new(path)),
            None => Arc::new(MemoryLedger::default()),
        };
        Ok(Self { flags, shop, file, ledger, path })
    }

    /// Whether there is a ledger.
    pub fn remembers(&self) -> bool {
        self.path.is_some()
    }

    /// # Errors
    /// Where there is none.
    pub fn must_remember(&self) -> Result<()> {
        match self.remembers() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Config, "there is no ledger to write it down in")
                .with_next_step("name it: --ledger FILE, or --config")),
        }
    }

    /// What is remembered.
    ///
    /// # Errors
    /// Where there is no ledger, or it was changed.
    pub async fn remembered(&self) -> Result<Entries> {
        self.must_remember()?;
        self.ledger.entries().await
    }

    /// Writes something down.
    ///
    /// # Errors
    /// Where that cannot be done.
    pub async fn put(&self, now: DateTime<Utc>, record: Record) -> Result<u64> {
        self.must_remember()?;
        Ok(self.ledger.append(now, record).await?.seq)
    }

    fn items(&self) -> Vec<checklist::Item> {
        items().into_iter().chain(self.file.item.iter().cloned()).collect()
    }

    /// # Errors
    /// Where no item has that name.
    pub fn known(&self, item: &str) -> Result<()> {
        match self.items().iter().any(|i| i.id == item) {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Config, format!("there is no item called {item}"))
                .with_next_step("`checklist report` names them")),
        }
    }

    /// The tasks, the shop's own among them.
    ///
    /// # Errors
    /// Where one makes no sense.
    pub fn tasks(&self) -> Result<Vec<Task>> {
        self.file.tasks().map_err(|why| Error::new(ErrorKind::Config, why))
    }

    /// The shop's zone.
    ///
    /// # Errors
    /// Where it is none.
    pub fn zone(&self) -> Result<chrono_tz::Tz> {
        self.shop.as_ref().map_or(Ok(chrono_tz::UTC), |s| s.zone().map_err(|e| ours(&e, e.next_step())))
    }

    /// Looks at everything, and writes it down.
    pub async fn audit(&mut self, now: DateTime<Utc>) -> Result<(Audit, Entries)> {
        let checks = self.checks().await?;
        let standing: Standing = self.ledger.entries().await?.standing();
        let staging = self.flags.staging || self.file.staging;
        let auditor = Auditor::new(self.items()).with_checks(checks).on_staging(staging);
        let name = self.shop.as_ref().map(|s| s.shop.name.clone());
        let site = self.flags.site.clone().or_else(|| self.file.site.clone());
        let shown = site.map(|url| match url.split_once("://") {
            // A login that stands in an address is nobody's business.
            Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
            None => url,
        });
        let target = name.or(shown).unwrap_or_else(|| "the shop".into());
        let audit = auditor.run(&target, &Context::at(now), &standing).await;
        self.ledger.append(now, Record::Audit { audit: Box::new(audit.clone()) }).await?;
        Ok((audit, self.ledger.entries().await?))
    }

    async fn checks(&mut self) -> Result<Vec<Arc<dyn Check>>> {
        let site = match self.flags.site.clone().or_else(|| self.file.site.clone()) {
            Some(url) => {
                let mut options = web::SiteOptions::default();
                options.http.clone_from(&self.file.http);
                options.roots.clone_from(&self.flags.roots);
                options.admin.extend(self.file.admin.iter().cloned());
                options.api.extend(self.file.api.iter().cloned());
                options.checkout.extend(self.file.checkout.iter().cloned());
                Some(Arc::new(web::Site::new(&url, options)?))
            }
            None => None,
        };
        let url = self.database()?;
        let database = url.as_deref().map(database::Database::new).transpose()?.map(Arc::new);
        let policy = self.flags.data_policy.clone().or_else(|| self.file.policy.clone());
        let maintained = match url.zip(policy) {
            Some((url, policy)) => {
                let policy = policy_file::read(&policy).map_err(|e| ours(&e, e.next_step()))?;
                let engine = db_maint::open(&url).map_err(|e| ours(&e, e.next_step()))?;
                Some(Arc::new(maintenance::Maintained::new(engine, policy)))
            }
            None => None,
        };
        let tree = self.flags.source.clone().or_else(|| self.file.source.clone());
        let dependencies = match &tree {
            Some(root) => {
                let folder = self.flags.advisories.clone().or_else(|| self.file.advisories.clone());
                // A flag has precedence over the configuration, whichever of the two it names.
                let asked = self.flags.osv.clone();
                let asked = asked.or_else(|| self.file.osv.clone().filter(|_| self.flags.advisories.is_none()));
                let advisories = match asked {
                    Some(url) => Some(Advisories::Api(OsvApi::at(&url)?)),
                    None => folder.map(Advisories::Folder),
                };
                DependencyCheck::new(root, advisories, self.file.ignore.clone())
            }
            None => DependencyCheck::none(),
        };
        let tree = tree.map(|root| Arc::new(source::SourceTree::new(root)));
        let here = (self.flags.host || self.file.host).then(|| {
            let mut here = host::Host::default();
            if let Some(ports) = &self.file.ports {
                here.ports.clone_from(ports);
            }
            here.uploads.clone_from(&self.file.uploads);
            Arc::new(here)
        });
        let backups = self.backups().await?;
        let monitored = match &mut self.shop {
            Some(shop) => monitored(shop).await,
            None => None,
        };
        Ok([
            web::checks(site),
            database::checks(database),
            source::checks(tree),
            host::checks(here),
            backups::checks(backups),
            maintenance::checks(maintained),
            monitor::checks(monitored),
            vec![Arc::new(dependencies) as Arc<dyn Check>],
        ]
        .concat())
    }

    /// The address of the database.
    ///
    /// # Errors
    /// Where it is a secret that is not there.
    pub fn database(&self) -> Result<Option<String>> {
        let url = self.flags.database.clone().or_else(|| self.file.database.clone());
        url.map(|url| secret(&url, "the database").map_err(|e| ours(&e, e.next_step()))).transpose()
    }

    /// A repository that cannot be opened is no reason to look at nothing else: its checks are unknown then.
    async fn backups(&self) -> Result<Option<Arc<backups::Backups>>> {
        let urls = if self.flags.backups.is_empty() { &self.file.backups } else { &self.flags.backups };
        if urls.is_empty() {
            return Ok(None);
        }
        let keys = self.flags.keys.as_ref().or(self.file.keys.as_ref());
        let open = async {
            let keys = match keys {
                Some(folder) => Keys::load(folder)?,
                None => Keys::none(),
            };
            let stores = urls.iter().map(|url| Store::from_url(url)).collect::<backup_core::Result<Vec<_>>>()?;
            Repository::open_all(stores, keys).await
        };
        match open.await {
            Ok(repository) => Ok(Some(Arc::new(backups::Backups::new(repository)))),
            Err(e) => {
                cli::complain(&format!("backups: {e}"));
                Ok(None)
            }
        }
    }

    /// The audit with all that stands around it.
    ///
    /// # Errors
    /// Where a task makes no sense.
    pub async fn report(&self, audit: &Audit, entries: &Entries, now: DateTime<Utc>) -> Result<Report> {
        let lines = self.lines(entries, now)?;
        let secrets = secret_ages(&self.file.secret, entries, now);
        let contacts = self.shop.iter().flat_map(|s| &s.contact).map(|c| Contact {
            role: c.role.clone(),
            name: c.name.clone(),
            reach: c.reach.clone(),
        });
        // A report without growth is still one.
        let growth = self.scaling(now).await.unwrap_or_else(|e| {
            cli::complain(&e.to_string());
            None
        });
        let report = Report::new(audit, entries, now).with_tasks(lines).with_secrets(secrets);
        Ok(report.with_contacts(contacts.collect()).with_scaling(growth))
    }

    /// Advice by the orders that the database counts; `None` where the configuration does not say how.
    pub async fn scaling(&self, now: DateTime<Utc>) -> Result<Option<checklist::ScalingAdvice>> {
        let Some(orders) = &self.file.orders else { return Ok(None) };
        let url = match &orders.database {
            Some(url) => Some(secret(url, "checklist.orders").map_err(|e| ours(&e, e.next_step()))?),
            None => self.database()?,
        };
        let url = url.ok_or_else(|| {
            Error::new(ErrorKind::Config, "checklist.orders: no database was named")
                .with_next_step("name it: database in [checklist.orders], or in [checklist]")
        })?;
        let rows = read_orders(&url, &orders.sql).await?;
        let today = now.with_timezone(&self.zone()?).date_naive();
        Ok(scaling(&whole_months(&rows, today), &self.file.in_place))
    }

    /// Tasks and what became of them.
    ///
    /// # Errors
    /// Where one makes no sense.
    pub fn lines(&self, entries: &Entries, now: DateTime<Utc>) -> Result<Vec<TaskLine>> {
        let zone = self.zone()?;
        // What was due before anybody wrote anything down was not missed.
        let began = entries.all.first().map_or(now, |(entry, _)| entry.at);
        let from = began.max(now - TimeDelta::days(366));
        let line = |task: &Task| {
            let mut times = task.occurrences(&completions(task, entries), from, now, zone);
            times.retain(|time| time.due >= from || time.done.is_some() || time.state == TaskState::Due);
            TaskLine::new(task, times)
        };
        Ok(self.tasks()?.iter().map(line).collect())
    }
}

/// Orders of months, or of days.
async fn read_orders(url: &str, sql: &str) -> Result<Vec<(NaiveDate, u64)>> {
    let metric = Metric {
        name: "checklist.orders".into(),
        sql: sql.to_owned(),
        unit: String::new(),
        target: None,
        missing: MissingDay::Unknown,
    };
    let report = metric.read(url, Duration::from_secs(60)).await.map_err(|e| ours(&e, e.next_step()))?;
    let one = |(label, value): (String, f64)| {
        let day = label.parse::<NaiveDate>().or_else(|_| format!("{label}-01").parse());
        let day = day.map_err(|_| {
            Error::new(ErrorKind::Config, format!("checklist.orders: {label:?} is no month"))
                .with_next_step("let the query give name, as 2026-11, and value")
        })?;
        Ok((day, value.max(0.0).round() as u64))
    };
    report.values.into_iter().map(one).collect()
}

/// The monitor of the configuration, where it has been at work.
async fn monitored(shop: &mut ShopFile) -> Option<Arc<monitor::Monitored>> {
    if !shop.shop.state.join("ledger.db").exists() {
        return None;
    }
    let ledger = match shop.ledger().await {
        Ok(ledger) => ledger,
        Err(e) => {
            cli::complain(&format!("the monitor's ledger: {e}"));
            return None;
        }
    };
    let mut monitored = monitor::Monitored::new(Arc::new(ledger));
    let kinds = shop.kinds();
    (monitored.http, monitored.pages) = (kinds.http, kinds.pages);
    (monitored.access_logs, monitored.error_logs, monitored.login_logs) =
        (kinds.access_logs, kinds.error_logs, kinds.login_logs);
    Some(Arc::new(monitored))
}

/// An error of another crate as one of ours.
pub fn ours(e: &dyn std::error::Error, next: Option<&str>) -> Error {
    let error = Error::new(ErrorKind::Config, e.to_string());
    match next {
        Some(next) => error.with_next_step(next),
        None => error,
    }
}
