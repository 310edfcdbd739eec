//! Running what `pg_dump` wrote: indexes and keys side by side, everything else in its order.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::PgConnection;

use super::{PostgresIntake, named};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::EntryRecord;
use crate::postgres::{Beside, Script, Statement, is_ownership, state_of};

/// What the server says of a statement that it ended because two waited for one another.
const DEADLOCK: &str = "40P01";

impl PostgresIntake {
    /// Runs definitions: indexes and keys side by side, everything else in its order.
    pub(super) async fn define(&self, entry: &EntryRecord, mut body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let mut text = BytesMut::new();
        while let Some(bytes) = body.try_next().await? {
            text.extend_from_slice(&bytes);
        }
        let text = std::str::from_utf8(&text)
            .map_err(|e| Error::new(ErrorKind::Damaged, format!("{} is no text", entry.name)).with_source(e))?;
        let mut script = Script::parse(text);
        if let Some(selection) = &self.selection {
            for missed in selection.pick(&mut script)? {
                let why = "it belongs to a table that was not restored".to_owned();
                let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
                left_out.entry(why).or_insert((0, missed)).0 += 1;
            }
        }
        if !self.ownership {
            script.statements.retain(|s| !is_ownership(&s.text));
        }
        let mut statements = script.statements.as_slice();
        while let Some(first) = statements.first() {
            let kind = first.beside();
            let like = |s: &&Statement| s.beside().zip(kind.as_ref()).is_some_and(|(a, b)| a.is_like(b));
            let run = statements.iter().take_while(like).count();
            if self.selection.is_some() {
                self.execute_alone(first).await?;
                statements = &statements[1..];
            } else if run > 1 {
                self.build(&statements[..run]).await?;
                statements = &statements[run..];
            } else {
                let mut leader = self.leader.lock().await;
                self.execute(&mut leader, first).await?;
                statements = &statements[1..];
            }
        }
        Ok(())
    }

