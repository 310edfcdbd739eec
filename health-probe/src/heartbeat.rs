//! A sign of life over HTTP, to a service that tells people when it stops.

use std::fmt;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::monitor::Heartbeat;
use crate::net::fetch::Fetch;
use crate::probe::http::{address, shared_client};

/// Asks for an address that counts as a sign of life (Healthchecks, Cronitor, Uptime Kuma's push and the like). Good is a status
/// from 200 to 299. The address is a secret, and part of no message.
#[derive(Clone)]
pub struct HttpHeartbeat(Fetch);

impl fmt::Debug for HttpHeartbeat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HttpHeartbeat").field(&self.0.url.host_str()).finish()
    }
}

impl HttpHeartbeat {
    /// To that address.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where it is no address.
    pub fn new(url: &str) -> Result<Self> {
        let mut fetch = Fetch::new(address(url)?, shared_client()?);
        fetch.body_limit = 4096;
        // An address that it led to would stand in messages.
        fetch.redirects = 0;
        Ok(Self(fetch))
    }
}

#[async_trait]
impl Heartbeat for HttpHeartbeat {
    async fn beat(&self) -> Result<()> {
        let host = self.0.url.host_str().unwrap_or("?");
        let failed = |why: String| {
            Error::new(ErrorKind::Unreachable, format!("the sign of life to {host}: {why}"))
                .with_next_step("see that the address is still valid")
        };
        match self.0.run().await {
            Ok(answer) if answer.status.is_success() => Ok(()),
            Ok(answer) => Err(failed(format!("status {}", answer.status.as_u16()))),
            Err(no) => Err(failed(no.failed.to_string())),
        }
    }
}
