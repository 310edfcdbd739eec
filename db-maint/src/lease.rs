//! One runner among many app servers: a row in the shop's own database, with an expiry and a fencing epoch.
//!
//! Locks of a session break behind a pooler that gives each transaction another session; a row does not. Whoever takes the
//! lease raises its epoch, and each batch of work begins by renewing the row under its own epoch, in its own transaction: a
//! holder that was paused for too long changes no row there and is fenced off, and while a batch runs nobody can take the lease,
//! for its row is locked. Times are the database's.

use std::time::Duration;

use crate::capability::Flavour;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::session::{Session, Value, server_clock};
use crate::statement::{Piece, plain_number, plain_text};

/// How a lease is looked at while somebody else has it.
const LOOK: Duration = Duration::from_millis(250);

/// A lease that this process holds. Give it back with [`release`](Lease::release); one that is only dropped ends by itself.
#[derive(Debug)]
pub struct Lease {
    name: String,
    holder: String,
    epoch: u64,
    term: Duration,
}

/// Who has a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// As it called itself: the host's name, the process and a random number.
    pub name: String,
    /// For how much longer, by the database's clock.
    pub remaining: Duration,
}

/// What asking for a lease came to.
#[derive(Debug)]
pub enum Acquired {
    /// It is ours.
    Held(Lease),
    /// Somebody else has it.
    By(Holder),
}

impl Lease {
    /// Takes the lease of this name for `term`, if nobody has it.
    ///
    /// Cancel safe: what was taken then ends after `term`.
    ///
    /// # Errors
    /// Where the database cannot be reached, or the table `caretaker_lease` can neither be used nor made.
    pub async fn acquire(engine: &dyn Engine, name: &str, term: Duration) -> Result<Acquired> {
        let mut session = engine.session().await?;
        let acquired = Self::acquire_in(&mut session, name, term).await;
        session.close().await;
        acquired
    }

