//! Another try, that does not hide the first.

use std::time::Duration;

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::judge::judge;
use crate::observation::Observation;
use crate::probe::{Context, Probe, ProbeSpec};

/// A probe that looks again where it was not healthy. What the tries before had to say stays in
/// [`Observation::earlier_failures`], also where the last one is good.
#[derive(Debug)]
pub struct Retried<P> {
    inner: P,
    tries: u32,
    pause: Duration,
}

impl<P> Retried<P> {
    pub(super) fn new(inner: P, tries: u32, pause: Duration) -> Self {
        Self { inner, tries: tries.max(1), pause }
    }
}

#[async_trait]
impl<P: Probe> Probe for Retried<P> {
    fn spec(&self) -> &ProbeSpec {
        self.inner.spec()
    }

    async fn observe(&self, cx: &Context) -> Result<Observation> {
        let mut earlier = Vec::new();
        loop {
            let outcome = self.inner.observe(cx).await;
            let last = earlier.len() + 1 >= self.tries as usize;
            let reason = match &outcome {
                Ok(seen) => {
                    let judgement = judge(seen, &self.spec().policy);
                    (!judgement.verdict.is_healthy()).then(|| judgement.reason())
                }
                Err(e) => Some(e.to_string()),
            };
            match reason {
                Some(reason) if !last => earlier.push(reason),
                _ => {
                    return match outcome {
                        Ok(mut seen) => {
                            seen.earlier_failures = earlier;
                            Ok(seen)
                        }
                        // Nothing was seen in the end, and what was before is not to be lost.
                        Err(e) if !earlier.is_empty() => {
                            let said = format!("{e} (before: {})", crate::redact::short(&earlier.join("; ")));
                            let next = e.next_step().unwrap_or("see what came before").to_owned();
                            Err(Error::new(e.kind(), said).with_next_step(next).with_source(e))
                        }
                        Err(e) => Err(e),
                    };
                }
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}
