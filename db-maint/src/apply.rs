//! Applies a plan: looks whether it still fits, does each step in a session that waits for a lock for a second and no longer,
//! tries again where somebody was in the way, clears up what a rebuild that was broken off left, and writes down what it did.
//!
//! Nobody's session is ended but its own. What it did is kept in the table `caretaker_audit`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::batch::{Stop, time};
use crate::capability::Flavour;
use crate::check::table_free_space;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::quoted;
use crate::lease::{Lease, create, in_transaction, types};
use crate::plan::{Plan, Step, StepAction};
use crate::schema::{Schema, State, TableName};
use crate::session::{Session, server_clock};
use crate::statement::{Piece, plain_text};

/// How to apply a plan.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApplyOptions {
    /// How long a step may take; an hour unless told.
    pub limit: Duration,
    /// How often a step is tried where somebody was in the way; five times unless told.
    pub tries: u32,
    /// How long to wait before the second try, about; it grows by half each time. Ten seconds unless told.
    pub pause: Duration,
    /// What ends it: the step in hand is broken off and cleared up after.
    pub stop: Stop,
    /// How much is free where the database lies; asked before each step. Where it is not told, steps that need more than a
    /// gibibyte are not done, but on SQLite, whose file system is looked at.
    pub room: Option<Room>,
}

/// How much is free where a database lies.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Room {
    /// So many bytes, whatever happens meanwhile: of a server elsewhere.
    Bytes(u64),
    /// What is free on the file system of this path: of a server on this machine.
    OnDiskOf(std::path::PathBuf),
}

impl Room {
    /// How many bytes are free for whoever is not root.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the path cannot be asked.
    pub fn free_bytes(&self) -> Result<u64> {
        match self {
            Self::Bytes(bytes) => Ok(*bytes),
            Self::OnDiskOf(path) => {
                rustix::fs::statvfs(path).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)).map_err(|e| {
                    Error::new(ErrorKind::Config, format!("{}: what is free there cannot be seen: {e}", path.display()))
                        .with_next_step("name a folder on the disk where the database lies")
                })
            }
        }
    }
}

impl Default for ApplyOptions {
    fn default() -> Self {
        Self {
            limit: Duration::from_secs(3_600),
            tries: 5,
            pause: Duration::from_secs(10),
            stop: Stop::default(),
            room: None,
        }
    }
}

impl ApplyOptions {
    /// The same with another limit for each step.
    #[must_use]
    pub fn with_limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The same with so many tries, and such pauses between them.
    #[must_use]
    pub fn with_tries(mut self, tries: u32, pause: Duration) -> Self {
        self.tries = tries.max(1);
        self.pause = pause;
        self
    }

