//! A shop, described once, as a TOML file (`caretaker.toml`): what is probed, who is told.
//!
//! Unknown keys are named with their line. Secrets may be written as `env:NAME` or `file:PATH`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{NaiveTime, Weekday};
use health_probe::alert::{Alerter, Contact, Hours, Route};
use health_probe::ledger::SqliteLedger;
use health_probe::notify::{
    CommandNotifier, Notifier, SmtpNotifier, SmtpServer, SmtpTls, WebhookFormat, WebhookNotifier,
};
use health_probe::runbook::Runbook;
use health_probe::{Error, ErrorKind, IncidentOptions, Metric, MissingDay, Result, Verdict, Watch};
use serde::Deserialize;

use crate::shop_plan::{AgentPlan, BackupPlan, DeployPlan, MaintenancePlan};
use crate::shop_sections::Probes;
pub use crate::shop_value::secret;
use crate::shop_value::{Secret, Span};

/// A shop.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShopFile {
    /// Its name, and what is kept where.
    pub shop: Shop,
    #[serde(default)]
    probe: Probes,
    #[serde(default)]
    smtp: Vec<MailServer>,
    #[serde(default)]
    alerts: Alerts,
    /// Whom to call.
    #[serde(default)]
    pub contact: Vec<Contact>,
    #[serde(default)]
    metric: Vec<MetricSection>,
    /// What the checklist looks at.
    #[serde(default)]
    pub checklist: crate::checklist_file::ChecklistFile,
    /// What is backed up.
    #[serde(default)]
    pub backup: BackupPlan,
    /// What is done about the database.
    #[serde(default)]
    pub maintenance: MaintenancePlan,
    /// The agent.
    #[serde(default)]
    pub agent: AgentPlan,
    /// Deployments.
    #[serde(default)]
    pub deploy: DeployPlan,
    /// Runbooks of the shop's own, beside the three that are built in.
    #[serde(default)]
    runbook: Vec<Runbook>,
}

/// The shop itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shop {
    /// Its name.
    pub name: String,
    #[serde(default = "utc")]
    time_zone: String,
    /// The folder of what is remembered.
    pub state: PathBuf,
}

