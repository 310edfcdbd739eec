//! Encrypted, deduplicated, verifiable backups of a shop's database and files, in any object store.
//!
//! A [`Repository`] lives in a [`Store`]: a folder, a bucket, any [`object_store::ObjectStore`]. A [`Source`] is backed up
//! into it as a [`Snapshot`]; a snapshot is verified, restored to a [`Target`], drilled, exported. The host that writes
//! backups cannot read them: data is encrypted with [age](https://age-encryption.org) to public keys, and the [keys]
//! that read, write and remove are three.
//!
//! ```
//! use backup_core::{DrillOptions, Keys, Repository, RestoreOptions, Selector, Store, VerifyLevel, VerifyOptions};
//! use backup_core::{SqliteSource, SqliteTarget};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = std::env::temp_dir().join(format!("backup-core-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir)?;
//! # let shop = dir.join("shop.db");
//! # {
//! #     use sqlx::Connection;
//! #     let mut db = sqlx::SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", shop.display())).await?;
//! #     sqlx::raw_sql("CREATE TABLE orders(id INTEGER PRIMARY KEY, total); INSERT INTO orders VALUES (1, 9.5), (2, 12)").execute(&mut db).await?;
//! #     db.close().await?;
//! # }
//! // Once: keys, and a repository that is encrypted to them.
//! let mut keys = Keys::generate()?;
//! let repository = Repository::init(Store::folder(dir.join("backups"))?, &mut keys, &[]).await?;
//!
//! // Every night: a snapshot of the live database.
//! let snapshot = repository.backup(&SqliteSource::new(&shop), Default::default()).await?;
//! assert_eq!(snapshot.manifest.totals.rows, 2);
//!
//! // Then: is all of it there, and can it be brought back?
//! let report = repository.verify(None, VerifyOptions::new(VerifyLevel::Content)).await?;
//! assert!(report.is_sound());
//! let drill = repository.drill(&snapshot, &SqliteTarget::new(dir.join("scratch.db")), DrillOptions::default()).await?;
//! assert!(drill.passed());
//!
//! // On the bad day:
//! let catalog = repository.catalog().await?;
//! let latest = catalog.select(&Selector::Latest, None)?;
//! let restored = repository.restore(latest, &SqliteTarget::new(dir.join("restored.db")), RestoreOptions::default()).await?;
//! assert!(restored.is_equal());
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok(()) }
//! ```
//!
//! Without this crate it works too: every repository holds a `RESTORE.md` that needs `openssl`, `age`, `zstd`, `jq` and
//! the database's own client.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `sqlite` | yes | [`SqliteSource`], [`SqliteTarget`] |
//! | `files` | yes | [`FilesSource`], [`FilesTarget`] (Unix) |
//! | `mysql` | no | [`MysqlSource`], [`MysqlTarget`]: MySQL and MariaDB |
//! | `postgres` | no | [`PostgresSource`], [`PostgresTarget`]; needs `pg_dump` beside it |
//! | `tls` | no | TLS for connections to database servers (rustls) |
//! | `s3` | no | `s3://` stores |
//! | `azure` | no | `az://` stores; tested against Azurite |
//! | `gcs` | no | `gs://` stores; not tested against a server |
//!
//! # Layout
//!
//! ```text
//! error         what can go wrong, and what to do then
//! source        traits Source and Capture      source/{sqlite,postgres,mysql,files}
//! target        traits Target and Intake       target/{sqlite,postgres,mysql,files,discard}
//! postgres  mysql    what the source and target of one kind of server share
//! tier          part of a database on purpose
//! manifest      what a snapshot's record says
//! fingerprint   order-independent content fingerprints
//! keys          who may read, write and remove
//! pipeline      chunk, id, compress, encrypt, and back
//! repository    configuration, log, leases, over object stores
//! assurance     what verifies and drills said of each snapshot
//! objective     RPO and RTO, and whether they are kept
//! retention     which snapshots stay, and why
//! compose       a state put together from snapshots of tiers
//! backup  copies  restore  compare  verify  drill  diff  prune  sync  check_store  export  select  status    one verb each
//! insert        rows as INSERT statements
//! instructions  RESTORE.md
//! progress      what a long operation is doing
//! stages        hidden, with the feature `stages`: for benches
//! ```
//!
//! Arrows point one way: verbs → repository, pipeline, source, target → manifest → error.

