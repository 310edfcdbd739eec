//! A shop, described once, as a TOML file (`caretaker.toml`): what is probed, who is told.
//!
//! Unknown keys are named with their line. Secrets may be written as `env:NAME` or `file:PATH`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Keys, Repository, Store};
use chrono::{DateTime, NaiveTime, TimeDelta, Utc, Weekday};
use health_probe::alert::{Alerter, Contact, Hours, Route};
use health_probe::ledger::SqliteLedger;
use health_probe::logs::TrafficOptions;
use health_probe::notify::{
    CommandNotifier, Notifier, SmtpNotifier, SmtpServer, SmtpTls, WebhookFormat, WebhookNotifier,
};
use health_probe::runbook::Runbook;
use health_probe::slo::Objective;
use health_probe::{
    AccessLogProbe, DatabaseProbe, DnsProbe, Error, ErrorKind, ErrorLogProbe, Expect, FileRules, FilesProbe,
    FreshnessProbe, HostProbe, HttpProbe, ImagesProbe, IncidentOptions, Limits, LoginLogProbe, Maildir, Metric,
    PageProbe, Policy, Probe, ProbeSpec, Result, RoundTripProbe, SmtpProbe, SqlProbe, Starttls, TcpProbe, TlsProbe,
    Unit, VendorProbe, Verdict, Watch,
};
use serde::{Deserialize, Deserializer};

use crate::shop_plan::{AgentPlan, BackupPlan, DeployPlan, MaintenancePlan};

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

/// A span of time, at least a second: `90s`, `15m`, `24h`, `30d`.
#[derive(Debug, Clone, Copy)]
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let period: db_maint::Period = text.parse().map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is no span of time: write a number and a unit: 90s, 15m, 24h, 30d"
            ))
        })?;
        Ok(Self(period.duration().max(Duration::from_secs(1))))
    }
}

/// Percent of good time, over 30 days: `99.9`.
fn objective<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Objective>, D::Error> {
    let percent = f64::deserialize(from)?;
    if percent < 50.0 {
        return Err(serde::de::Error::custom(format!("{percent} %: write 99.9 for 99.9 %, not 0.999")));
    }
    Objective::new(percent / 100.0, 30).map(Some).map_err(|e| {
        let next = e.next_step().unwrap_or_default().to_owned();
        serde::de::Error::custom(format!("{e}: {next}"))
    })
}

/// Something that may be a secret: written out, `env:NAME`, or `file:PATH`.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Secret {
    fn read(&self, what: &str) -> Result<String> {
        let wrong =
            |why: String, next: &str| Error::new(ErrorKind::Config, format!("{what}: {why}")).with_next_step(next);
        if let Some(name) = self.0.strip_prefix("env:") {
            return match std::env::var(name) {
                Ok(value) if !value.is_empty() => Ok(value),
                _ => Err(wrong(
                    format!("the variable {name} is not set"),
                    "set it where this is started, or write file:PATH",
                )),
            };
        }
        if let Some(path) = self.0.strip_prefix("file:").filter(|p| !p.starts_with("//")) {
            let text = std::fs::read_to_string(path)
                .map_err(|e| wrong(format!("{path} cannot be read: {e}"), "check the path and who may read it"))?;
            return Ok(text.trim_end().to_owned());
        }
        Ok(self.0.clone())
    }
}

/// The keys that every probe has.
#[derive(Debug, Default)]
struct Common {
    id: String,
    title: Option<String>,
    every: Option<Span>,
    timeout: Option<Span>,
    after: Vec<String>,
    limits: BTreeMap<String, Limits>,
    slo: Option<Objective>,
}

