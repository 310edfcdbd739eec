//! The checks, by what they have access to.

#[cfg(feature = "backups")]
pub mod backups;
#[cfg(feature = "database")]
pub mod database;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "maintenance")]
pub mod maintenance;
#[cfg(feature = "monitor")]
pub mod monitor;
#[cfg(feature = "source")]
pub mod source;
#[cfg(feature = "http")]
pub mod web;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;

use crate::error::Result;
use crate::item::{Check, Context, Tier};
use crate::outcome::Finding;

/// A check that looks at something, where it was given.
#[cfg_attr(
    not(any(
        feature = "http",
        feature = "source",
        feature = "host",
        feature = "database",
        feature = "backups",
        feature = "maintenance",
        feature = "monitor"
    )),
    allow(dead_code)
)]
pub(crate) struct Looks<T> {
    pub(crate) id: &'static str,
    pub(crate) item: &'static str,
    pub(crate) tier: Tier,
    pub(crate) look: fn(Arc<T>, Context) -> BoxFuture<'static, Result<Finding>>,
    pub(crate) at: Option<Arc<T>>,
    /// What has to be given.
    pub(crate) missing: &'static str,
}

impl<T> fmt::Debug for Looks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looks").field("id", &self.id).finish_non_exhaustive()
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> Check for Looks<T> {
    fn id(&self) -> &str {
        self.id
    }

    fn item(&self) -> &str {
        self.item
    }

    fn tier(&self) -> Tier {
        self.tier
    }

    async fn run(&self, cx: &Context) -> Result<Finding> {
        match &self.at {
            Some(at) => (self.look)(Arc::clone(at), *cx).await,
            None => Ok(Finding::unknown(format!("{} was not given", self.missing))),
        }
    }
}
