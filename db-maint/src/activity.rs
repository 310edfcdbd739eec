//! What goes on in a server, in the same words for every engine: what the judges of its life see.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::schema::TableName;

/// A group of facts, or why there are none.
pub(crate) type Seen<T> = Result<T, Unseen>;

/// Why something was not seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unseen {
    /// It could be there.
    Unknown { reason: String, remedy: Option<String> },
    /// There is no such thing in this engine.
    NotApplicable(String),
}

impl Unseen {
    pub(crate) fn unknown(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unknown { reason: reason.into(), remedy: Some(remedy.into()) }
    }
}

impl From<Unseen> for crate::Outcome {
    fn from(unseen: Unseen) -> Self {
        match unseen {
            Unseen::Unknown { reason, remedy } => Self::Unknown { reason, remedy },
            Unseen::NotApplicable(reason) => Self::NotApplicable { reason },
        }
    }
}

/// Connections, used and usable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Of clients, this one included.
    pub(crate) used: u64,
    /// What clients like the shop may open: without what is kept for superusers.
    pub(crate) usable: u64,
    /// By what they do.
    pub(crate) by_state: Vec<(String, u64)>,
    /// The most there have been at once, where the server remembers.
    pub(crate) peak: Option<u64>,
}

/// A client's session that has a transaction open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: u64,
    /// Who: user, program, address; never SQL.
    pub(crate) who: String,
    /// How long its transaction has been open.
    pub(crate) open: TimeDelta,
    /// How long it has done nothing in it; `None` while it works.
    pub(crate) idle: Option<TimeDelta>,
}

/// A session that waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) id: u64,
    pub(crate) who: String,
    /// For how long, at least.
    pub(crate) for_: TimeDelta,
    /// The sessions that it waits for.
    pub(crate) blockers: Vec<u64>,
}

/// Sessions, as far as they matter to others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub(crate) open: Vec<Session>,
    pub(crate) waiting: Vec<Waiting>,
}

/// What PostgreSQL knows of the vacuum of one table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Vacuum {
    pub(crate) table: TableName,
    pub(crate) live: u64,
    pub(crate) dead: u64,
    /// So many dead rows start an autovacuum of this table, by its own settings or the server's.
    pub(crate) trigger: f64,
    /// Whether autovacuum may run on it at all.
    pub(crate) enabled: bool,
    pub(crate) since_vacuum: Option<TimeDelta>,
    /// Rows changed since the statistics were made, and from how many on they are made anew.
    pub(crate) changed: u64,
    pub(crate) analyze_trigger: f64,
    pub(crate) since_analyze: Option<TimeDelta>,
    /// Transactions and multixacts since it was last frozen.
    pub(crate) xid_age: u64,
    pub(crate) mxid_age: u64,
}

/// What keeps dead rows from being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// A session, a prepared transaction, a replication slot, a standby.
    pub(crate) what: String,
    /// How many transactions ago it began.
    pub(crate) age: u64,
}

/// What PostgreSQL knows of its transaction ids and of vacuum.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Vacuums {
    /// Why rows that died or changed are not counted here; `None` where they are.
    pub(crate) uncounted: Option<String>,
    pub(crate) tables: Vec<Vacuum>,
    pub(crate) holders: Vec<Holder>,
    /// Whether there may be sessions among them that this user does not see.
    pub(crate) holders_hidden: bool,
    /// Each database of the server: its name, and the ages of its oldest transaction id and multixact.
    pub(crate) databases: Vec<(String, u64, u64)>,
    pub(crate) freeze_max_age: u64,
    pub(crate) multixact_freeze_max_age: u64,
}

/// What a SQLite file is like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SqliteFile {
    pub(crate) pages: u64,
    pub(crate) free_pages: u64,
    pub(crate) page_bytes: u64,
    /// Of the write-ahead log; `None` where there is none.
    pub(crate) wal_bytes: Option<u64>,
    /// Whether free pages can be given back without writing the file anew.
    pub(crate) gives_back: bool,
}

/// What the rows of a SQLite file are like.
#[derive(Debug, Clone)]
pub(crate) struct SqliteContent {
    /// What an integrity check said; nothing where all is well.
    pub(crate) damage: Seen<Vec<String>>,
    /// Tables that have outgrown their statistics, and how many rows each had when they were made.
    pub(crate) outgrown: Seen<Vec<(String, Option<u64>)>>,
}

impl SqliteContent {
    /// Of what is no SQLite file.
    pub(crate) fn absent() -> Self {
        let absent = || Unseen::NotApplicable("it is not a SQLite file".into());
        Self { damage: Err(absent()), outgrown: Err(absent()) }
    }
}

/// What follows this server, and what it follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Replication {
    pub(crate) followers: Vec<Follower>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) upstreams: Vec<Upstream>,
    /// What could not be seen of it.
    pub(crate) unknown: Vec<String>,
}

/// A replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Follower {
    pub(crate) name: String,
    /// How long what was written last has not been applied there.
    pub(crate) lag: Option<TimeDelta>,
    pub(crate) state: Option<String>,
}

/// What keeps the log for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) is_active: bool,
    /// Whether what it needs is gone.
    pub(crate) is_lost: bool,
    pub(crate) kept_bytes: u64,
}

/// A primary, as its replica sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    /// Why it is not followed.
    pub(crate) broken: Option<String>,
    pub(crate) lag: Option<TimeDelta>,
    /// How far behind it is meant to stay.
    pub(crate) wanted: TimeDelta,
}

/// A table whose rows changed since the planner's statistics were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Modified {
    pub(crate) table: TableName,
    pub(crate) rows: u64,
    pub(crate) changed: u64,
}

/// Rows that refer to nothing though a key is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    pub(crate) found: Vec<Violation>,
    /// How many keys hold, or do not.
    pub(crate) examined: u64,
    /// Keys of which it is not known.
    pub(crate) unknown: Vec<String>,
}

/// Those of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) table: String,
    /// The key's name, where it has one.
    pub(crate) key: Option<String>,
    pub(crate) to: String,
    pub(crate) rows: u64,
}
