//! A check of one's own, for an item of one's own: returns are answered within a week.

use std::sync::Arc;

use checklist::{Check, Context, Finding, Item, Result, Risk, Tier};

/// The item that it speaks for.
pub(crate) fn item() -> Item {
    Item::new("shop.returns", "Service", "Returns are answered within a week")
        .with_risk(Risk::Medium, "The law gives customers fourteen days.")
}

/// Looks for returns that wait; the shop says how.
pub(crate) struct ReturnsCheck {
    waiting: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl ReturnsCheck {
    /// With what counts those that wait for more than a week; `None` where it cannot.
    pub(crate) fn new(waiting: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self { waiting: Arc::new(waiting) }
    }
}

impl std::fmt::Debug for ReturnsCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReturnsCheck")
    }
}

#[async_trait::async_trait]
impl Check for ReturnsCheck {
    fn id(&self) -> &str {
        "shop.returns"
    }

    fn item(&self) -> &str {
        "shop.returns"
    }

    fn tier(&self) -> Tier {
        Tier::AuthenticatedRead
    }

    async fn run(&self, _: &Context) -> Result<Finding> {
        Ok(match (self.waiting)() {
            Some(0) => Finding::pass("no return waits for more than a week"),
            Some(n) => Finding::fail(format!("{n} returns wait for more than a week")),
            // Nothing seen is nothing known.
            None => Finding::unknown("the returns could not be counted"),
        })
    }
}
