//! Where a restore goes: an empty database, a new one, or a new one that takes an old one's place.

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use super::swap;
use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, Object, ObjectKind, close, identifier, literal, number_of};
use crate::sql::trusted;

/// What a database that is not finished is called, after the name it is to have.
const STAGING: &str = "_caretaker_partial";
/// What a database is called that takes the tables that are replaced.
const REPLACED: &str = "_caretaker_replaced";

/// Where the rows go, and what there was before.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What is filled.
    database: Database,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// It was there, with nothing in it.
    Empty,
    /// This restore made it.
    New,
    /// It is to take this one's place.
    Instead { of: Box<Database> },
}

impl Place {
    /// A place for a whole snapshot.
    pub(super) async fn prepare(database: &Database, clean: bool) -> Result<Self> {
        if let Some(vacant) = Self::vacant(database).await? {
            if matches!(vacant.way, Way::New) {
                let mut session = database.connect_to_server().await?;
                let made = create(database, database, &mut session).await;
                close(session).await;
                made?;
            }
            return Ok(vacant);
        }
        if !clean {
            return Err(Error::new(ErrorKind::TargetNotEmpty, format!("{} is not empty", database.location()))
                .with_next_step("restore into a new or empty database, or say --clean to replace this one"));
        }
        let mut session = database.connect().await?;
        let parked = beside(database, REPLACED);
        if exists(database, parked.name(), &mut session).await? {
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("an earlier restore left {}, with tables that {} replaced", parked.name(), database.name()),
            )
            .with_next_step("look whether anything in it is still needed (caretaker_programs holds the routines, views, triggers and events of before), and drop it"));
        }
        swap::check(database, &parked, &mut session).await?;
        let staging = beside(database, STAGING);
        // Left by a restore that was killed; nobody else has such a name.
        let sql = format!("DROP DATABASE IF EXISTS {}", identifier(staging.name()));
        database.run(&mut session, &sql).await?;
        create(&staging, database, &mut session).await?;
        close(session).await;
        Ok(Self { database: staging, way: Way::Instead { of: Box::new(database.clone()) } })
    }

    /// A database that holds nothing, or is not there yet.
    pub(super) async fn vacant(database: &Database) -> Result<Option<Self>> {
        let mut session = match database.connect().await {
            Ok(session) => session,
            Err(e) if is_missing(&e) => return Ok(Some(Self { database: database.clone(), way: Way::New })),
            Err(e) => return Err(e),
        };
        let is_vacant = is_vacant(database, &mut session).await?;
        close(session).await;
        Ok(is_vacant.then(|| Self { database: database.clone(), way: Way::Empty }))
    }

    /// What is filled.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The definitions of an entry that [`put_in_place`](Self::put_in_place) will need.
    pub(super) fn wants_again(&self, objects: &[Object]) -> Vec<Object> {
        match self.way {
            Way::Empty | Way::New => Vec::new(),
            Way::Instead { .. } => objects
                .iter()
                .filter(|o| match o.kind {
                    ObjectKind::Table => swap::counts_by_sequence(o),
                    ObjectKind::Sequence => false,
                    _ => true,
                })
                .cloned()
                .collect(),
        }
    }

    /// The restored database takes its place, with these definitions that belong to a database itself. Gives what there is
    /// to tell about it; `None` where it is in its place already.
    pub(super) async fn put_in_place(&self, again: Vec<Object>, ownership: bool) -> Result<Option<Vec<String>>> {
        let Way::Instead { of: live } = &self.way else { return Ok(None) };
        let (live, staging) = (live.as_ref().clone(), self.database.clone());
        let replaced = beside(&live, REPLACED);
        // On its own: whoever gives up waiting must not stop it half way.
        let swapping = tokio::spawn(async move { swap::swap(&live, &staging, &replaced, &again, ownership).await });
        match swapping.await {
            Ok(done) => done.map(Some),
            Err(e) => {
                Err(Error::new(ErrorKind::Internal, format!("putting the tables in place failed: {e}")).with_source(e))
            }
        }
    }

    /// After an error: what there was before is all there is.
    pub(super) async fn take_back(&self) -> Result<()> {
        match &self.way {
            Way::Empty => empty(&self.database).await,
            Way::New | Way::Instead { .. } => drop_database(&self.database).await,
        }
    }

    /// Removes what was restored, from a place that was vacant before.
    pub(super) async fn remove(&self) -> Result<()> {
        match &self.way {
            Way::Instead { of } => Err(Error::new(
                ErrorKind::Internal,
                format!("{} was not empty before, so nothing is removed from it", of.location()),
            )),
            Way::Empty | Way::New => self.take_back().await,
        }
    }
}

