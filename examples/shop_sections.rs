//! The probes of a shop's file: a list for each kind, and the keys of each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use health_probe::logs::TrafficOptions;
use health_probe::slo::Objective;
use health_probe::{Family, Limits, Reach, Unit};
use serde::{Deserialize, Deserializer};

use crate::shop_value::{Secret, Span};

/// The probes of a shop's file, a list for each kind; and how many they are.
macro_rules! probes {
    ($($kind:ident: $section:ident),* $(,)?) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Probes {
            $(pub(crate) $kind: Vec<$section>,)*
        }

        impl Probes {
            /// What customers may read of, by the names that they are to read.
            pub(crate) fn public(&self) -> BTreeMap<String, String> {
                let mut names = BTreeMap::new();
                $(names.extend(self.$kind.iter().filter_map(|s| Some((s.id.clone(), s.shown_as.clone()?))));)*
                names
            }

            /// How many there are.
            pub(crate) fn count(&self) -> usize {
                0 $(+ self.$kind.len())*
            }
        }
    };
}

probes! {
    host: HostSection,
    network: NetworkSection,
    dns: DnsSection,
    tcp: TcpSection,
    tls: TlsSection,
    http: HttpSection,
    page: PageSection,
    database: DatabaseSection,
    sql: SqlSection,
    payments: PlainSqlSection,
    orders: PlainSqlSection,
    stuck_orders: PlainSqlSection,
    webhooks: PlainSqlSection,
    mail_log: PlainSqlSection,
    stripe_status: PageOfVendorSection,
    statuspage: PageOfVendorSection,
    stripe_key: KeySection,
    paystack_key: KeySection,
    remita_key: RemitaSection,
    sentry: SentrySection,
    crux: CruxSection,
    access_log: AccessLogSection,
    login_log: ErrorLogSection,
    error_log: ErrorLogSection,
    files: FilesSection,
    images: ImagesSection,
    smtp: SmtpSection,
    mail_round_trip: RoundTripSection,
    alert_round_trip: AlertRoundTripSection,
    backup: BackupSection,
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

fn once() -> u32 {
    1
}

/// How often a look is taken where it is not healthy, the first time included: 1 to 5.
fn tries<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let tries = u32::deserialize(from)?;
    match tries {
        1..=5 => Ok(tries),
        _ => Err(serde::de::Error::custom(format!("tries = {tries}: from 1 to 5, the first included"))),
    }
}

/// The keys that every probe has.
#[derive(Debug, Default)]
pub(crate) struct Common {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) every: Option<Span>,
    pub(crate) timeout: Option<Span>,
    pub(crate) tries: u32,
    pub(crate) after: Vec<String>,
    pub(crate) limits: BTreeMap<String, Limits>,
    pub(crate) slo: Option<Objective>,
}

/// A section with the keys that every probe has, and its own.
macro_rules! section {
    ($name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            pub(crate) id: String,
            pub(crate) title: Option<String>,
            /// The name on the page for customers.
            pub(crate) shown_as: Option<String>,
            pub(crate) every: Option<Span>,
            pub(crate) timeout: Option<Span>,
            #[serde(default = "once", deserialize_with = "tries")]
            pub(crate) tries: u32,
            #[serde(default)]
            pub(crate) after: Vec<String>,
            #[serde(default)]
            pub(crate) limits: BTreeMap<String, Limits>,
            #[serde(default, deserialize_with = "objective")]
            pub(crate) slo: Option<Objective>,
            $($(#[$meta])* pub(crate) $field: $kind,)*
        }

        impl $name {
            pub(crate) fn common(&mut self) -> Common {
                Common {
                    id: self.id.clone(),
                    title: self.title.take(),
                    every: self.every,
                    timeout: self.timeout,
                    tries: self.tries,
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
    /// What is sent.
    #[serde(default)]
    send: Option<String>,
    #[serde(default)]
    family: Family,
    #[serde(default)]
    reach: Reach,
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
    /// Numbers in a body of JSON, by pointer.
    #[serde(default)]
    json_below: BTreeMap<String, Limits>,
    #[serde(default)]
    redirects: Option<usize>,
    #[serde(default)]
    roots: Option<PathBuf>,
});
section!(TlsSection {
    host: String,
    #[serde(default)]
    family: Family,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    starttls: Option<String>,
    #[serde(default)]
    roots: Option<PathBuf>,
});
section!(TcpSection { host: String, port: u16 });
section!(NetworkSection {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    name: Option<String>,
});
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
    /// The shop is meant to take no money.
    #[serde(default)]
    test_mode: bool,
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
section!(CruxSection {
    origin: String,
    key: Secret,
    #[serde(default)]
    form_factor: Option<String>,
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
    #[serde(default)]
    generated: Option<Vec<PathBuf>>,
});
section!(ImagesSection { folder: PathBuf });
section!(SmtpSection { server: String });
section!(RoundTripSection {
    server: String,
    from: String,
    to: String,
    #[serde(default)]
    maildir: Option<PathBuf>,
    #[serde(default)]
    imap: Option<ImapSection>,
    #[serde(default)]
    within: Option<Span>,
});
section!(AlertRoundTripSection {
    notify: String,
    #[serde(default)]
    maildir: Option<PathBuf>,
    #[serde(default)]
    imap: Option<ImapSection>,
    #[serde(default)]
    within: Option<Span>,
});
/// Where what was sent arrives.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImapSection {
    pub(crate) host: String,
    #[serde(default)]
    pub(crate) port: Option<u16>,
    #[serde(default)]
    pub(crate) starttls: bool,
    pub(crate) user: String,
    pub(crate) password: Secret,
    #[serde(default)]
    pub(crate) folder: Option<String>,
    #[serde(default)]
    pub(crate) roots: Option<PathBuf>,
}

section!(BackupSection {
    store: Vec<String>,
    #[serde(default)]
    keys: Option<PathBuf>,
    source: String,
    rpo: Span,
});