    /// The same, and this ends it.
    #[must_use]
    pub fn with_stop(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    /// The same, with what is free where the database lies.
    #[must_use]
    pub fn with_room(mut self, room: Room) -> Self {
        self.room = Some(room);
        self
    }
}

/// What became of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ApplyReport {
    /// The plan's hash.
    pub plan: String,
    /// What became of each step, in order; those that were not come to are not among them.
    pub steps: Vec<StepReport>,
    /// Indexes that a rebuild which was broken off had left, and that were removed.
    pub swept: Vec<String>,
    /// Those that could not be removed, and why: the next inspection finds them, and the next plan removes them.
    pub left: Vec<(String, String)>,
}

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepReport {
    /// What it was about.
    pub object: String,
    /// The statement.
    pub sql: String,
    /// How it ended.
    #[serde(flatten)]
    pub end: StepEnd,
    /// How long it took, tries and pauses included, in seconds.
    pub seconds: f64,
    /// The size of the index, or of the table with all that belongs to it, before and after, in bytes.
    pub bytes_before: Option<u64>,
    /// See `bytes_before`.
    pub bytes_after: Option<u64>,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StepEnd {
    /// It was done.
    Done,
    /// It no longer fits, for this reason, and nothing was done.
    Drifted {
        /// Why.
        reason: String,
    },
    /// Others were in the way each time.
    Busy {
        /// What the server said last.
        reason: String,
    },
    /// It was broken off when asked to stop.
    Stopped,
    /// The server refused.
    Failed {
        /// What it said.
        reason: String,
    },
}

/// Applies `plan`. With a `lease`, it goes on as long as that is its own.
///
/// Cancel safe, as far as a server lets it be: a rebuild that is dropped in the middle leaves an invalid index, which the next
/// inspection finds and the next plan removes.
///
/// # Errors
/// [`ErrorKind::Drift`] where the plan, or any step of it, does not fit any more: then nothing was done.
/// [`ErrorKind::Unsupported`] where the database is behind a pooler.
pub async fn apply(
    engine: &dyn Engine,
    plan: &Plan,
    options: &ApplyOptions,
    lease: Option<&Lease>,
) -> Result<ApplyReport> {
    let mut session = engine.session().await?;
    let now = time(&mut session, None).await?;
    plan.check(&engine.location(), now)?;
    let schema = engine.schema().await?;
    let drifted: Vec<String> = plan.steps.iter().filter_map(|step| step.drift(&schema)).collect();
    if !drifted.is_empty() {
        return Err(Error::new(ErrorKind::Drift, format!("the plan is refused: {}", drifted.join("; ")))
            .with_next_step("make a new plan, and read it"));
    }
    prepare(&mut session).await?;
    session.close().await;
    let mut report = ApplyReport { plan: plan.hash.clone(), steps: Vec::new(), swept: Vec::new(), left: Vec::new() };
    for (at, step) in plan.steps.iter().enumerate() {
        if options.stop.is_stopped() {
            break;
        }
        if let Some(lease) = lease {
            lease.renew(engine).await?;
        }
        let done = one(engine, step, options, lease, &mut report).await?;
        write_down(engine, plan, at, &done).await?;
        let is_stopped = done.end == StepEnd::Stopped;
        report.steps.push(done);
        if is_stopped {
            break;
        }
    }
    Ok(report)
}

/// One step, as often as it takes.
async fn one(
    engine: &dyn Engine,
    step: &Step,
    options: &ApplyOptions,
    lease: Option<&Lease>,
    report: &mut ApplyReport,
) -> Result<StepReport> {
    let began = Instant::now();
    let bytes_before = size(engine, step).await?;
    let mut pause = options.pause;
    let mut tries = 1;
    let end = loop {
        if let Some(reason) = too_little_room(engine, step, options)? {
            break StepEnd::Failed { reason };
        }
        let schema = engine.schema().await?;
        if let Some(reason) = step.drift(&schema) {
            break StepEnd::Drifted { reason };
        }
        let end = once(engine, step, options, lease).await?;
        if end != StepEnd::Done && step.action == StepAction::Reindex {
            sweep(engine, step, &schema, options, report).await?;
        }
        match end {
            // A rebuild may have been thrown away at its very end: once is enough of that.
            StepEnd::Busy { .. } if tries < options.tries && step.action != StepAction::Rebuild => {
                tries += 1;
                // Not at the same moment as everybody else who waits.
                rest(pause.mul_f64(0.5 + fastrand::f64()), &options.stop, engine, lease).await?;
                pause = pause.mul_f64(1.5);
                if options.stop.is_stopped() {
                    break StepEnd::Stopped;
                }
            }
            end => break end,
        }
    };
    Ok(StepReport {
        object: step.object(),
        sql: step.sql.clone(),
        end,
        seconds: began.elapsed().as_secs_f64(),
        bytes_before,
        bytes_after: size(engine, step).await?,
    })
}

/// Why there may not be enough room for it: with a quarter to spare, for the shop writes meanwhile.
fn too_little_room(engine: &dyn Engine, step: &Step, options: &ApplyOptions) -> Result<Option<String>> {
    let Some(needed) = step.needs_bytes.filter(|needed| *needed > 0) else { return Ok(None) };
    let location = engine.location();
    let of_file = location.strip_prefix("sqlite:").map(|path| {
        let path = std::path::Path::new(path);
        // What is free is told of a folder that is there.
        Room::OnDiskOf(
            path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(std::path::Path::new(".")).to_owned(),
        )
    });
    let Some(room) = options.room.clone().or(of_file) else {
        let reason = format!(
            "it needs some {} MiB, and how much is free where the database lies is not known: say it (--volume PATH or --free BYTES)",
            needed >> 20
        );
        return Ok((needed > UNASKED).then_some(reason));
    };
    let free = room.free_bytes()?;
    let reason = format!("it needs some {} MiB and a quarter to spare, and {} MiB are free", needed >> 20, free >> 20);
    Ok((free < needed.saturating_add(needed / 4)).then_some(reason))
}

/// Steps that need no more are done without asking for the room.
const UNASKED: u64 = 1 << 30;

/// One try.
async fn once(engine: &dyn Engine, step: &Step, options: &ApplyOptions, lease: Option<&Lease>) -> Result<StepEnd> {
    // It is broken off at the limit; the server's own comes later, and is for where that is not heard.
    let mut session = engine.lasting_session(options.limit.saturating_add(GRACE)).await?;
    let began = Instant::now();
    let own = own_id(&mut session).await?;
    let flavour = session.flavour();
    let refused = match passed_over(&mut session, step).await? {
        Some(reason) => Some(StepEnd::Failed { reason }),
        None => not_worth_it(&mut session, step).await?,
    };
    if let Some(end) = refused {
        session.close().await;
        return Ok(end);
    }
    let mut renewed = Instant::now();
    let (mut asked, mut is_late) = (false, false);
    let done = {
        let refusals = step.action == StepAction::Analyze && matches!(flavour, Flavour::Mysql | Flavour::MariaDb);
        let work = async {
            match refusals {
                // What went wrong is a row of its answer there.
                true => session.refusals(&step.sql).await,
                false => session.plain(&step.sql).await.map(|()| None),
            }
        };
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => break done,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
            is_late |= began.elapsed() > options.limit;
            if (options.stop.is_stopped() || is_late) && !asked {
                asked = cancel(engine, flavour, &own).await;
            }
            if let Some(lease) = lease.filter(|lease| !asked && renewed.elapsed() > lease.term() / 3) {
                match lease.renew(engine).await {
                    Ok(()) => renewed = Instant::now(),
                    // The database may be back before the lease ends.
                    Err(e) if e.kind() != ErrorKind::Fenced && renewed.elapsed() < lease.term() => {}
                    Err(_) => {
                        // Another one may be at it by now: what was begun is broken off, cleared up after and written down.
                        asked = cancel(engine, flavour, &own).await;
                    }
                }
            }
        }
    };
    let end = match done {
        Ok(None) => StepEnd::Done,
        Ok(Some(reason)) => StepEnd::Failed { reason },
        Err(_) if asked && is_late && !options.stop.is_stopped() => {
            StepEnd::Failed { reason: format!("it took longer than {} s, and was broken off", options.limit.as_secs()) }
        }
        Err(_) if asked => StepEnd::Stopped,
        Err(e) => {
            let reason = crate::engine::reason(&e);
            match session.kind(&e) {
                ErrorKind::Busy => StepEnd::Busy { reason },
                ErrorKind::Unreachable => return Err(session.error("was lost in the middle of a step", e)),
                _ => StepEnd::Failed { reason },
            }
        }
    };
    session.close().await;
    Ok(end)
}

