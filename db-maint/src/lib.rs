//! Inspect, judge, plan and apply database maintenance of a shop.
//!
//! It looks at a live PostgreSQL, MySQL, MariaDB or SQLite database, over one connection at a time, without changing anything or
//! waiting for anybody, and says what should be mended, how sure it is, and what it could *not* see. What mends it is a [`Plan`] that a person
//! reads and [`apply`] carries out. What a shop declares about its own data is a [`Policy`]: by it rows that are old enough go
//! ([`clean_up`]), orphans are mended ([`mend_orphans`]), stock and carts are watched ([`check_stock`], [`claim_abandoned`]), caches
//! are cleared ([`clear_caches`]), and a person's data is handed out or forgotten ([`export`], [`erase`]). A [`History`] of looks
//! tells what is slow *now* and how fast a database grows ([`GrowthReport`]); [`audit_access`] tells who may do what. A [`Lease`] makes one of many app servers do it; [`mode`]
//! closes the shop meanwhile, where that is needed.
//!
//! What was not seen is never clean. A check that lacks a right, a counter or a version says so in its [`Outcome`], and an
//! [`Inspection`] with such a check is not a clean one.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> db_maint::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("shop.db");
//! # use sqlx::{ConnectOptions, Executor};
//! # let mut db = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true).connect().await.unwrap();
//! # db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER); \
//! #   CREATE INDEX by_customer ON orders (customer); CREATE INDEX again ON orders (customer)").await.unwrap();
//! use db_maint::{InspectOptions, open};
//!
//! let shop = open(&format!("sqlite:{}", path.display()))?;
//! let inspection = shop.inspect(&InspectOptions::default()).await?;
//! for finding in inspection.findings() {
//!     println!("{} {}: {}", finding.severity, finding.object, finding.summary);
//! }
//! assert_eq!(inspection.findings().next().map(|f| f.check.as_str()), Some("index-duplicate"));
//! // This file is not in WAL mode: nobody could write while it is read as a whole, so whether it is damaged was not looked for.
//! assert!(inspection.unknown().any(|(check, _)| check == "sqlite-integrity"));
//! # Ok(()) }
//! # #[cfg(not(feature = "sqlite"))] fn main() {}
//! ```
//!
//! # Checks
//!
//! | id | finds | engines |
//! |---|---|---|
//! | `sqlite-integrity` | damage | SQLite |
//! | `foreign-key-violated` | rows that refer to nothing though a key is declared; reads the tables where asked | all |
//! | `wraparound` | transaction ids and multixacts that run out | PostgreSQL |
//! | `counter-exhaustion` | sequences and counters that run out, by their own end or the column's type | all |
//! | `connections` | too few connections left | servers |
//! | `session-blocked` | who keeps others waiting | servers |
//! | `transaction-long` | transactions that stay open | servers |
//! | `vacuum-held-back` | what keeps dead rows from being removed | PostgreSQL |
//! | `dead-rows` | what autovacuum should have removed by its own settings | PostgreSQL |
//! | `statistics-stale` | planner statistics far behind the data | all |
//! | `index-invalid` | what interrupted builds left | PostgreSQL |
//! | `table-not-transactional` | MyISAM and the like | MySQL, MariaDB |
//! | `table-without-primary-key` | | all |
//! | `foreign-key-unindexed` | foreign keys without an index on the side that refers | all |
//! | `index-duplicate` `index-redundant` | the same index twice; one whose work another does as well | all |
//! | `index-bloat` `table-bloat` | space that holds nothing | PostgreSQL |
//! | `index-unused` | what no query used for the whole window | servers that count |
//! | `sqlite-free-pages` `sqlite-log-size` | room that holds nothing; a log that grows | SQLite |
//! | `table-free-space` | room in a table's file that stayed free for a day | MySQL, MariaDB |
//! | `slow-queries` | what took long between two looks, without values | servers that count |
//! | `cache-hits` | very many pages that were not in the server's memory, with the caveat | servers |
//! | `replication-lag` | replicas that are behind or stopped, slots that nobody reads | servers |
//! | `policy` | rules of the shop that do not fit its schema, and references in a circle | all |
//! | `orphans` | rows that refer to nothing, by declared references | all |
//! | `retention-overdue` | rows that should have gone days ago: no clean-up runs | all |
//! | `content` | what of the content is stale or waits, by declared rules | all |
//!
//! # Features
//!
//! `sqlite` (default), `postgres`, `mysql` (MySQL and MariaDB), `tls`; `redis` and `http`: caches that are cleared there.
//!
//! # Layout
//!
//! ```text
//! error         what can go wrong, and what to do then
//! capability    what a server is and shows
//! finding       outcomes, findings, suppressions
//! inspection    all that was read, put before every judge
//! engine        trait Engine; engine/{postgres,mysql,sqlite}: SQL and typed rows
//! schema  activity    what was read, in the same words for every engine
//! check         the judges: pure, one file each
//! look  growth  what is counted, at one moment and kept; how fast it grows
//! access        who may do what
//! references    foreign keys that nobody vouches for
//! rules         the policy held against the live schema
//! plan  apply   what would mend it, as data; and doing that
//! policy        what a shop declares about its own data
//! batch         the one engine that changes many rows; batch/work: what a rule means on the live table
//! shop          stock, carts, content, caches, a person's data
//! lease         one runner among many
//! runs          which times of which jobs are done
//! mode          maintenance mode
//! session  table  statement    a session that changes things, a live table, SQL with values
//! ident         names as SQL
//! replace       files that are replaced as a whole
//! ```

