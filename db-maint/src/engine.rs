//! The databases that can be looked after.

#[cfg(feature = "mysql")]
pub(crate) mod mysql;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::capability::{Capabilities, Flavour};
use crate::error::{Error, ErrorKind, Result};
use crate::inspection::{Facts, InspectOptions, Inspection, judge};
use crate::look::{self, Look};
use crate::plan::{Plan, PlanOptions};
use crate::references;
use crate::rules;
use crate::schema::{Index, Schema};
use crate::session::Session;

/// How long one question may take.
const LONGEST: Duration = Duration::from_secs(60);

/// What an error of a database means: its kind, and what to do about it.
pub(crate) type Meaning = fn(&sqlx::Error) -> (ErrorKind, &'static str);

/// An error about `what` in the database there.
pub(crate) fn failed(location: &str, what: &str, e: sqlx::Error, meaning: Meaning) -> Error {
    let (kind, next) = meaning(&e);
    Error::new(kind, format!("{location} {what}: {}", reason(&e))).with_next_step(next).with_source(e)
}

/// What the server says, without what the driver puts around it.
pub(crate) fn reason(e: &sqlx::Error) -> String {
    match e.as_database_error() {
        // A value that does not fit is quoted, and may be a customer's.
        Some(e) if e.code().is_some_and(|code| code.starts_with("22")) => without_values(e.message()),
        Some(e) => e.message().to_owned(),
        None => e.to_string(),
    }
}

/// What a server says may quote what a row holds: from the first quote to the last nothing is shown.
pub(crate) fn without_values(reason: &str) -> String {
    let quotes: &[char] = if reason.contains("invalid input") { &['\'', '"'] } else { &['\''] };
    match (reason.find(quotes), reason.rfind(quotes)) {
        (Some(first), Some(last)) if first < last => format!("{}…{}", &reason[..=first], &reason[last..]),
        _ => reason.to_owned(),
    }
}

/// Opens sessions that change something. Nobody outside implements it: each engine's way of changing things is proven here.
#[async_trait]
pub(crate) trait Connect {
    async fn session(&self) -> Result<Session>;
    /// One for statements that take long and must not be in a transaction: each waits for a lock for a second, and is given up
    /// after `limit`. Never through a pooler.
    async fn lasting_session(&self, limit: Duration) -> Result<Session>;
    /// All that the server says of itself.
    async fn facts(&self, options: &InspectOptions) -> Result<Facts>;
    /// Tables and indexes alone.
    async fn schema(&self) -> Result<Schema>;

    /// All that can be read: the server's facts, a look at what it counts, and what the shop declares held against its data.
    async fn seen(&self, options: &InspectOptions) -> Result<Facts> {
        let mut facts = self.facts(options).await?;
        options.history.is_of(&facts.capabilities.location)?;
        // A look that saw no index says nothing of any.
        let indexes = facts.schema.iter().flat_map(|s| s.indexes.iter().map(Index::object)).collect();
        let mut session = self.session().await?;
        session.limit(LONGEST).await.map_err(|e| session.error("does not take a limit", e))?;
        let schema = facts.schema.as_ref().ok().filter(|_| facts.capabilities.flavour != Flavour::Sqlite);
        let look = look::take(&mut session, &facts.capabilities, indexes).await?;
        if let Some(schema) = schema {
            facts.violations =
                Ok(references::violations(&mut session, schema, options.integrity.unwrap_or(false)).await?);
        }
        facts.look = Some(look);
        if let Some(policy) = &options.policy {
            facts.declared =
                rules::check(&mut session, policy, options.now.unwrap_or(facts.capabilities.server_time)).await;
        }
        session.close().await;
        Ok(facts)
    }
}

/// A database that can be looked after. Sealed: what this crate changes is proven for each engine it knows.
#[async_trait]
#[allow(private_bounds)]
pub trait Engine: Connect + Debug + Send + Sync {
    /// What messages call it: no password.
    fn location(&self) -> String;

    /// What the server is, and what this user may see of it. Over one connection of its own.
    ///
    /// # Errors
    /// Where it cannot be reached, or is too old.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Looks, and changes nothing. Over two connections, one after the other, in short statements that give up after a minute and
    /// wait for no lock longer than a second. Dropping the future ends the session.
    ///
    /// # Errors
    /// Where it cannot be reached, or is too old; [`ErrorKind::Config`] where the history is of another database. What is missing
    /// for a single check is that check's outcome.
    async fn inspect(&self, options: &InspectOptions) -> Result<Inspection> {
        Ok(judge(&self.seen(options).await?, options))
    }

    /// Looks at sizes and counters alone: what a [`History`](crate::History) keeps. Over three connections, one after the other.
    ///
    /// # Errors
    /// Where it cannot be reached, or is too old. What could not be seen is said where it is asked for.
    async fn look(&self) -> Result<Look> {
        let capabilities = self.capabilities().await?;
        let indexes = match self.schema().await {
            Ok(schema) => schema.indexes.iter().map(Index::object).collect(),
            // Somebody holds a table just now. Sizes are worth having.
            Err(e) if e.kind() == ErrorKind::Busy => Vec::new(),
            Err(e) => return Err(e),
        };
        let mut session = self.session().await?;
        session.limit(LONGEST).await.map_err(|e| session.error("does not take a limit", e))?;
        let look = look::take(&mut session, &capabilities, indexes).await;
        session.close().await;
        look
    }

    /// Looks, and plans what would mend what was found. Changes nothing.
    ///
    /// # Errors
    /// As [`inspect`](Engine::inspect), and [`ErrorKind::Config`] where an index that is to be rebuilt is not there.
    async fn plan(&self, inspect: &InspectOptions, options: &PlanOptions) -> Result<Plan> {
        let facts = self.seen(inspect).await?;
        let inspection = judge(&facts, inspect);
        Plan::of(&facts, &inspection, options)
    }
}

/// The database of a URL: `postgres://…`, `mysql://…` or `mariadb://…`, `sqlite:PATH`.
///
/// # Errors
/// [`ErrorKind::Config`] where the URL makes no sense, or names an engine that this build has not.
pub fn open(url: &str) -> Result<Box<dyn Engine>> {
    let scheme = url.split(':').next().unwrap_or(url);
    match scheme {
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => Ok(Box::new(postgres::Postgres::new(url)?)),
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => Ok(Box::new(mysql::Mysql::new(url)?)),
        #[cfg(feature = "sqlite")]
        "sqlite" => Ok(Box::new(sqlite::Sqlite::new(url.trim_start_matches("sqlite:").trim_start_matches("//")))),
        // What came before the first colon may be half a password where the scheme was forgotten.
        _ => Err(Error::new(ErrorKind::Config, "this URL names no kind of database that this build knows")
            .with_next_step("write postgres://…, mysql://… or sqlite:PATH; each is a feature of db-maint")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_shown_without_what_rows_hold() {
        assert_eq!(without_values("Duplicate entry 'O'Brien@x.com' for key 'email'"), "Duplicate entry '…'");
        assert_eq!(without_values("violates foreign key constraint \"x\""), "violates foreign key constraint \"x\"");
    }
}
