//! One look for many who ask.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::error::Result;
use crate::observation::Observation;
use crate::probe::{Context, Probe, ProbeSpec};

/// A probe that says again what it saw a short time ago. Errors are not kept. Several who ask at once share one look.
#[derive(Debug)]
pub struct Cached<P> {
    inner: P,
    keep: Duration,
    last: Mutex<Option<(Instant, Observation)>>,
}

impl<P> Cached<P> {
    pub(super) fn new(inner: P, keep: Duration) -> Self {
        Self { inner, keep, last: Mutex::new(None) }
    }
}

#[async_trait]
impl<P: Probe> Probe for Cached<P> {
    fn spec(&self) -> &ProbeSpec {
        self.inner.spec()
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = last.as_ref()
            && at.elapsed() < self.keep
        {
            return Ok(seen.clone());
        }
        let seen = self.inner.observe(cx).await?;
        *last = Some((Instant::now(), seen.clone()));
        Ok(seen)
    }
}