/// A section with the keys that every probe has, and its own.
macro_rules! section {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name {
            id: String,
            title: Option<String>,
            every: Option<Span>,
            timeout: Option<Span>,
            #[serde(default)]
            after: Vec<String>,
            #[serde(default)]
            limits: BTreeMap<String, Limits>,
            #[serde(default, deserialize_with = "objective")]
            slo: Option<Objective>,
            $($(#[$meta])* $field: $kind,)*
        }

        impl $name {
            fn common(&mut self) -> Common {
                Common {
                    id: self.id.clone(),
                    title: self.title.take(),
                    every: self.every,
                    timeout: self.timeout,
                    after: std::mem::take(&mut self.after),
                    limits: std::mem::take(&mut self.limits),
                    slo: self.slo,
                }
            }
        }
    };
}

section!(HostSection {
    #[serde(default)]
    disks: Vec<PathBuf>,
});
section!(HttpSection {
    url: Secret,
    #[serde(default)]
    method: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    #[serde(default)]
    status: Vec<u16>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_lacks: Option<String>,
    #[serde(default)]
    expect_headers: BTreeMap<String, String>,
    #[serde(default)]
    json: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    redirects: Option<usize>,
    #[serde(default)]
    roots: Option<PathBuf>,
});
section!(TlsSection {
    host: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    starttls: Option<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
});
section!(TcpSection { host: String, port: u16 });
section!(DnsSection {
    name: String,
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    expect: Vec<String>,
    #[serde(default)]
    server: Option<std::net::SocketAddr>,
});
section!(PageSection {
    url: Secret,
    #[serde(default)]
    roots: Option<PathBuf>,
});
section!(DatabaseSection { url: Secret });
section!(SqlSection {
    url: Secret,
    sql: String,
    #[serde(default)]
    units: BTreeMap<String, Unit>,
    #[serde(default)]
    below: BTreeMap<String, Limits>,
    #[serde(default)]
    above: BTreeMap<String, Limits>,
});
section!(PlainSqlSection { url: Secret, sql: String });
section!(KeySection {
    key: Secret,
    #[serde(default)]
    api: Option<String>,
});
section!(RemitaSection {
    merchant: String,
    key: Secret,
    reference: String,
    #[serde(default)]
    api: Option<String>,
});
section!(PageOfVendorSection {
    #[serde(default)]
    url: Option<String>,
});
section!(SentrySection {
    organization: String,
    project: String,
    token: Secret,
    #[serde(default)]
    api: Option<String>,
});
section!(AccessLogSection {
    file: PathBuf,
    #[serde(default)]
    traffic: TrafficOptions,
});
section!(ErrorLogSection { file: PathBuf });
section!(FilesSection {
    root: PathBuf,
    #[serde(default)]
    uploads: Vec<PathBuf>,
    #[serde(default)]
    public: Vec<PathBuf>,
    #[serde(default)]
    secrets: Option<Vec<String>>,
    #[serde(default)]
    owner: Option<u32>,
    #[serde(default)]
    code: Option<Vec<String>>,
});
section!(ImagesSection { folder: PathBuf });
section!(SmtpSection { server: String });
section!(RoundTripSection {
    server: String,
    from: String,
    to: String,
    maildir: PathBuf,
    #[serde(default)]
    within: Option<Span>,
});
section!(BackupSection {
    store: Vec<String>,
    #[serde(default)]
    keys: Option<PathBuf>,
    source: String,
    rpo: Span,
});

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Probes {
    host: Vec<HostSection>,
    dns: Vec<DnsSection>,
    tcp: Vec<TcpSection>,
    tls: Vec<TlsSection>,
    http: Vec<HttpSection>,
    page: Vec<PageSection>,
    database: Vec<DatabaseSection>,
    sql: Vec<SqlSection>,
    payments: Vec<PlainSqlSection>,
    orders: Vec<PlainSqlSection>,
    stuck_orders: Vec<PlainSqlSection>,
    webhooks: Vec<PlainSqlSection>,
    mail_log: Vec<PlainSqlSection>,
    stripe_status: Vec<PageOfVendorSection>,
    statuspage: Vec<PageOfVendorSection>,
    stripe_key: Vec<KeySection>,
    paystack_key: Vec<KeySection>,
    remita_key: Vec<RemitaSection>,
    sentry: Vec<SentrySection>,
    access_log: Vec<AccessLogSection>,
    login_log: Vec<ErrorLogSection>,
    error_log: Vec<ErrorLogSection>,
    files: Vec<FilesSection>,
    images: Vec<ImagesSection>,
    smtp: Vec<SmtpSection>,
    mail_round_trip: Vec<RoundTripSection>,
    backup: Vec<BackupSection>,
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

    /// Which probes are of which kind, by their names.
    pub fn kinds(&self) -> Kinds {
        let p = &self.probe;
        let pages = p.page.iter().map(|s| s.id.clone());
        Kinds {
            http: p.http.iter().map(|s| s.id.clone()).collect(),
            pages: pages.chain(p.http.iter().map(|s| s.id.clone())).collect(),
            access_logs: p.access_log.iter().map(|s| s.id.clone()).collect(),
            error_logs: p.error_log.iter().map(|s| s.id.clone()).collect(),
            login_logs: p.login_log.iter().map(|s| s.id.clone()).collect(),
        }
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

    /// Whether there is any probe.
    pub fn has_probes(&self) -> bool {
        let p = &self.probe;
        let each = [
            p.host.len(),
            p.dns.len(),
            p.tcp.len(),
            p.tls.len(),
            p.http.len(),
            p.page.len(),
            p.database.len(),
            p.sql.len(),
            p.payments.len(),
            p.orders.len(),
            p.stuck_orders.len(),
            p.webhooks.len(),
            p.mail_log.len(),
            p.stripe_status.len(),
            p.statuspage.len(),
            p.stripe_key.len(),
            p.paystack_key.len(),
            p.remita_key.len(),
            p.sentry.len(),
            p.access_log.len(),
            p.login_log.len(),
            p.error_log.len(),
            p.files.len(),
            p.images.len(),
            p.smtp.len(),
            p.mail_round_trip.len(),
            p.backup.len(),
        ];
        each.iter().any(|n| *n > 0)
    }

    /// The probes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting makes no sense, or a secret is missing; it names the probe.
    pub fn watches(&mut self) -> Result<Vec<Watch>> {
        let servers = self.mail_servers()?;
        let state = self.shop.state.clone();
        let mut out = Vec::new();
        let p = &mut self.probe;
        for s in &mut p.host {
            let c = s.common();
            let probe = HostProbe::new(c.id.clone(), s.disks.clone());
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.dns {
            let c = s.common();
            let mut probe = DnsProbe::new(c.id.clone(), &s.name, s.kind.as_deref().unwrap_or("A"))?;
            probe = probe.expecting(s.expect.clone());
            if let Some(server) = s.server {
                probe = probe.asking(server);
            }
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.tcp {
            let c = s.common();
            out.push(watch(TcpProbe::new(c.id.clone(), &s.host, s.port).with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.tls {
            let c = s.common();
            let mut probe = TlsProbe::new(c.id.clone(), &s.host, s.port.unwrap_or(443));
            probe = probe.after(match s.starttls.as_deref() {
                None => Starttls::None,
                Some("smtp") => Starttls::Smtp,
                Some("imap") => Starttls::Imap,
                Some("pop3") => Starttls::Pop3,
                Some("postgres") => Starttls::Postgres,
                Some(other) => return Err(unknown(&c.id, "starttls", other, "smtp, imap, pop3, postgres")),
            });
            if let Some(roots) = &s.roots {
                probe = probe.trusting(roots)?;
            }
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.http {
            let c = s.common();
            let mut probe = HttpProbe::new(c.id.clone(), &s.url.read(&c.id)?)?;
            if let Some(method) = &s.method {
                probe = probe.with_request(method, "")?;
            }
            for (name, value) in &s.headers {
                probe = probe.with_header(name, &value.read(&c.id)?)?;
            }
            let expects = (!s.status.is_empty()).then(|| Expect::Status(s.status.clone())).into_iter();
            let expects = expects
                .chain(s.body.clone().map(Expect::Body))
                .chain(s.body_lacks.clone().map(Expect::NotInBody))
                .chain(s.expect_headers.iter().map(|(n, v)| Expect::Header(n.clone(), v.clone())))
                .chain(s.json.iter().map(|(pointer, v)| Expect::Json(pointer.clone(), v.clone())));
            for expect in expects {
                probe = probe.expecting(expect);
            }
            if let Some(most) = s.redirects {
                probe = probe.with_redirects(most);
            }
            if let Some(roots) = &s.roots {
                probe = probe.trusting(roots)?;
            }
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.page {
            let c = s.common();
            let mut probe = PageProbe::new(c.id.clone(), &s.url.read(&c.id)?)?;
            if let Some(roots) = &s.roots {
                probe = probe.trusting(roots)?;
            }
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 900));
        }
        for s in &mut p.database {
            let c = s.common();
            let probe = DatabaseProbe::new(c.id.clone(), &s.url.read(&c.id)?)?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.sql {
            let c = s.common();
            let mut policy = Policy::new();
            let unit = |name: &String| s.units.get(name).cloned().unwrap_or(Unit::None);
            for (name, limits) in &s.below {
                policy = policy.below(name, unit(name), *limits);
            }
            for (name, limits) in &s.above {
                policy = policy.above(name, unit(name), *limits);
            }
            let mut probe = SqlProbe::new(c.id.clone(), &s.url.read(&c.id)?, s.sql.clone(), policy)?;
            for (name, unit) in &s.units {
                probe = probe.with_unit(name, unit.clone());
            }
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        type Make = fn(String, &str, String) -> Result<SqlProbe>;
        let declared: [(&mut Vec<PlainSqlSection>, Make); 5] = [
            (&mut p.payments, SqlProbe::payments),
            (&mut p.orders, SqlProbe::orders),
            (&mut p.stuck_orders, SqlProbe::stuck_orders),
            (&mut p.webhooks, SqlProbe::webhooks),
            (&mut p.mail_log, SqlProbe::mail_log),
        ];
        for (sections, make) in declared {
            for s in sections {
                let c = s.common();
                let probe = make(c.id.clone(), &s.url.read(&c.id)?, s.sql.clone())?;
                out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
            }
        }
        for s in &mut p.stripe_status {
            let c = s.common();
            let probe =
                VendorProbe::stripe_status(c.id.clone(), s.url.as_deref().unwrap_or("https://status.stripe.com"))?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.statuspage {
            let c = s.common();
            let url = s.url.as_deref().ok_or_else(|| Error::new(ErrorKind::Config, format!("{}: has no url", c.id)))?;
            out.push(watch(VendorProbe::statuspage(c.id.clone(), url)?.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.stripe_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://api.stripe.com");
            let probe = VendorProbe::stripe_key(c.id.clone(), api, &s.key.read(&c.id)?)?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.paystack_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://api.paystack.co");
            let probe = VendorProbe::paystack_key(c.id.clone(), api, &s.key.read(&c.id)?)?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.remita_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://login.remita.net/remita/exapp/api/v1/send/api");
            let probe = VendorProbe::remita_key(c.id.clone(), api, &s.merchant, &s.key.read(&c.id)?, &s.reference)?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.sentry {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://sentry.io");
            let probe = VendorProbe::sentry(c.id.clone(), api, &s.organization, &s.project, &s.token.read(&c.id)?)?;
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 900));
        }
        for s in &mut p.access_log {
            let c = s.common();
            let probe = AccessLogProbe::new(c.id.clone(), &s.file, kept(&state, &c.id), s.traffic.clone());
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.login_log {
            let c = s.common();
            let probe = LoginLogProbe::new(c.id.clone(), &s.file, kept(&state, &c.id));
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.error_log {
            let c = s.common();
            let probe = ErrorLogProbe::new(c.id.clone(), &s.file, kept(&state, &c.id));
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.files {
            let c = s.common();
            out.push(watch(files(s, &state, &c).with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.images {
            let c = s.common();
            out.push(watch(ImagesProbe::new(c.id.clone(), &s.folder).with_spec(|spec| tune(spec, &c)), &c, 86_400));
        }
        for s in &mut p.smtp {
            let c = s.common();
            let probe = SmtpProbe::new(c.id.clone(), server(&servers, &s.server)?);
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.mail_round_trip {
            let c = s.common();
            let mail =
                SmtpNotifier::new(c.id.clone(), server(&servers, &s.server)?, &s.from, std::slice::from_ref(&s.to))?;
            let within = s.within.map_or(Duration::from_secs(120), |w| w.0);
            let probe = RoundTripProbe::new(c.id.clone(), Arc::new(mail), Arc::new(Maildir::new(&s.maildir)), within);
            let watch = watch(probe.with_spec(|spec| tune(spec, &c)), &c, 3600);
            out.push(watch.with_timeout(within + Duration::from_secs(60)));
        }
        for s in &mut p.backup {
            let c = s.common();
            let (stores, keys, source, rpo) = (s.store.clone(), s.keys.clone(), s.source.clone(), s.rpo.0);
            let newest = move || newest_verified(stores.clone(), keys.clone(), source.clone(), rpo);
            let probe = FreshnessProbe::new(c.id.clone(), rpo, newest).with_title("newest verified backup");
            let watch = watch(probe.with_spec(|spec| tune(spec, &c)), &c, 900);
            out.push(watch.with_timeout(c.timeout.map_or(Duration::from_secs(120), |t| t.0)));
        }
        if out.is_empty() {
            return Err(
                Error::new(ErrorKind::Config, "there is no probe").with_next_step("add some: [[probe.http]], …")
            );
        }
        Ok(out)
    }

    /// Takes the code as it is now for what it should be.
    ///
    /// # Errors
    /// Where a tree cannot be read, or there is none.
    pub fn accept_files(&mut self) -> Result<usize> {
        let state = self.shop.state.clone();
        for s in &mut self.probe.files {
            let c = s.common();
            files(s, &state, &c).accept()?;
        }
        match self.probe.files.len() {
            0 => Err(Error::new(ErrorKind::Config, "there is no [[probe.files]]")),
            n => Ok(n),
        }
    }

    /// Who is told; `None` where nobody is named.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting makes no sense, or nothing takes what is critical.
    pub fn alerter(&self) -> Result<Option<Alerter>> {
        let servers = self.mail_servers()?;
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
            let server = server(&servers, &mail.server)?;
            notifiers.push(Arc::new(SmtpNotifier::new(&mail.name, server, &mail.from, &mail.to)?));
        }
        for command in &self.alerts.command {
            notifiers.push(Arc::new(CommandNotifier::new(&command.name, &command.program, command.arguments.clone())));
        }
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
            let metric = Metric { name: m.name.clone(), sql: m.sql.clone(), unit: m.unit.clone(), target: m.target };
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

/// A value that may be `env:NAME` or `file:PATH`.
///
/// # Errors
/// [`ErrorKind::Config`] where that is not there; it names `what`.
pub fn secret(value: &str, what: &str) -> Result<String> {
    Secret(value.to_owned()).read(what)
}

/// The age of the newest snapshot of a source that is complete and verified.
async fn newest_verified(
    urls: Vec<String>,
    keys: Option<PathBuf>,
    source: String,
    rpo: Duration,
) -> Result<Option<DateTime<Utc>>> {
    let ask = async {
        let keys = match &keys {
            Some(folder) => Keys::load(folder)?,
            None => Keys::none(),
        };
        let stores = urls.iter().map(|url| Store::from_url(url)).collect::<backup_core::Result<Vec<_>>>()?;
        let catalog = Repository::open_all(stores, keys).await?.catalog().await?;
        let now = Utc::now();
        let objective = backup_core::Objective::new(source, rpo);
        let judged = backup_core::objective::judge(&[objective], &catalog, now);
        let age = judged.first().and_then(|status| status.age_seconds);
        Ok::<_, backup_core::Error>(age.map(|age| now - TimeDelta::seconds(age)))
    };
    ask.await.map_err(|e| {
        let next = e.next_step().unwrap_or("run `backup status`").to_owned();
        Error::new(ErrorKind::Unreachable, format!("backups: {e}")).with_next_step(next).with_source(e)
    })
}

fn files(s: &FilesSection, state: &Path, c: &Common) -> FilesProbe {
    let mut rules = FileRules {
        root: s.root.clone(),
        uploads: s.uploads.clone(),
        public: s.public.clone(),
        ..FileRules::default()
    };
    rules.owner = s.owner;
    if let Some(secrets) = &s.secrets {
        rules.secrets.clone_from(secrets);
    }
    if let Some(code) = &s.code {
        rules.code.clone_from(code);
    }
    FilesProbe::new(c.id.clone(), rules).with_state(kept(state, &c.id))
}

/// The file of what a probe remembers.
fn kept(state: &Path, id: &str) -> PathBuf {
    let name: String = id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    state.join(format!("{name}.json"))
}

fn watch(probe: impl Probe + 'static, c: &Common, every: u64) -> Watch {
    let mut watch = Watch::new(probe, c.every.map_or(Duration::from_secs(every), |e| e.0)).after(c.after.clone());
    if let Some(timeout) = c.timeout {
        watch = watch.with_timeout(timeout.0);
    }
    if let Some(objective) = c.slo {
        watch = watch.with_objective(objective);
    }
    watch
}

/// Title and limits as the shop wants them. A limit for a reading that has none is refused later, by its name.
fn tune(spec: &mut ProbeSpec, c: &Common) {
    if let Some(title) = &c.title {
        spec.title.clone_from(title);
    }
    for (reading, limits) in &c.limits {
        match spec.policy.limits_mut(reading) {
            Some(known) => *known = *limits,
            None => {
                // A rule that nothing answers is unknown, and says its name: a slip is not passed over.
                let policy = std::mem::take(&mut spec.policy);
                spec.policy = policy.below(reading, Unit::None, *limits);
            }
        }
    }
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

fn server(servers: &BTreeMap<String, SmtpServer>, name: &str) -> Result<SmtpServer> {
    servers.get(name).cloned().ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("there is no mail server called {name}"))
            .with_next_step("add it: [[smtp]]")
    })
}

fn unknown(who: &str, key: &str, value: &str, known: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{who}: {key} = {value:?} is not known"))
        .with_next_step(format!("one of: {known}"))
}