mod assurance;
mod backup;
mod check_store;
mod compare;
mod compose;
mod copies;
mod diff;
mod drill;
mod error;
mod export;
pub mod fingerprint;
mod hooks;
mod insert;
mod instructions;
pub mod keys;
mod manifest;
#[cfg(feature = "mysql")]
mod mysql;
pub mod objective;
mod pipeline;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
mod prune;
mod repository;
mod restore;
pub mod retention;
mod select;
pub mod source;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod sql;
#[cfg(feature = "stages")]
#[doc(hidden)]
pub mod stages;
mod status;
mod sync;
pub mod target;
mod throttle;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod tier;
mod verify;

pub use self::assurance::Assurance;
pub use self::backup::{BackupOptions, new_run};
pub use self::check_store::{StoreReport, Trial, TrialOutcome, check_store};
pub use self::compare::{Compared, fingerprints};
pub use self::compose::{Composition, Share};
pub use self::diff::{Change, DiffReport, EntryDiff, FileDiff};
pub use self::drill::{DrillOptions, DrillReport};
pub use self::error::{Error, ErrorKind, Result};
pub use self::export::ExportReport;
pub use self::fingerprint::Fingerprint;
pub use self::hooks::{Hooks, Reading};
pub use self::keys::{
    AdminKey, Keys, OwnerIdentity, Recipient, Revoked, Trust, TrustedAdmin, TrustedWriter, VerifyKey, WriterKey,
};
pub use self::manifest::{
    ChunkRef, Digest, EntryKind, EntryRecord, FORMAT, IndexLine, Manifest, Member, MemberPath, PartRef, Problem,
    RecordName, Snapshot, SnapshotId, SourceInfo, Totals, Unit,
};
pub use self::objective::{Due, Duty, Judgement, Objective, ObjectiveStatus, Standing};
pub use self::progress::{Event, NoProgress, Progress};
pub use self::prune::{PruneOptions, PruneReport};
pub use self::repository::{
    Catalog, Clock, Contradiction, Evidence, Lease, LeaseMode, Repository, Rotation, Store, StoreLog,
};
pub use self::restore::{RestoreOptions, RestoreReport};
pub use self::retention::{PrunePlan, Retention};
pub use self::select::Selector;
#[cfg(feature = "files")]
pub use self::source::files::FilesSource;
#[cfg(feature = "mysql")]
pub use self::source::mysql::MysqlSource;
#[cfg(feature = "postgres")]
pub use self::source::postgres::PostgresSource;
#[cfg(feature = "sqlite")]
pub use self::source::sqlite::SqliteSource;
pub use self::source::{Capture, CaptureContext, CaptureEnd, Entry, Piece, Previous, Source};
pub use self::status::{SourceStatus, Status};
pub use self::sync::{SyncOptions, SyncReport, sync};
#[cfg(feature = "files")]
pub use self::target::files::FilesTarget;
#[cfg(feature = "mysql")]
pub use self::target::mysql::MysqlTarget;
#[cfg(feature = "postgres")]
pub use self::target::postgres::PostgresTarget;
#[cfg(feature = "sqlite")]
pub use self::target::sqlite::SqliteTarget;
pub use self::target::{Discard, Filling, Intake, Invariant, InvariantOutcome, Only, Target};
pub use self::throttle::Throttle;
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub use self::throttle::lag::ReplicationLag;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub use self::tier::Tier;
pub use self::verify::{Finding, FindingKind, VerifyLevel, VerifyOptions, VerifyReport};

/// Re-exported for implementations of this crate's traits.
pub use {async_trait::async_trait, bytes, chrono, futures, object_store};