/// Whether the database that was asked for does not exist.
pub(super) fn is_missing(e: &Error) -> bool {
    number_of(e) == Some(1049)
}

/// Another database of the same server, named after this one, within the server's 64 characters.
fn beside(database: &Database, ending: &str) -> Database {
    let short: String = database.name().chars().take(64 - ending.len()).collect();
    database.sibling(&format!("{short}{ending}"))
}

async fn create(database: &Database, on_behalf_of: &Database, session: &mut MySqlConnection) -> Result<()> {
    let made = on_behalf_of.run(session, &format!("CREATE DATABASE {}", identifier(database.name()))).await;
    made.map_err(|e| {
        Error::new(ErrorKind::Target, format!("{} cannot be made: {e}", database.location())).with_next_step(
            "give the user all rights on a database of that name, or make an empty database and restore into that",
        )
    })
}

pub(super) async fn drop_database(database: &Database) -> Result<()> {
    let mut session = database.connect_to_server().await?;
    // With foreign keys checked: what another database still refers to is not to be dropped.
    let sql = format!("DROP DATABASE IF EXISTS {}", identifier(database.name()));
    database.run(&mut session, &sql).await?;
    close(session).await;
    Ok(())
}

async fn exists(database: &Database, name: &str, session: &mut MySqlConnection) -> Result<bool> {
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", literal(name));
    let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await;
    rows.map(|rows| !rows.is_empty()).map_err(|e| database.failed("could not be read", e))
}

/// What a database holds: the word that drops it, and its name.
pub(super) async fn contents(database: &Database, session: &mut MySqlConnection) -> Result<Vec<(String, String)>> {
    let schema = literal(database.name());
    let sql = format!(
        "SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {schema} \
         UNION ALL SELECT CASE TABLE_TYPE WHEN 'VIEW' THEN 'VIEW' WHEN 'SEQUENCE' THEN 'SEQUENCE' ELSE 'TABLE' END, TABLE_NAME \
           FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} \
         UNION ALL SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES \
           WHERE ROUTINE_SCHEMA = {schema} AND ROUTINE_TYPE <> 'PACKAGE BODY'"
    );
    let failed = |e| database.failed("could not be read", e);
    let rows = session.fetch_all(sqlx::raw_sql(trusted(sql))).await.map_err(failed)?;
    rows.iter()
        .map(|row| Ok((row.try_get_unchecked(0).map_err(failed)?, row.try_get_unchecked(1).map_err(failed)?)))
        .collect()
}

/// Whether there is nothing in it.
async fn is_vacant(database: &Database, session: &mut MySqlConnection) -> Result<bool> {
    Ok(contents(database, session).await?.is_empty())
}

async fn empty(database: &Database) -> Result<()> {
    let mut session = database.connect().await?;
    database.run(&mut session, "SET SESSION foreign_key_checks = 0").await?;
    for (what, name) in contents(database, &mut session).await? {
        drop_object(database, &what, &name, &mut session).await?;
    }
    close(session).await;
    Ok(())
}

/// Drops one object of a database.
pub(super) async fn drop_object(
    database: &Database,
    what: &str,
    name: &str,
    session: &mut MySqlConnection,
) -> Result<()> {
    let sql = format!("DROP {what} IF EXISTS {}.{}", identifier(database.name()), identifier(name));
    if what != "PACKAGE" {
        return database.run(session, &sql).await;
    }
    // Only under this mode does MariaDB know packages, before 11.4.
    database.run(session, "SET SESSION sql_mode = 'ORACLE'").await?;
    let dropped = database.run(session, &sql).await;
    database.run(session, "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO'").await?;
    dropped
}