/// How long a server may take to break off what it does.
const GRACE: Duration = Duration::from_secs(300);

/// Why a table is not rebuilt, though a plan says so: what was free has been used since, or a whole cluster would wait.
async fn not_worth_it(session: &mut Session, step: &Step) -> Result<Option<StepEnd>> {
    if step.action != StepAction::Rebuild {
        return Ok(None);
    }
    let failed = |session: &Session, e| session.error("does not say whether a table is to be rebuilt", e);
    if session.flavour() == Flavour::MariaDb {
        let cluster =
            session.rows("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'", &[]).await.map_err(|e| failed(session, e))?;
        if cluster.iter().any(|row| row.get(1).cloned().flatten().as_deref() == Some("ON")) {
            let reason = "this server is a node of a Galera cluster, all of which would wait for it: rebuild it in maintenance mode";
            return Ok(Some(StepEnd::Failed { reason: reason.to_owned() }));
        }
    }
    let (sql, values) =
        Piece::text("SELECT CAST(DATA_FREE AS CHAR) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ")
            .value(&plain_text(), Some(step.table.name.clone()))
            .build(session.flavour());
    let free = session.one(&sql, &values).await.map_err(|e| failed(session, e))?;
    let is_much = free.and_then(|n| n.parse::<u64>().ok()).is_some_and(|free| free >= table_free_space::BYTES);
    Ok((!is_much)
        .then(|| StepEnd::Drifted { reason: "what was free in the table's file has been used since".to_owned() }))
}

