//! Where a restore goes: an empty database, or a new one.

use sqlx::mysql::MySqlConnection;
use sqlx::{Executor, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::mysql::{Database, close, identifier, literal, number_of};
use crate::sql::trusted;

/// Where the rows go, and what there was before.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// It was there, with nothing in it.
    Empty(Database),
    /// This restore made it.
    New(Database),
}

impl Place {
    /// A place for a whole snapshot.
    pub(super) async fn prepare(database: &Database) -> Result<Self> {
        match database.connect().await {
            Ok(mut session) => {
                let vacant = is_vacant(database, &mut session).await?;
                close(session).await;
                if !vacant {
                    return Err(Error::new(ErrorKind::TargetNotEmpty, format!("{} is not empty", database.location()))
                        .with_next_step("restore into a new or empty database"));
                }
                Ok(Self::Empty(database.clone()))
            }
            Err(e) if is_missing(&e) => {
                let mut session = database.connect_to_server().await?;
                let made = database
                    .run(&mut session, &format!("CREATE DATABASE {}", identifier(database.name())))
                    .await
                    .map_err(|e| {
                        Error::new(ErrorKind::Target, format!("{} cannot be made: {e}", database.location()))
                            .with_next_step(
                                "give the user the right CREATE, or make an empty database and restore into that",
                            )
                    });
                close(session).await;
                made.map(|()| Self::New(database.clone()))
            }
            Err(e) => Err(e),
        }
    }

    /// What is filled.
    pub(super) fn database(&self) -> &Database {
        match self {
            Self::Empty(database) | Self::New(database) => database,
        }
    }

    /// Removes what was restored.
    pub(super) async fn remove(&self) -> Result<()> {
        match self {
            Self::New(database) => {
                let mut session = database.connect_to_server().await?;
                let sql = format!("DROP DATABASE IF EXISTS {}", identifier(database.name()));
                database.run(&mut session, &sql).await?;
                close(session).await;
                Ok(())
            }
            Self::Empty(database) => empty(database).await,
        }
    }
}

/// Whether the database that was asked for does not exist.
pub(super) fn is_missing(e: &Error) -> bool {
    number_of(e) == Some(1049)
}

/// What a database holds: the word that drops it, and its name.
async fn contents(database: &Database, session: &mut MySqlConnection) -> Result<Vec<(String, String)>> {
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
pub(super) async fn is_vacant(database: &Database, session: &mut MySqlConnection) -> Result<bool> {
    Ok(contents(database, session).await?.is_empty())
}

async fn empty(database: &Database) -> Result<()> {
    let mut session = database.connect().await?;
    database.run(&mut session, "SET SESSION foreign_key_checks = 0").await?;
    for (what, name) in contents(database, &mut session).await? {
        database.run(&mut session, &format!("DROP {what} IF EXISTS {}", identifier(&name))).await?;
    }
    close(session).await;
    Ok(())
}