fn utc() -> String {
    "UTC".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MailServer {
    name: String,
    host: String,
    port: u16,
    #[serde(default)]
    tls: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    root: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Alerts {
    remind: Option<Span>,
    down: Option<u32>,
    up: Option<u32>,
    heartbeat: Option<Secret>,
    heartbeat_every: Option<Span>,
    slack: Vec<Hook>,
    webhook: Vec<Hook>,
    mail: Vec<MailAlert>,
    command: Vec<CommandAlert>,
    route: Vec<RouteSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    name: String,
    url: Secret,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MailAlert {
    name: String,
    server: String,
    from: String,
    to: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandAlert {
    name: String,
    program: String,
    #[serde(default)]
    arguments: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteSection {
    severity: Verdict,
    notify: Vec<String>,
    #[serde(default)]
    probes: Vec<String>,
    #[serde(default)]
    days: Vec<Weekday>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricSection {
    name: String,
    url: Secret,
    sql: String,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    target: Option<f64>,
    #[serde(default)]
    missing: MissingDay,
}

impl ShopFile {
    /// Reads it; a key that nobody knows is named with its line.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it cannot be read, or makes no sense.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Error::new(ErrorKind::Config, format!("{}: {why}", path.display()))
                .with_next_step("see examples/caretaker.toml for all that there is")
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("cannot be read: {e}")).with_source(e))?;
        let shop: Self = toml::from_str(&text).map_err(|e| wrong(e.to_string().trim_end().to_owned()))?;
        shop.zone()?;
        Ok(shop)
    }

    /// Whether the plans of backups fit together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a name is taken twice, a tier is of a source that is not there, or there is no store.
    pub fn plans(&self) -> Result<()> {
        let wrong = |why: String, next: &str| Err(Error::new(ErrorKind::Config, why).with_next_step(next));
        let plan = &self.backup;
        for (at, source) in plan.source.iter().enumerate() {
            if plan.source[..at].iter().any(|s| s.name == source.name) {
                return wrong(format!("two [[backup.source]] are called {:?}", source.name), "name them apart");
            }
        }
        for (at, tier) in plan.tier.iter().enumerate() {
            if !plan.source.iter().any(|s| s.name == tier.source) {
                let why = format!("the tier {:?} is of a source {:?} that is not there", tier.name, tier.source);
                return wrong(why, "source is the name of a [[backup.source]]");
            }
            if plan.tier[..at].iter().any(|t| t.name == tier.name) {
                return wrong(format!("two [[backup.tier]] are called {:?}", tier.name), "name them apart");
            }
        }
        if !plan.source.is_empty() && plan.stores.is_empty() {
            return wrong("[backup] has sources and no store".into(), "add stores = [\"file:///var/backups/shop\"]");
        }
        Ok(())
    }

    /// The shop's time zone.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is none.
    pub fn zone(&self) -> Result<chrono_tz::Tz> {
        self.shop.time_zone.parse().map_err(|_| {
            Error::new(ErrorKind::Config, format!("{:?} is no time zone", self.shop.time_zone))
                .with_next_step("write one such as Africa/Lagos or Europe/London")
        })
    }

    /// The ledger, in the folder of what is remembered.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub async fn ledger(&self) -> Result<SqliteLedger> {
        std::fs::create_dir_all(&self.shop.state).map_err(|e| {
            Error::new(ErrorKind::Storage, format!("{}: cannot be made: {e}", self.shop.state.display()))
                .with_next_step("let the user that runs this write there, or set shop.state")
        })?;
        SqliteLedger::open(&self.shop.state.join("ledger.db")).await
    }

    /// The same for whoever watches this shop alone: a ledger that is broken is set aside, and that is said.
    ///
    /// # Errors
    /// Where it cannot be opened, or not be set aside.
    pub async fn ledger_of_watch(&self, _alone: &std::fs::File) -> Result<SqliteLedger> {
        let ledger = SqliteLedger::open_or_begin_anew(&self.shop.state.join("ledger.db")).await?;
        if let Some(aside) = ledger.set_aside() {
            crate::cli::complain(&format!(
                "the ledger could not be read and was set aside as {}: service levels begin anew",
                aside.display()
            ));
        }
        Ok(ledger)
    }

    /// Which probes are of which kind, by their names.
    pub fn kinds(&self) -> Kinds {
        self.probe.kinds()
    }

    /// The right to watch this shop, for as long as the value lives: two that watch would tell everything twice.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where another process has it; [`ErrorKind::Storage`] where the file of it cannot be made.
    pub fn watch_alone(&self) -> Result<std::fs::File> {
        let path = self.shop.state.join("watch.lock");
        let made = std::fs::create_dir_all(&self.shop.state)
            .and_then(|()| std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path));
        let file = made.map_err(|e| {
            Error::new(ErrorKind::Storage, format!("{}: cannot be made: {e}", path.display()))
                .with_next_step("let the user that runs this write there, or set shop.state")
                .with_source(e)
        })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => {
                let why = format!("{}: another process watches this shop", self.shop.state.display());
                Err(Error::new(ErrorKind::Config, why)
                    .with_next_step("stop it (`probe watch` or `agent`), or set watch = false in [agent]"))
            }
            Err(std::fs::TryLockError::Error(e)) => {
                let why = format!("{}: cannot be locked: {e}", path.display());
                Err(Error::new(ErrorKind::Storage, why).with_next_step("set shop.state to a local disk").with_source(e))
            }
        }
    }

    /// The probes that customers may read of, by the names that they are to read; empty where none is named so.
    pub fn public_names(&self) -> BTreeMap<String, String> {
        self.probe.public()
    }

    /// Whether there is any probe.
    pub fn has_probes(&self) -> bool {
        self.probe.count() > 0
    }

    /// The probes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting makes no sense, or a secret is missing; it names the probe.
    pub fn watches(&mut self) -> Result<Vec<Watch>> {
        let servers = self.mail_servers()?;
        let notifiers = self.notifiers(&servers)?;
        self.probe.watches(&self.shop.state, &servers, &notifiers)
    }

    /// Takes the code as it is now for what it should be.
    ///
    /// # Errors
    /// Where a tree cannot be read, or there is none.
    pub fn accept_files(&mut self) -> Result<usize> {
        self.probe.accept_files(&self.shop.state)
    }

    /// Who is told; `None` where nobody is named.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting makes no sense, or nothing takes what is critical.
    pub fn alerter(&self) -> Result<Option<Alerter>> {
        let notifiers = self.notifiers(&self.mail_servers()?)?;
        if notifiers.is_empty() {
            return match self.alerts.route.is_empty() {
                true => Ok(None),
                false => Err(Error::new(ErrorKind::Config, "there are routes and nobody to tell")
                    .with_next_step("add [[alerts.mail]], [[alerts.slack]], [[alerts.webhook]] or [[alerts.command]]")),
            };
        }
        let zone = self.zone()?;
        let routes = self.alerts.route.iter().map(|r| route(r, zone)).collect::<Result<Vec<_>>>()?;
        Alerter::new(notifiers, routes).map(Some)
    }

    fn notifiers(&self, servers: &BTreeMap<String, SmtpServer>) -> Result<Vec<Arc<dyn Notifier>>> {
        let mut notifiers: Vec<Arc<dyn Notifier>> = Vec::new();
        let hooks = self.alerts.slack.iter().map(|h| (h, WebhookFormat::Slack));
        for (hook, format) in hooks.chain(self.alerts.webhook.iter().map(|h| (h, WebhookFormat::Json))) {
            let mut notifier = WebhookNotifier::new(&hook.name, &hook.url.read(&hook.name)?, format)?;
            for (name, value) in &hook.headers {
                notifier = notifier.with_header(name, &value.read(&hook.name)?)?;
            }
            notifiers.push(Arc::new(notifier));
        }
        for mail in &self.alerts.mail {
            let server = server(servers, &mail.server)?;
            notifiers.push(Arc::new(SmtpNotifier::new(&mail.name, server, &mail.from, &mail.to)?));
        }
        for command in &self.alerts.command {
            notifiers.push(Arc::new(CommandNotifier::new(&command.name, &command.program, command.arguments.clone())));
        }
        Ok(notifiers)
    }

    /// When people are told.
    pub fn incident_options(&self) -> IncidentOptions {
        let mut options = IncidentOptions::default();
        if let Some(remind) = self.alerts.remind {
            options.remind_minutes = u32::try_from(remind.0.as_secs() / 60).unwrap_or(u32::MAX).max(1);
        }
        options.down = self.alerts.down.unwrap_or(options.down);
        options.up = self.alerts.up.unwrap_or(options.up);
        options
    }

    /// Where the sign of life goes, and how often.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address, or the secret is missing.
    pub fn heartbeat(&self) -> Result<Option<(health_probe::HttpHeartbeat, Duration)>> {
        let Some(url) = &self.alerts.heartbeat else { return Ok(None) };
        let every = self.alerts.heartbeat_every.map_or(Duration::from_secs(60), |e| e.0);
        Ok(Some((health_probe::HttpHeartbeat::new(&url.read("alerts.heartbeat")?)?, every)))
    }

    /// The runbooks: those of the shop, and of the built-in ones those that it has no own of.
    pub fn runbooks(&self) -> Vec<Runbook> {
        let mut all = self.runbook.clone();
        all.extend(Runbook::builtin().into_iter().filter(|b| !self.runbook.iter().any(|r| r.name == b.name)));
        all
    }

    /// The figures of the business, each with the URL of its database.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a secret is missing.
    pub fn metrics(&self) -> Result<Vec<(Metric, String)>> {
        let one = |m: &MetricSection| {
            let metric = Metric {
                name: m.name.clone(),
                sql: m.sql.clone(),
                unit: m.unit.clone(),
                target: m.target,
                missing: m.missing,
            };
            Ok((metric, m.url.read(&m.name)?))
        };
        self.metric.iter().map(one).collect()
    }

    fn mail_servers(&self) -> Result<BTreeMap<String, SmtpServer>> {
        let mut servers = BTreeMap::new();
        for s in &self.smtp {
            let tls = match s.tls.as_deref() {
                None | Some("starttls") => SmtpTls::Starttls,
                Some("implicit") => SmtpTls::Implicit,
                Some("none") => SmtpTls::None,
                Some(other) => return Err(unknown(&s.name, "tls", other, "starttls, implicit, none")),
            };
            let mut server = SmtpServer::new(&s.host, s.port, tls);
            if let (Some(user), Some(password)) = (&s.user, &s.password) {
                server = server.with_login(user, password.read(&s.name)?)?;
            }
            if let Some(root) = &s.root {
                server = server.trusting(root)?;
            }
            servers.insert(s.name.clone(), server);
        }
        Ok(servers)
    }
}