/// Why the server would pass the step over and call it done.
async fn passed_over(session: &mut Session, step: &Step) -> Result<Option<String>> {
    let is_passed_over = matches!(step.action, StepAction::Vacuum | StepAction::Analyze);
    if session.flavour() != Flavour::Postgres || !is_passed_over {
        return Ok(None);
    }
    let (sql, values) = Piece::text(
        "SELECT (pg_has_role(c.relowner, 'USAGE') \
           OR (SELECT pg_has_role(d.datdba, 'USAGE') FROM pg_database d WHERE d.datname = current_database()) \
           OR CASE WHEN current_setting('server_version_num')::int4 >= 170000 \
             THEN has_table_privilege(c.oid, 'MAINTAIN') ELSE false END)::text FROM pg_class c WHERE c.oid = to_regclass(",
    )
    .value(&plain_text(), Some(crate::table::sql_name(Flavour::Postgres, &step.table)))
    .then(")")
    .build(Flavour::Postgres);
    let may = session.one(&sql, &values).await.map_err(|e| session.error("does not say what this role may do", e))?;
    Ok(match may.as_deref() {
        Some("true") => None,
        _ => Some(format!("only the owner of {} may do it, and the server would pass it over", step.table)),
    })
}

/// What the server calls this session.
async fn own_id(session: &mut Session) -> Result<String> {
    let sql = match session.flavour() {
        Flavour::Postgres => "SELECT pg_backend_pid()::text",
        Flavour::Mysql | Flavour::MariaDb => "SELECT CAST(CONNECTION_ID() AS CHAR)",
        Flavour::Sqlite => "SELECT '0'",
    };
    let id = session.one(sql, &[]).await.map_err(|e| session.error("does not say which session this is", e))?;
    id.filter(|id| id.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| Error::new(ErrorKind::Database, format!("{} does not number its sessions", session.location())))
}

/// Breaks off what our own session does. Whether it was heard: where it was not, it is asked again.
async fn cancel(engine: &dyn Engine, flavour: Flavour, own: &str) -> bool {
    match ask_to_cancel(engine, flavour, own).await {
        Ok(()) => true,
        Err(e) => {
            tracing::warn!(error = %e, "the step could not be broken off yet");
            false
        }
    }
}

async fn ask_to_cancel(engine: &dyn Engine, flavour: Flavour, own: &str) -> Result<()> {
    let sql = match flavour {
        Flavour::Postgres => format!("SELECT pg_cancel_backend({own})"),
        Flavour::Mysql | Flavour::MariaDb => format!("KILL QUERY {own}"),
        // It cannot be asked from outside; it is waited for.
        Flavour::Sqlite => return Ok(()),
    };
    let mut session = engine.session().await?;
    let done = session.plain(&sql).await.map_err(|e| session.error("does not break the step off", e));
    session.close().await;
    done
}

async fn rest(pause: Duration, stop: &Stop, engine: &dyn Engine, lease: Option<&Lease>) -> Result<()> {
    let until = Instant::now() + pause;
    let mut renewed = Instant::now();
    while Instant::now() < until && !stop.is_stopped() {
        tokio::time::sleep(Duration::from_millis(100).min(until - Instant::now())).await;
        if let Some(lease) = lease.filter(|lease| renewed.elapsed() > lease.term() / 3) {
            renewed = Instant::now();
            lease.renew(engine).await?;
        }
    }
    Ok(())
}

/// Removes the invalid indexes of the step's table that were not there before, and are called as a rebuild calls them.
async fn sweep(
    engine: &dyn Engine,
    step: &Step,
    before: &Schema,
    options: &ApplyOptions,
    report: &mut ApplyReport,
) -> Result<()> {
    let Some(name) = step.index.as_deref() else { return Ok(()) };
    let known: BTreeSet<&str> =
        before.indexes.iter().filter(|i| i.table == step.table).map(|i| i.name.as_str()).collect();
    let mut in_the_way = None;
    for _ in 0..options.tries.max(3) {
        let now = engine.schema().await?;
        let debris = now.indexes.iter().find(|i| {
            i.table == step.table
                && i.state == State::Invalid
                && !known.contains(i.name.as_str())
                && is_debris_of(&i.name, name)
        });
        let Some(debris) = debris else {
            in_the_way = None;
            break;
        };
        let sql = format!(
            "DROP INDEX CONCURRENTLY IF EXISTS {}.{}",
            quoted(Flavour::Postgres, &debris.table.schema),
            quoted(Flavour::Postgres, &debris.name)
        );
        let mut session = engine.lasting_session(options.limit).await?;
        let gone = session.plain(&sql).await;
        session.close().await;
        match gone {
            Ok(()) => report.swept.push(debris.object()),
            // Whoever was in the way is there still: a pause, and once more.
            Err(e) => {
                in_the_way = Some((debris.object(), crate::engine::reason(&e)));
                tokio::time::sleep(Duration::from_millis(fastrand::u64(200..1_000))).await;
            }
        }
    }
    report.left.extend(in_the_way);
    Ok(())
}

