//! The probes of a shop's file, made of what stands there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Keys, Repository, Store};
use chrono::{DateTime, TimeDelta, Utc};
use health_probe::notify::{Notifier, SmtpNotifier, SmtpServer};
use health_probe::{
    AccessLogProbe, DatabaseProbe, DnsProbe, Error, ErrorKind, ErrorLogProbe, Expect, FileRules, FilesProbe,
    FreshnessProbe, HostProbe, HttpProbe, ImagesProbe, ImapMailbox, LoginLogProbe, Maildir, NetworkProbe, PageProbe,
    Policy, Probe, ProbeExt, ProbeSpec, Receipt, Result, RoundTripProbe, SmtpProbe, SqlProbe, Starttls, TcpProbe,
    TlsProbe, Unit, VendorProbe, Watch,
};

use crate::shop_file::{Kinds, server, unknown};
use crate::shop_sections::{Common, FilesSection, ImapSection, PlainSqlSection, Probes};
use crate::shop_value::Span;

/// The probe with the limit that the shop gives it.
macro_rules! limited {
    ($probe:expr, $common:expr) => {
        match $common.timeout {
            Some(limit) => $probe.with_limit(limit.0),
            None => $probe,
        }
    };
}
impl Probes {
    /// Which probes are of which kind, by their names.
    pub(crate) fn kinds(&self) -> Kinds {
        let p = self;
        let pages = p.page.iter().map(|s| s.id.clone());
        Kinds {
            http: p.http.iter().map(|s| s.id.clone()).collect(),
            pages: pages.chain(p.http.iter().map(|s| s.id.clone())).collect(),
            access_logs: p.access_log.iter().map(|s| s.id.clone()).collect(),
            error_logs: p.error_log.iter().map(|s| s.id.clone()).collect(),
            login_logs: p.login_log.iter().map(|s| s.id.clone()).collect(),
        }
    }