    /// The same, waiting for it until `patience` is over.
    ///
    /// # Errors
    /// As [`acquire`](Lease::acquire).
    pub async fn wait(engine: &dyn Engine, name: &str, term: Duration, patience: Duration) -> Result<Acquired> {
        let until = tokio::time::Instant::now() + patience;
        loop {
            let acquired = Self::acquire(engine, name, term).await?;
            if matches!(acquired, Acquired::Held(_)) || tokio::time::Instant::now() + LOOK > until {
                return Ok(acquired);
            }
            // Not all at once.
            tokio::time::sleep(LOOK.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        }
    }

    async fn acquire_in(session: &mut Session, name: &str, term: Duration) -> Result<Acquired> {
        prepare(session).await?;
        let flavour = session.flavour();
        let clock = server_clock(flavour);
        let holder = format!("{}:{}:{:08x}", host(), std::process::id(), fastrand::u32(..));
        // Taken over where it has ended. The row stays for ever, and so its epoch only grows.
        let free = Piece::text("INSERT INTO caretaker_lease (name, holder, epoch, expires_at) SELECT ")
            .value(&plain_text(), Some(name.to_owned()))
            .then(", '', 0, 0")
            .then(if flavour == Flavour::Postgres { " ON CONFLICT DO NOTHING" } else { "" });
        let take = Piece::text("UPDATE caretaker_lease SET holder = ")
            .value(&plain_text(), Some(holder.clone()))
            .then(format!(", epoch = epoch + 1, expires_at = {clock} + "))
            .value(&plain_number(), Some(term.as_millis().to_string()))
            .then(" WHERE name = ")
            .value(&plain_text(), Some(name.to_owned()))
            .then(format!(" AND expires_at <= {clock}"));
        let look = Piece::text(format!(
            "SELECT holder, {}, {} FROM caretaker_lease WHERE name = ",
            as_text(flavour, "epoch"),
            as_text(flavour, &format!("expires_at - {clock}"))
        ))
        .value(&plain_text(), Some(name.to_owned()));
        let failed = |session: &Session, e| session.error(&format!("does not give the lease {name}"), e);
        if select(session, &look).await.map_err(|e| failed(session, e))?.is_none() {
            // Two may be first: one row stays, and the loser finds it.
            let (sql, values) = free.build(flavour);
            if let Err(e) = in_transaction(session, &sql, &values).await
                && select(session, &look).await.map_err(|e| failed(session, e))?.is_none()
            {
                return Err(failed(session, e));
            }
        }
        let (sql, values) = take.build(flavour);
        let taken = match in_transaction(session, &sql, &values).await {
            Ok(taken) => taken > 0,
            // A batch of its holder runs just now.
            Err(e) if session.kind(&e) == ErrorKind::Busy => false,
            Err(e) => return Err(failed(session, e)),
        };
        let row = select(session, &look).await.map_err(|e| failed(session, e))?;
        let gone = || Error::new(ErrorKind::Database, format!("the lease {name} is not there any more"));
        let row = row.ok_or_else(gone)?;
        let number = |at: usize| row.get(at).cloned().flatten().and_then(|n| n.parse::<i64>().ok()).ok_or_else(gone);
        let (by, epoch, remaining) = (row.first().cloned().flatten().ok_or_else(gone)?, number(1)?, number(2)?);
        Ok(match taken && by == holder {
            true => {
                let epoch = u64::try_from(epoch).map_err(|_| gone())?;
                Acquired::Held(Self { name: name.to_owned(), holder, epoch, term })
            }
            false => {
                let remaining = Duration::from_millis(u64::try_from(remaining).unwrap_or(0));
                Acquired::By(Holder { name: by, remaining })
            }
        })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it has been taken: larger for each holder after another.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// For how long it is taken each time.
    pub fn term(&self) -> Duration {
        self.term
    }

    /// Keeps it for another term, where nobody else has taken it meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] where somebody has.
    pub async fn renew(&self, engine: &dyn Engine) -> Result<()> {
        let mut session = engine.session().await?;
        let renewed = self.renew_in(&mut session).await;
        session.close().await;
        renewed
    }

    pub(crate) async fn renew_in(&self, session: &mut Session) -> Result<()> {
        session.begin().await.map_err(|e| session.error("cannot begin", e))?;
        self.check(session).await?;
        session.commit().await.map_err(|e| session.error("did not keep the lease", e))
    }

    /// The row, as long as it is ours.
    fn own(&self) -> Piece {
        Piece::text(" WHERE name = ")
            .value(&plain_text(), Some(self.name.clone()))
            .then(" AND holder = ")
            .value(&plain_text(), Some(self.holder.clone()))
            .then(" AND epoch = ")
            .value(&plain_number(), Some(self.epoch.to_string()))
    }

    /// Whether it is still ours, for as long as the transaction that this is a part of lasts; and renews it.
    pub(crate) async fn check(&self, session: &mut Session) -> Result<()> {
        let piece =
            Piece::text(format!("UPDATE caretaker_lease SET expires_at = {} + ", server_clock(session.flavour())))
                .value(&plain_number(), Some(self.term.as_millis().to_string()))
                .piece(&self.own());
        let (sql, values) = piece.build(session.flavour());
        let is_ours = session.run(&sql, &values).await.map_err(|e| session.error("does not renew the lease", e))?;
        match is_ours {
            0 => Err(Error::new(
                ErrorKind::Fenced,
                format!("the lease {} was taken by another process: this one has stopped", self.name),
            )
            .with_next_step("nothing: what was not committed is done by the other one")),
            _ => Ok(()),
        }
    }

    /// Gives it back, so that the next one need not wait for its end.
    ///
    /// # Errors
    /// Where the database cannot be reached; it ends by itself then.
    pub async fn release(self, engine: &dyn Engine) -> Result<()> {
        let mut session = engine.session().await?;
        let piece = Piece::text("UPDATE caretaker_lease SET expires_at = 0").piece(&self.own());
        let (sql, values) = piece.build(session.flavour());
        let released = in_transaction(&mut session, &sql, &values).await;
        let released = released.map(drop).map_err(|e| session.error("does not take the lease back", e));
        session.close().await;
        released
    }
}

/// A number as text.
pub(crate) fn as_text(flavour: Flavour, sql: &str) -> String {
    match flavour {
        Flavour::Postgres => format!("({sql})::text"),
        Flavour::Mysql | Flavour::MariaDb => format!("CAST({sql} AS CHAR)"),
        Flavour::Sqlite => format!("CAST({sql} AS TEXT)"),
    }
}

async fn select(session: &mut Session, piece: &Piece) -> Result<Option<Vec<Value>>, sqlx::Error> {
    let (sql, values) = piece.build(session.flavour());
    Ok(session.rows(&sql, &values).await?.into_iter().next())
}

/// One statement in a transaction of its own: so its lock has an end.
pub(crate) async fn in_transaction(session: &mut Session, sql: &str, values: &[Value]) -> Result<u64, sqlx::Error> {
    session.begin().await?;
    match session.run(sql, values).await {
        Ok(met) => session.commit().await.map(|()| met),
        Err(e) => {
            session.roll_back().await?;
            Err(e)
        }
    }
}

/// Makes the table where it is not there.
async fn prepare(session: &mut Session) -> Result<()> {
    let (text, number) = types(session.flavour());
    create(
        session,
        "caretaker_lease",
        &format!(
            "name {text} PRIMARY KEY, holder {text} NOT NULL, epoch {number} NOT NULL, expires_at {number} NOT NULL"
        ),
    )
    .await
}

/// What short texts and numbers are.
pub(crate) fn types(flavour: Flavour) -> (&'static str, &'static str) {
    match flavour {
        Flavour::Postgres => ("text", "int8"),
        Flavour::Mysql | Flavour::MariaDb => ("varchar(190) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "bigint"),
        Flavour::Sqlite => ("TEXT", "INTEGER"),
    }
}

/// Makes one of this crate's own tables where it is not there.
pub(crate) async fn create(session: &mut Session, table: &str, columns: &str) -> Result<()> {
    let failed = |session: &Session, e| session.error(&format!("does not say whether it has the table {table}"), e);
    if session.has_table(table).await.map_err(|e| failed(session, e))? {
        return Ok(());
    }
    let engine = match session.flavour() {
        Flavour::Mysql | Flavour::MariaDb => " ENGINE=InnoDB",
        _ => "",
    };
    let sql = format!("CREATE TABLE {table} ({columns}){engine}");
    let Err(e) = in_transaction(session, &sql, &[]).await else { return Ok(()) };
    // Another one may have been faster.
    if session.has_table(table).await.map_err(|e| failed(session, e))? {
        return Ok(());
    }
    let next = format!("let an administrator run: {sql}; then grant SELECT, INSERT, UPDATE, DELETE on it to this user");
    Err(session.error(&format!("has no table {table}, and it cannot be made"), e).with_next_step(next))
}

/// What this machine calls itself.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map(|name| name.trim().chars().take(100).collect::<String>())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "host".to_owned())
}
