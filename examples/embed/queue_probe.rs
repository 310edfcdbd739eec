//! A probe of one's own: how many mails wait in a list of Redis.

use health_probe::{Context, Error, ErrorKind, Limits, Observation, Policy, Probe, ProbeSpec, Result, Unit};

/// Looks at the length of a list.
#[derive(Debug)]
pub(crate) struct QueueProbe {
    spec: ProbeSpec,
    client: redis::Client,
    list: String,
}

impl QueueProbe {
    /// Of that list; worth a look from 100 on, and somebody has to act from 1,000.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where that is no address of Redis.
    pub(crate) fn new(url: &str, list: &str) -> Result<Self> {
        let policy = Policy::new()
            .below("waiting", Unit::Count, Limits::new(100.0, 1000.0))
            .meaning("see whether the sender of mails runs");
        let spec = ProbeSpec::new("mail queue", policy).with_title("mails that wait");
        let client = redis::Client::open(url)
            .map_err(|e| Error::new(ErrorKind::Config, "that is no address of Redis").with_source(e))?;
        Ok(Self { spec, client, list: list.to_owned() })
    }
}

#[async_trait::async_trait]
impl Probe for QueueProbe {
    fn spec(&self) -> &ProbeSpec {
        &self.spec
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let (client, list) = (self.client.clone(), self.list.clone());
        let asked = tokio::task::spawn_blocking(move || {
            redis::cmd("LLEN").arg(list).query::<u64>(&mut client.get_connection()?)
        });
        // What could not be seen is an error: its verdict is unknown, never healthy.
        let unseen = |e: &dyn std::error::Error| Error::new(ErrorKind::Unreachable, format!("Redis: {e}"));
        let waiting = asked.await.map_err(|e| unseen(&e))?.map_err(|e| unseen(&e))?;
        let mut seen = Observation::new(cx.now);
        seen.number("waiting", waiting as f64, Unit::Count);
        Ok(seen)
    }
}