    /// The probes.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where a setting makes no sense, or a secret is missing; it names the probe.
    pub(crate) fn watches(
        &mut self,
        state: &Path,
        servers: &BTreeMap<String, SmtpServer>,
        notifiers: &[Arc<dyn Notifier>],
    ) -> Result<Vec<Watch>> {
        let mut out = Vec::new();
        let p = self;
        for s in &mut p.host {
            let c = s.common();
            let probe = HostProbe::new(c.id.clone(), s.disks.clone());
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.network {
            let c = s.common();
            let mut probe = NetworkProbe::new(c.id.clone());
            if !s.addresses.is_empty() {
                probe = probe.by(&s.addresses)?;
            }
            if let Some(name) = &s.name {
                probe = probe.finding(name);
            }
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.dns {
            let c = s.common();
            let mut probe = DnsProbe::new(c.id.clone(), &s.name, s.kind.as_deref().unwrap_or("A"))?;
            probe = probe.expecting(s.expect.clone());
            if let Some(server) = s.server {
                probe = probe.asking(server);
            }
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.tcp {
            let c = s.common();
            let probe = limited!(TcpProbe::new(c.id.clone(), &s.host, s.port), c);
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
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
                Some("mysql") => Starttls::Mysql,
                Some(other) => return Err(unknown(&c.id, "starttls", other, "smtp, imap, pop3, postgres, mysql")),
            });
            probe = probe.over(s.family);
            if let Some(roots) = &s.roots {
                probe = probe.trusting(roots)?;
            }
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.http {
            let c = s.common();
            let mut probe = HttpProbe::new(c.id.clone(), &s.url.read(&c.id)?)?;
            if s.method.is_some() || s.send.is_some() {
                let (method, body) = (s.method.as_deref(), s.send.clone());
                let method = method.unwrap_or(if body.is_some() { "POST" } else { "GET" });
                probe = probe.with_request(method, body.unwrap_or_default())?;
            }
            probe = probe.over(s.family).with_reach(s.reach);
            for (name, value) in &s.headers {
                probe = probe.with_header(name, &value.read(&c.id)?)?;
            }
            let expects = (!s.status.is_empty()).then(|| Expect::Status(s.status.clone())).into_iter();
            let expects = expects
                .chain(s.body.clone().map(Expect::Body))
                .chain(s.body_lacks.clone().map(Expect::NotInBody))
                .chain(s.expect_headers.iter().map(|(n, v)| Expect::Header(n.clone(), v.clone())))
                .chain(s.json.iter().map(|(pointer, v)| Expect::Json(pointer.clone(), v.clone())))
                .chain(
                    s.json_below
                        .iter()
                        .map(|(pointer, limits)| Expect::JsonBelow(pointer.clone(), Unit::None, *limits)),
                );
            for expect in expects {
                probe = probe.expecting(expect);
            }
            if let Some(most) = s.redirects {
                probe = probe.with_redirects(most);
            }
            if let Some(limit) = c.timeout {
                probe = probe.with_limits(limit.0, 1 << 20);
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
            let watch = watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 900);
            // All parts together have twice the time of one.
            let one = c.timeout.map_or(Duration::from_secs(20), |t| t.0) * 2;
            out.push(watch.with_timeout(all_tries(one, &c)));
        }
        for s in &mut p.database {
            let c = s.common();
            let probe = DatabaseProbe::new(c.id.clone(), &s.url.read(&c.id)?)?;
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 60));
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
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 300));
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
                out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 300));
            }
        }
        for s in &mut p.stripe_status {
            let c = s.common();
            let probe =
                VendorProbe::stripe_status(c.id.clone(), s.url.as_deref().unwrap_or("https://status.stripe.com"))?;
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.statuspage {
            let c = s.common();
            let url = s.url.as_deref().ok_or_else(|| Error::new(ErrorKind::Config, format!("{}: has no url", c.id)))?;
            let probe = limited!(VendorProbe::statuspage(c.id.clone(), url)?, c);
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.stripe_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://api.stripe.com");
            let mut probe = VendorProbe::stripe_key(c.id.clone(), api, &s.key.read(&c.id)?)?;
            if s.test_mode {
                probe = probe.in_test_mode();
            }
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.paystack_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://api.paystack.co");
            let mut probe = VendorProbe::paystack_key(c.id.clone(), api, &s.key.read(&c.id)?)?;
            if s.test_mode {
                probe = probe.in_test_mode();
            }
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.remita_key {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://login.remita.net/remita/exapp/api/v1/send/api");
            let probe = VendorProbe::remita_key(c.id.clone(), api, &s.merchant, &s.key.read(&c.id)?, &s.reference)?;
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.sentry {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://sentry.io");
            let probe = VendorProbe::sentry(c.id.clone(), api, &s.organization, &s.project, &s.token.read(&c.id)?)?;
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 900));
        }
        for s in &mut p.crux {
            let c = s.common();
            let api = s.api.as_deref().unwrap_or("https://chromeuxreport.googleapis.com");
            let (key, form_factor) = (s.key.read(&c.id)?, s.form_factor.as_deref());
            let probe = VendorProbe::crux(c.id.clone(), api, &key, &s.origin, form_factor)?;
            out.push(watch(limited!(probe, c).with_spec(|spec| tune(spec, &c)), &c, 86_400));
        }
        for s in &mut p.access_log {
            let c = s.common();
            let probe = AccessLogProbe::new(c.id.clone(), &s.file, kept(state, &c.id), s.traffic.clone());
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.login_log {
            let c = s.common();
            let probe = LoginLogProbe::new(c.id.clone(), &s.file, kept(state, &c.id));
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.error_log {
            let c = s.common();
            let probe = ErrorLogProbe::new(c.id.clone(), &s.file, kept(state, &c.id));
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 60));
        }
        for s in &mut p.files {
            let c = s.common();
            out.push(watch(files(s, state, &c).with_spec(|spec| tune(spec, &c)), &c, 3600));
        }
        for s in &mut p.images {
            let c = s.common();
            out.push(watch(ImagesProbe::new(c.id.clone(), &s.folder).with_spec(|spec| tune(spec, &c)), &c, 86_400));
        }
        for s in &mut p.smtp {
            let c = s.common();
            let probe = SmtpProbe::new(c.id.clone(), limited!(server(servers, &s.server)?, c));
            out.push(watch(probe.with_spec(|spec| tune(spec, &c)), &c, 300));
        }
        for s in &mut p.mail_round_trip {
            let c = s.common();
            let mail =
                SmtpNotifier::new(c.id.clone(), server(servers, &s.server)?, &s.from, std::slice::from_ref(&s.to))?;
            let receipt = receipt(&c.id, s.maildir.as_deref(), s.imap.as_ref())?;
            out.push(round_trip(&c, Arc::new(mail), receipt, s.within, 3600));
        }
        for s in &mut p.alert_round_trip {
            let c = s.common();
            let notifier = notifiers.iter().find(|n| n.name() == s.notify).cloned().ok_or_else(|| {
                Error::new(ErrorKind::Config, format!("{}: nobody is called {}", c.id, s.notify))
                    .with_next_step("notify is the name of one of [[alerts.mail]], [[alerts.slack]], …")
            })?;
            let receipt = receipt(&c.id, s.maildir.as_deref(), s.imap.as_ref())?;
            out.push(round_trip(&c, notifier, receipt, s.within, 86_400));
        }
        for s in &mut p.backup {
            let c = s.common();
            let (stores, keys, source, rpo) = (s.store.clone(), s.keys.clone(), s.source.clone(), s.rpo.0);
            let newest = move || newest_verified(stores.clone(), keys.clone(), source.clone(), rpo);
            let probe = FreshnessProbe::new(c.id.clone(), rpo, newest).with_title("newest verified backup");
            let watch = watch(probe.with_spec(|spec| tune(spec, &c)), &c, 900);
            let one = c.timeout.map_or(Duration::from_secs(120), |t| t.0);
            out.push(watch.with_timeout(all_tries(one, &c)));
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
    pub(crate) fn accept_files(&mut self, state: &Path) -> Result<usize> {
        for s in &mut self.files {
            let c = s.common();
            files(s, state, &c).accept()?;
        }
        match self.files.len() {
            0 => Err(Error::new(ErrorKind::Config, "there is no [[probe.files]]")),
            n => Ok(n),
        }
    }
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

impl ImapSection {
    fn mailbox(&self, who: &str) -> Result<ImapMailbox> {
        let mut mailbox = ImapMailbox::new(&self.host, &self.user, self.password.read(who)?);
        if self.starttls {
            mailbox = mailbox.with_starttls().at_port(143);
        }
        if let Some(port) = self.port {
            mailbox = mailbox.at_port(port);
        }
        if let Some(folder) = &self.folder {
            mailbox = mailbox.in_folder(folder);
        }
        match &self.roots {
            Some(roots) => mailbox.trusting(roots),
            None => Ok(mailbox),
        }
    }
}

/// What goes out by `notifier` and has to arrive at `receipt`, within two minutes where nothing else is said.
fn round_trip(
    c: &Common,
    notifier: Arc<dyn Notifier>,
    receipt: Arc<dyn Receipt>,
    within: Option<Span>,
    every: u64,
) -> Watch {
    let within = within.map_or(Duration::from_secs(120), |w| w.0);
    let probe = RoundTripProbe::new(c.id.clone(), notifier, receipt, within);
    let watch = watch(probe.with_spec(|spec| tune(spec, c)), c, every);
    // Sending takes its time as well.
    watch.with_timeout(all_tries(within + Duration::from_secs(60), c))
}

/// The mailbox in which something has to arrive.
fn receipt(who: &str, maildir: Option<&Path>, imap: Option<&ImapSection>) -> Result<Arc<dyn Receipt>> {
    match (maildir, imap) {
        (Some(maildir), None) => Ok(Arc::new(Maildir::new(maildir))),
        (None, Some(imap)) => Ok(Arc::new(imap.mailbox(who)?)),
        _ => Err(Error::new(ErrorKind::Config, format!("{who}: has no mailbox, or two"))
            .with_next_step("say where it arrives: maildir = \"/home/…/Maildir\", or imap = { host, user, password }")),
    }
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
    if let Some(generated) = &s.generated {
        rules.generated.clone_from(generated);
    }
    FilesProbe::new(c.id.clone(), rules).with_state(kept(state, &c.id))
}

/// The file of what a probe remembers.
fn kept(state: &Path, id: &str) -> PathBuf {
    // Two names are two files, whatever is in them.
    let plain =
        |c: char| if c.is_ascii_alphanumeric() || c == '-' { c.to_string() } else { format!("_{:x}_", u32::from(c)) };
    let name: String = id.chars().map(plain).collect();
    state.join(format!("{name}.json"))
}

fn watch(probe: impl Probe + 'static, c: &Common, every: u64) -> Watch {
    let every = c.every.map_or(Duration::from_secs(every), |e| e.0);
    let watch = match c.tries {
        1 => Watch::new(probe, every),
        tries => Watch::new(probe.retried(tries, Duration::from_secs(2)), every),
    };
    let mut watch = watch.after(c.after.clone());
    // The probe's own limit says what was seen by then: that a shop does not answer is no blind spot. The look's is beyond it.
    let one = c.timeout.map_or(Duration::from_secs(55), |t| t.0);
    watch = watch.with_timeout(all_tries(one, c));
    if let Some(objective) = c.slo {
        watch = watch.with_objective(objective);
    }
    watch
}

/// How long all tries may take, of which one takes so long, with what lies between.
fn all_tries(one: Duration, c: &Common) -> Duration {
    (one + Duration::from_secs(2)) * c.tries + Duration::from_secs(3)
}

/// Title and limits as the shop wants them. A limit for a reading that has none is refused later, by its name.
fn tune(spec: &mut ProbeSpec, c: &Common) {
    if let Some(title) = &c.title {
        spec.title.clone_from(title);
    }
    for (reading, limits) in &c.limits {
        match spec.policy.limits_mut(reading) {
            // What is not said stays: a limit for a warning does not do away with the critical one.
            Some(known) => {
                known.warning = limits.warning.or(known.warning);
                known.critical = limits.critical.or(known.critical);
            }
            None => {
                // A rule that nothing answers is unknown, and says its name: a slip is not passed over.
                let policy = std::mem::take(&mut spec.policy);
                spec.policy = policy.below(reading, Unit::None, *limits);
            }
        }
    }
}
