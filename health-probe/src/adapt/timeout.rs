//! A look has an end.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::observation::Observation;
use crate::probe::{Context, Probe, ProbeSpec};

/// A probe whose look ends in time.
#[derive(Debug)]
pub struct TimeLimited<P> {
    inner: P,
    limit: Duration,
}

impl<P> TimeLimited<P> {
    pub(super) fn new(inner: P, limit: Duration) -> Self {
        Self { inner, limit }
    }
}

#[async_trait]
impl<P: Probe> Probe for TimeLimited<P> {
    fn spec(&self) -> &ProbeSpec {
        self.inner.spec()
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        match tokio::time::timeout(self.limit, self.inner.observe(cx)).await {
            Ok(seen) => seen,
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("{}: did not end within {} s", self.spec().title, self.limit.as_secs_f64()),
            )
            .with_next_step("see what it waits for, or give it more time")),
        }
    }
}
