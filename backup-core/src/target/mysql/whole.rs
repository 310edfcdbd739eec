//! A whole snapshot into a database that holds nothing else.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use sqlx::mysql::MySqlConnection;
use tokio::sync::Semaphore;

use super::keys::take_apart;
use super::load::{Loading, load, text};
use super::place::Place;
use super::programs::{Programs, named};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{EntryKind, EntryRecord};
use crate::mysql::{Database, Object, ObjectKind, close, identifier, objects_of};
use crate::source::mysql::TABLES;
use crate::target::Intake;

/// What is made after the rows.
#[derive(Debug, Default)]
struct Later {
    keys: Vec<String>,
    references: Vec<String>,
}

/// A database being filled.
pub(super) struct Whole {
    database: Database,
    place: Place,
    leader: tokio::sync::Mutex<MySqlConnection>,
    free: Semaphore,
    concurrency: usize,
    sessions: Mutex<Vec<MySqlConnection>>,
    loading: Loading,
    ownership: bool,
    programs: Programs,
    /// The server that the definitions come from, and this one.
    versions: (String, String),
    later: Mutex<Later>,
    tables: Mutex<Vec<String>>,
    /// The definitions that a database in whose place this one is put needs once more.
    again: Mutex<Vec<Object>>,
}

impl Whole {
    /// `sessions` fill it side by side.
    pub(super) fn new(
        place: Place,
        leader: MySqlConnection,
        sessions: Vec<MySqlConnection>,
        loading: Loading,
        ownership: bool,
        versions: (String, String),
    ) -> Self {
        Self {
            database: place.database().clone(),
            place,
            leader: tokio::sync::Mutex::new(leader),
            free: Semaphore::new(sessions.len()),
            concurrency: sessions.len(),
            sessions: Mutex::new(sessions),
            loading,
            ownership,
            programs: Programs::new(ownership),
            versions,
            later: Mutex::default(),
            tables: Mutex::default(),
            again: Mutex::default(),
        }
    }
}

#[async_trait]
impl Intake for Whole {
    fn wants(&self, entry: &EntryRecord) -> bool {
        entry.kind != EntryKind::Globals
    }

    fn may_differ(&self, entry: &EntryRecord) -> Option<String> {
        if !matches!(entry.kind, EntryKind::PreData | EntryKind::PostData) {
            return None;
        }
        if self.versions.0 != self.versions.1 {
            return Some(format!(
                "not compared word by word: written by {}, read back from {}",
                self.versions.0, self.versions.1
            ));
        }
        (entry.kind == EntryKind::PostData && self.programs.lacks_any())
            .then(|| "not all of it could be made as it was".into())
    }

    fn concurrency(&self) -> usize {
        self.concurrency
    }

    async fn take(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        match entry.kind {
            EntryKind::Data => self.load(entry, body).await,
            _ => self.define(entry, body).await,
        }
    }

    async fn abandon(self: Box<Self>) {
        let Self { place, leader, sessions, database, .. } = *self;
        drop((leader, sessions));
        if let Err(e) = place.take_back().await {
            tracing::warn!(database = %database.location(), error = %e, "what the failed restore had brought is still there");
        }
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let Self { database, place, leader, sessions, programs, tables, again, ownership, .. } = *self;
        let sessions = sessions.into_inner().unwrap_or_else(PoisonError::into_inner);
        for session in sessions {
            close(session).await;
        }
        let mut leader = leader.into_inner();
        let tables = tables.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut notes = Vec::new();
        for some in tables.chunks(50) {
            let names: Vec<String> = some.iter().map(|t| identifier(t)).collect();
            if let Err(e) = database.run(&mut leader, &format!("ANALYZE TABLE {}", names.join(", "))).await {
                notes.push(format!("statistics are missing, queries may be slow until ANALYZE TABLE is run: {e}"));
                break;
            }
        }
        close(leader).await;
        let again = again.into_inner().unwrap_or_else(PoisonError::into_inner);
        match place.put_in_place(again, ownership).await? {
            // What there was to say about the database that was filled first is said about this one.
            Some(more) => notes.extend(more),
            None => notes.extend(programs.notes()),
        }
        Ok(notes)
    }
}

impl Whole {
    /// Loads one table over one session.
    async fn load(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut session = self.session().await?;
        load(&self.database, session.get()?, entry, body, self.loading).await?;
        session.give_back();
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).push(entry.subject.clone());
        Ok(())
    }

    /// Runs definitions.
    async fn define(&self, entry: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let text = text(entry, body).await?;
        if entry.kind == EntryKind::PostData {
            self.finish_tables().await?;
        }
        let objects = objects_of(&text)?;
        self.again.lock().unwrap_or_else(PoisonError::into_inner).extend(self.place.wants_again(&objects));
        for object in objects {
            if entry.name == TABLES && object.kind == ObjectKind::Table {
                let parts = take_apart(&object.name, &object.sql);
                let mut leader = self.leader.lock().await;
                self.database.run(&mut leader, &parts.table).await.map_err(|e| named(e, &object.name))?;
                drop(leader);
                let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
                later.keys.extend(parts.keys);
                later.references.extend(parts.references);
            } else {
                let mut leader = self.leader.lock().await;
                self.programs.make(&self.database, &mut leader, &object).await?;
            }
        }
        Ok(())
    }

    /// Keys side by side, then foreign keys.
    async fn finish_tables(&self) -> Result<()> {
        let Later { keys, references } =
            std::mem::take(&mut *self.later.lock().unwrap_or_else(PoisonError::into_inner));
        futures::stream::iter(keys)
            .map(|sql| async move {
                let mut session = self.session().await?;
                self.database.run(session.get()?, &sql).await?;
                session.give_back();
                Ok::<(), Error>(())
            })
            .buffer_unordered(self.concurrency)
            .try_collect::<()>()
            .await?;
        let mut leader = self.leader.lock().await;
        for sql in references {
            self.database.run(&mut leader, &sql).await?;
        }
        Ok(())
    }

    async fn session(&self) -> Result<Session<'_>> {
        let gone =
            || Error::new(ErrorKind::Target, format!("{}: no session is left to fill it", self.database.location()));
        let permit = self.free.acquire().await.map_err(|_| gone())?;
        let session = self.sessions.lock().unwrap_or_else(PoisonError::into_inner).pop().ok_or_else(gone)?;
        Ok(Session { intake: self, session: Some(session), _permit: permit })
    }
}

/// A borrowed session; one that is not given back is closed.
struct Session<'a> {
    intake: &'a Whole,
    session: Option<MySqlConnection>,
    _permit: tokio::sync::SemaphorePermit<'a>,
}

impl Session<'_> {
    fn get(&mut self) -> Result<&mut MySqlConnection> {
        self.session
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a session was used after it was given back"))
    }

    fn give_back(mut self) {
        let session = self.session.take();
        self.intake.sessions.lock().unwrap_or_else(PoisonError::into_inner).extend(session);
    }
}