/// Whether a rebuild of `index` calls what it leaves so: the name, cut to fit where it is long, `_ccnew` or `_ccold`, a number.
fn is_debris_of(name: &str, index: &str) -> bool {
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = bare.strip_suffix("_ccnew").or_else(|| bare.strip_suffix("_ccold"));
    stem.is_some_and(|stem| stem == index || index.starts_with(stem) && name.len() >= 60)
}

/// How many bytes the step's object has.
async fn size(engine: &dyn Engine, step: &Step) -> Result<Option<u64>> {
    let mut session = engine.session().await?;
    let flavour = session.flavour();
    let full = |name: &str| TableName::new(step.table.schema.clone(), name);
    let piece = match (flavour, &step.index) {
        (Flavour::Postgres, index) => {
            let of = index.as_deref().unwrap_or(&step.table.name);
            let function = if index.is_some() { "pg_relation_size" } else { "pg_total_relation_size" };
            Piece::text(format!("SELECT {function}(to_regclass("))
                .value(&plain_text(), Some(crate::table::sql_name(flavour, &full(of))))
                .then("))::text")
        }
        (Flavour::Mysql | Flavour::MariaDb, _) => {
            Piece::text("SELECT CAST(DATA_LENGTH + INDEX_LENGTH AS CHAR) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = ")
                .value(&plain_text(), Some(step.table.name.clone()))
        }
        (Flavour::Sqlite, _) => Piece::text(
            "SELECT CAST(c.page_count * s.page_size AS TEXT) FROM pragma_page_count c, pragma_page_size s",
        ),
    };
    let (sql, values) = piece.build(flavour);
    let bytes = session.one(&sql, &values).await.map_err(|e| session.error("does not say how large it is", e))?;
    session.close().await;
    Ok(bytes.and_then(|bytes| bytes.parse().ok()))
}

async fn prepare(session: &mut Session) -> Result<()> {
    let (text, number) = types(session.flavour());
    let long = if matches!(session.flavour(), Flavour::Mysql | Flavour::MariaDb) { "longtext" } else { "text" };
    let columns = format!(
        "id {text} PRIMARY KEY, ended_at {number} NOT NULL, plan {text} NOT NULL, object {long} NOT NULL, statement {long} NOT NULL, outcome {long} NOT NULL"
    );
    create(session, "caretaker_audit", &columns).await
}

/// What was done, and by which plan, in the database that it was done to.
async fn write_down(engine: &dyn Engine, plan: &Plan, at: usize, done: &StepReport) -> Result<()> {
    let mut session = engine.session().await?;
    let outcome = serde_json::to_string(done)
        .map_err(|e| Error::new(ErrorKind::Config, "the report could not be written as JSON").with_source(e))?;
    let text = |text: &str| Some(text.to_owned());
    let (sql, values) =
        Piece::text("INSERT INTO caretaker_audit (id, ended_at, plan, object, statement, outcome) SELECT ")
            .value(
                &plain_text(),
                Some(format!("{}-{at}-{:08x}", &plan.hash[..16.min(plan.hash.len())], fastrand::u32(..))),
            )
            .then(format!(", {}, ", server_clock(session.flavour())))
            .value(&plain_text(), text(&plan.hash))
            .then(", ")
            .value(&plain_text(), text(&done.object))
            .then(", ")
            .value(&plain_text(), text(&done.sql))
            .then(", ")
            .value(&plain_text(), Some(outcome))
            .build(session.flavour());
    let written = in_transaction(&mut session, &sql, &values).await;
    let written = written.map(drop).map_err(|e| session.error("did not note what was done", e));
    session.close().await;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_rebuild_leaves_is_known_by_its_name() {
        assert!(is_debris_of("orders_ip_ccnew", "orders_ip") && is_debris_of("orders_ip_ccnew12", "orders_ip"));
        assert!(is_debris_of("orders_ip_ccold", "orders_ip"));
        assert!(!is_debris_of("orders_ip", "orders_ip") && !is_debris_of("orders_ips_ccnew", "orders_ip"));
        // Cut where the whole would be longer than a name may be.
        let long = "a".repeat(63);
        assert!(is_debris_of(&format!("{}_ccnew", "a".repeat(57)), &long));
        assert!(!is_debris_of("a_ccnew", &long));
    }
}
