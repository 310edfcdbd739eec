//! The shop on SQLite.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection};

use crate::{Error, Facts, Size, data};

/// Makes a new shop at `path`, in WAL mode, and says what is in it.
pub async fn create(path: &Path, size: &Size, seed: u64) -> Result<Facts, Error> {
    let mut db = open(path, true).await?;
    // A fixture that is lost in a crash is made again.
    run(&mut db, "PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF").await?;
    run(&mut db, include_str!("sqlite.sql")).await?;
    let size = *size;
    let facts = fill(&mut db, move |emit| data::shop(size, seed, emit)).await?;
    run(&mut db, include_str!("sqlite_after.sql")).await?;
    db.close().await?;
    Ok(facts)
}

/// A day of trading in a shop that was made with this size: 1 % new orders with items and payments, the newest 1 %
/// shipped, the stock of 100 variants moved.
pub async fn trade_a_day(path: &Path, size: &Size, seed: u64) -> Result<(), Error> {
    let mut db = open(path, false).await?;
    let size = *size;
    fill(&mut db, move |emit| data::day(size, seed, emit)).await?;
    Ok(db.close().await?)
}

/// Writes a note to one in `every` orders, all over the table: the change that deduplication likes least.
pub async fn scatter(path: &Path, size: &Size, seed: u64, every: u64) -> Result<(), Error> {
    let mut db = open(path, false).await?;
    let size = *size;
    fill(&mut db, move |emit| data::scattered(size, seed, every, emit)).await?;
    Ok(db.close().await?)
}

/// Opens a shop as the shop itself would.
pub async fn open(path: &Path, create: bool) -> Result<SqliteConnection, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(create)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .disable_statement_logging();
    Ok(options.connect().await?)
}

/// Runs SQL text that this crate made.
pub async fn run(db: &mut SqliteConnection, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await?;
    Ok(())
}

async fn fill<T: Send + 'static>(
    db: &mut SqliteConnection,
    make: impl FnOnce(&mut dyn FnMut(String)) -> T + Send + 'static,
) -> Result<T, Error> {
    let (mut statements, made) = data::statements(make);
    run(db, "BEGIN").await?;
    while let Some(sql) = statements.recv().await {
        run(db, &sql).await?;
    }
    run(db, "COMMIT").await?;
    made.await.map_err(|e| Error::Server(format!("the generator: {e}")))
}
