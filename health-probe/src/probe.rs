//! What a probe is, and how any closure becomes one.

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) mod database;
#[cfg(feature = "dns")]
pub(crate) mod dns;
pub(crate) mod files;
pub(crate) mod freshness;
pub(crate) mod host;
#[cfg(feature = "http")]
pub(crate) mod http;
pub(crate) mod logs;
pub(crate) mod mail;
#[cfg(feature = "http")]
pub(crate) mod network;
#[cfg(feature = "http")]
pub(crate) mod page;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) mod sql;
#[cfg(feature = "http")]
pub(crate) mod tcp;
#[cfg(feature = "http")]
pub(crate) mod tls;
#[cfg(feature = "http")]
pub(crate) mod vendor;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::judge::Policy;
use crate::observation::Observation;

/// Something that can be observed.
///
/// A probe does the I/O and says what it saw; it does not judge. That a shop is down is an observation (`reachable: no`), an
/// error is that nothing could be observed. A look opens its own connections and closes them.
#[async_trait]
pub trait Probe: fmt::Debug + Send + Sync {
    /// Its name, its title, and what its readings are held against.
    fn spec(&self) -> &ProbeSpec;

    /// Looks once. Dropping the future ends it, and leaves nothing behind.
    ///
    /// # Errors
    /// Where nothing could be observed; its verdict is unknown.
    async fn observe(&self, cx: &Context) -> Result<Observation>;
}

/// The file beside another in which it is written anew, before it takes its place.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
    name.push(".new");
    path.with_file_name(name)
}

/// What is to be known of a probe before it looks.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ProbeSpec {
    /// Its name, unique in a set: in dependencies, metrics, the ledger.
    pub id: String,
    /// What people call it.
    pub title: String,
    /// What its readings are held against.
    pub policy: Policy,
    /// The reading that a chart of response times shows, in seconds.
    pub response_time: Option<String>,
}

impl ProbeSpec {
    /// A probe of that name; its title is the same.
    pub fn new(id: impl Into<String>, policy: Policy) -> Self {
        let id = id.into();
        Self { title: id.clone(), id, policy, response_time: None }
    }

    /// The same with another title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// The same with a reading that is its response time.
    #[must_use]
    pub fn with_response_time(mut self, reading: impl Into<String>) -> Self {
        self.response_time = Some(reading.into());
        self
    }
}

/// What a look is given. Time is an argument.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Context {
    /// The time of day, for what is compared with dates.
    pub now: DateTime<Utc>,
}

impl Context {
    /// A look at that time.
    pub fn at(now: DateTime<Utc>) -> Self {
        Self { now }
    }
}

type Look = Arc<dyn Fn(Context) -> Pin<Box<dyn Future<Output = Result<Observation>> + Send>> + Send + Sync>;

/// A probe of a closure.
///
/// ```
/// use health_probe::{Limits, Observation, Policy, ProbeSpec, Unit, Verdict, judge, probe_fn};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> health_probe::Result<()> {
/// let policy = Policy::new().below("queue", Unit::Count, Limits::new(100.0, 1000.0));
/// let queue = probe_fn(ProbeSpec::new("mail queue", policy), |cx| async move {
///     let mut seen = Observation::new(cx.now);
///     seen.number("queue", 250.0, Unit::Count);
///     Ok(seen)
/// });
/// # use health_probe::{Context, Probe};
/// let seen = queue.observe(&Context::at(chrono::Utc::now())).await?;
/// assert_eq!(judge(&seen, &queue.spec().policy).verdict, Verdict::Warning);
/// # Ok(()) }
/// ```
pub fn probe_fn<F, L>(spec: ProbeSpec, look: F) -> impl Probe
where
    F: Fn(Context) -> L + Send + Sync + 'static,
    L: Future<Output = Result<Observation>> + Send + 'static,
{
    ProbeFn { spec, look: Arc::new(move |cx| Box::pin(look(cx))) }
}

struct ProbeFn {
    spec: ProbeSpec,
    look: Look,
}

impl fmt::Debug for ProbeFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeFn").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[async_trait]
impl Probe for ProbeFn {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        (self.look)(*cx).await
    }
}

#[async_trait]
impl<P: Probe + ?Sized> Probe for Arc<P> {
    fn spec(&self) -> &ProbeSpec {
        (**self).spec()
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        (**self).observe(cx).await
    }
}