// Which parts of the shared words are used depends on the engines that are built.
#![cfg_attr(not(all(feature = "postgres", feature = "mysql", feature = "sqlite")), allow(dead_code))]

mod access;
mod activity;
mod apply;
mod batch;
mod capability;
mod check;
mod engine;
mod error;
mod finding;
mod growth;
mod ident;
mod inspection;
mod lease;
mod look;
pub mod mode;
mod plan;
mod policy;
mod references;
mod replace;
mod rules;
mod runs;
mod schema;
mod session;
mod shop;
mod statement;
mod table;

pub use self::access::{AccessReport, Admin, Grantee, Role, TableAccess, audit_access};
pub use self::apply::{ApplyOptions, ApplyReport, Room, StepEnd, StepReport, apply};
pub use self::batch::{JobEnd, JobOptions, JobReport, Stop, clean_up, mend_orphans};
pub use self::capability::{Capabilities, Flavour, IndexUsage, NodeRole, Version};
pub use self::check::bloat::{Space, SpaceMethod, Wasted};
#[cfg(feature = "mysql")]
pub use self::engine::mysql::Mysql;
#[cfg(feature = "postgres")]
pub use self::engine::postgres::Postgres;
#[cfg(feature = "sqlite")]
pub use self::engine::sqlite::Sqlite;
pub use self::engine::{Engine, open};
pub use self::error::{Error, ErrorKind, Result};
pub use self::finding::{Confidence, Finding, Outcome, Severity, Suppression};
pub use self::growth::{Forecast, Growth, GrowthOptions, GrowthReport, Rate};
pub use self::inspection::{CheckReport, InspectOptions, Inspection};
pub use self::lease::{Acquired, Holder, Lease};
pub use self::look::{History, Look};
pub use self::plan::{Plan, PlanOptions, Step, StepAction};
pub use self::policy::{
    AccessRule, AdminRule, CacheAction, CartRule, ContentRule, DirectoryCache, ErasureAction, Hold, HttpCache, Period,
    PersonalData, Policy, RedisCache, Reference, ReferenceAction, Retention, RetentionAction, SensitiveTable,
    StockRule, Unit, Zone,
};
pub use self::runs::{Run, RunEnd, last_done, record_run, runs_since};
pub use self::schema::TableName;
pub use self::shop::cache::{CacheReport, clear_caches};
pub use self::shop::carts::{AbandonedCart, Delivery, claim_abandoned, confirm, count_abandoned, unconfirmed};
pub use self::shop::privacy::{ErasedTable, ErasureCertificate, erase, export};
pub use self::shop::stock::{LowItem, StockReport, check_stock};

/// Re-exported for implementations of this crate's traits.
pub use {async_trait::async_trait, chrono};