/// Probes by their kind.
#[derive(Debug)]
pub struct Kinds {
    /// Over HTTP.
    pub http: Vec<String>,
    /// Of pages, and others that have response times.
    pub pages: Vec<String>,
    /// Of access logs.
    pub access_logs: Vec<String>,
    /// Of error logs.
    pub error_logs: Vec<String>,
    /// Of log-ins.
    pub login_logs: Vec<String>,
}

fn route(r: &RouteSection, zone: chrono_tz::Tz) -> Result<Route> {
    let mut route = Route::new(r.severity, r.notify.clone());
    if !r.probes.is_empty() {
        route = route.only(r.probes.clone());
    }
    let time = |text: &Option<String>, otherwise: NaiveTime| match text {
        None => Ok(otherwise),
        Some(text) => NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| {
            Error::new(ErrorKind::Config, format!("{text:?} is no time of day")).with_next_step("write it as 08:00")
        }),
    };
    if !r.days.is_empty() || r.from.is_some() || r.to.is_some() {
        let all = [Weekday::Mon, Weekday::Tue, Weekday::Wed, Weekday::Thu, Weekday::Fri, Weekday::Sat, Weekday::Sun];
        let days = if r.days.is_empty() { all.to_vec() } else { r.days.clone() };
        let last = NaiveTime::from_hms_opt(23, 59, 59).unwrap_or(NaiveTime::MIN);
        route = route.within(Hours::new(zone, days, time(&r.from, NaiveTime::MIN)?, time(&r.to, last)?));
    }
    Ok(route)
}

pub(crate) fn server(servers: &BTreeMap<String, SmtpServer>, name: &str) -> Result<SmtpServer> {
    servers.get(name).cloned().ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("there is no mail server called {name}"))
            .with_next_step("add it: [[smtp]]")
    })
}

pub(crate) fn unknown(who: &str, key: &str, value: &str, known: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{who}: {key} = {value:?} is not known"))
        .with_next_step(format!("one of: {known}"))
}