    /// Builds indexes and keys side by side, as far as their locks allow; each in its turn.
    async fn build(&self, statements: &[Statement]) -> Result<()> {
        let mut waiting: Vec<(usize, Beside<'_>)> =
            statements.iter().enumerate().filter_map(|(n, s)| Some((n, s.beside()?))).collect();
        let mut held: Vec<(usize, Beside<'_>)> = Vec::new();
        let mut running = FuturesUnordered::new();
        let mut deadlocked = Vec::new();
        loop {
            while running.len() < self.concurrency {
                let free = |(_, wanted): &(usize, Beside<'_>)| held.iter().all(|(_, held)| !held.conflicts(wanted));
                let Some(next) = waiting.iter().position(free) else { break };
                let (n, locks) = waiting.remove(next);
                held.push((n, locks));
                running.push(async move { (n, self.execute_alone(&statements[n]).await) });
            }
            match running.next().await {
                None => break,
                // What its locks are was not seen whole, as of tables in parts: it is done when nothing else is.
                Some((n, Err(e))) if state_of(&e).as_deref() == Some(DEADLOCK) => {
                    deadlocked.push(n);
                    held.retain(|(held, _)| *held != n);
                }
                Some((n, done)) => {
                    done?;
                    held.retain(|(held, _)| *held != n);
                }
            }
        }
        for n in deadlocked {
            self.execute_alone(&statements[n]).await?;
        }
        Ok(())
    }

    async fn execute_alone(&self, statement: &Statement) -> Result<()> {
        let mut session = self.session().await?;
        self.execute(session.get()?, statement).await?;
        session.give_back();
        Ok(())
    }

    async fn execute(&self, session: &mut PgConnection, statement: &Statement) -> Result<()> {
        let mut sql = String::new();
        for setting in &statement.settings {
            sql.push_str(setting);
            sql.push_str("; ");
        }
        // A setting may not share its transaction with what cannot run in one, such as a subscription.
        if !sql.is_empty() {
            self.database.run(session, &sql).await?;
        }
        // In the one transaction of a selection what fails must not take the rest along.
        let one_transaction = self.selection.is_some();
        if one_transaction {
            self.database.run(session, "SAVEPOINT caretaker").await?;
        }
        let Err(e) = self.database.run(session, &statement.text).await else { return Ok(()) };
        let is_orphaned = self.composed && state_of(&e).as_deref() == Some("23503");
        if is_orphaned && self.selection.is_none() && statement.text.contains(" FOREIGN KEY ") {
            // From now on it holds for every row that is written; which do not hold it is told in the end.
            let not_valid = format!("{} NOT VALID", statement.text.trim_end().trim_end_matches(';'));
            match self.database.run(session, &not_valid).await {
                Ok(()) => {
                    self.not_valid.store(true, Ordering::Relaxed);
                    return Ok(());
                }
                // On tables in parts, before PostgreSQL 18.
                Err(_) => {
                    let first: String = statement.text.split_whitespace().collect::<Vec<_>>().join(" ");
                    let why = "a foreign key does not hold, and cannot be made NOT VALID here".to_owned();
                    let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
                    left_out.entry(why).or_insert((0, first)).0 += 1;
                    self.not_valid.store(true, Ordering::Relaxed);
                    return Ok(());
                }
            }
        }
        if one_transaction {
            self.database.run(session, "ROLLBACK TO SAVEPOINT caretaker").await?;
        }
        let state = state_of(&e).unwrap_or_default();
        // Not beyond the first text in it: options of servers and connections are passwords at times.
        let first = statement.text.split(['\'', '$']).next().unwrap_or_default();
        let first: String = first.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(100).collect();
        if let Some(why) = self.forgivable(&statement.text, &state, &e) {
            let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
            left_out.entry(why).or_insert((0, first)).0 += 1;
            return Ok(());
        }
        // A newer pg_dump sets what an older server does not know; the public schema is always there.
        let needless = (state == "42704" && statement.text.starts_with("SET "))
            || (state == "42P06" && statement.text == "CREATE SCHEMA public");
        match needless {
            true => Ok(()),
            // Its caller goes by what the server said.
            false if state == DEADLOCK => Err(e),
            false => Err(named(e, &first)),
        }
    }

    /// Why a statement that failed may be left out; `None` if it may not.
    fn forgivable(&self, sql: &str, state: &str, e: &Error) -> Option<String> {
        let message = e.to_string();
        if state == "42704"
            && let Some(role) = message.split("role \"").nth(1).and_then(|rest| rest.split("\" does not exist").next())
        {
            return Some(format!("the role {role} does not exist here"));
        }
        // A sequence cannot get an owner that its table could not be given: that is 0A000.
        let ownership = is_ownership(sql) && matches!(state, "42501" | "0A000");
        let rights = ownership || (state == "42501" && sql.starts_with("COMMENT ON EXTENSION "));
        if rights {
            return Some("this user may not set some owners and grants".into());
        }
        let linked = self.selection.is_some() && sql.contains(" FOREIGN KEY ");
        linked
            .then(|| format!("a foreign key does not hold here ({})", message.rsplit(": ").next().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use futures::stream;
    use storefront::postgres::Server;

    use super::*;
    use crate::fingerprint::Fingerprint;
    use crate::manifest::{EntryKind, Snapshot, SourceInfo};
    use crate::postgres::KIND;
    use crate::target::postgres::PostgresTarget;
    use crate::target::{Filling, Intake, Target};

    async fn take(intake: &dyn Intake, kind: EntryKind, sql: &'static str) -> Result<()> {
        let entry = EntryRecord {
            name: "schema".into(),
            kind,
            subject: "definitions".into(),
            bytes: sql.len() as u64,
            chunks: 0,
            insert: String::new(),
            before: String::new(),
            after: String::new(),
            fingerprint: Fingerprint::EMPTY,
            inline: Vec::new(),
            parts: Vec::new(),
        };
        intake.take(&entry, stream::iter([Ok(Bytes::from_static(sql.as_bytes()))]).boxed()).await
    }

    /// Two parts of partitioned tables, each with a foreign key to the other's whole: the names in the statements have
    /// nothing in common, and yet each needs what the other holds.
    #[tokio::test(flavor = "multi_thread")]
    async fn keys_that_wait_for_each_other_are_both_made() {
        let server = Server::start().await.unwrap();
        let url = server.database("ring").await.unwrap();
        let mut manifest = Snapshot::sample(1, "ring", None, Utc::now()).manifest;
        manifest.source = SourceInfo::new("ring", KIND, "postgres:", "15");
        let target = PostgresTarget::new(&url).unwrap();
        let intake = target.open(&manifest, &Filling::default()).await.unwrap();
        let tables = "CREATE TABLE public.p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
            CREATE TABLE public.p1 PARTITION OF public.p FOR VALUES FROM (0) TO (9); \
            CREATE TABLE public.q (id int PRIMARY KEY) PARTITION BY RANGE (id); \
            CREATE TABLE public.q1 PARTITION OF public.q FOR VALUES FROM (0) TO (9);";
        take(intake.as_ref(), EntryKind::PreData, tables).await.unwrap();

        // Both have their own table before either gets at the other's.
        let mut other = target.database.connect().await.unwrap();
        target
            .database
            .run(&mut other, "BEGIN; LOCK TABLE ONLY public.p, ONLY public.q IN ROW EXCLUSIVE MODE")
            .await
            .unwrap();
        let keys = "ALTER TABLE ONLY public.p1\n    ADD CONSTRAINT a FOREIGN KEY (id) REFERENCES public.q(id);\n\
            ALTER TABLE ONLY public.q1\n    ADD CONSTRAINT b FOREIGN KEY (id) REFERENCES public.p(id);\n";
        let let_them = async {
            let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            while server.psql("ring", waiting).unwrap().trim() != "2" {
                tokio::task::yield_now().await;
            }
            target.database.run(&mut other, "COMMIT").await.unwrap();
        };
        let (made, ()) = futures::join!(take(intake.as_ref(), EntryKind::PostData, keys), let_them);
        made.unwrap();
        let found = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conparentid = 0";
        assert_eq!(server.psql("ring", found).unwrap().trim(), "2");
        assert_eq!(*target_deadlocks(&server).await, *"1", "they did wait for each other");
    }

    /// Counted some time after it happened, at the latest when the session that saw it ends.
    async fn target_deadlocks(server: &Server) -> String {
        loop {
            let found = server.psql("ring", "SELECT deadlocks FROM pg_stat_database WHERE datname = 'ring'").unwrap();
            if found.trim() != "0" {
                return found.trim().to_owned();
            }
            tokio::task::yield_now().await;
        }
    }
}
