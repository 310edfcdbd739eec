//! One shop on one of the engines, in the same words.
#![allow(dead_code, unreachable_pub)]

use db_maint::{Engine, open};
use sqlx::Row;
use storefront::{Facts, Size, mysql, postgres, sqlite};

pub enum Db {
    Postgres(postgres::Server, String),
    Mysql(mysql::Server, String),
    Sqlite(tempfile::TempDir),
}

/// Which engines a test runs on.
pub async fn every() -> [Db; 3] {
    [postgres().await, mysql().await, sqlite()]
}

pub async fn postgres() -> Db {
    let server = postgres::Server::start().await.unwrap();
    let url = server.database("shop").await.unwrap();
    Db::Postgres(server, url)
}

pub async fn mysql() -> Db {
    let server = mysql::Server::start().await.unwrap();
    let url = server.database("shop").unwrap();
    Db::Mysql(server, url)
}

pub fn sqlite() -> Db {
    Db::Sqlite(tempfile::tempdir().unwrap())
}

impl Db {
    pub fn url(&self) -> String {
        match self {
            Self::Postgres(_, url) | Self::Mysql(_, url) => url.clone(),
            Self::Sqlite(dir) => format!("sqlite:{}", dir.path().join("shop.db").display()),
        }
    }

    pub fn engine(&self) -> Box<dyn Engine> {
        open(&self.url()).unwrap()
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Postgres(..) => "postgres",
            Self::Mysql(..) => "mysql",
            Self::Sqlite(_) => "sqlite",
        }
    }

    fn path(&self) -> std::path::PathBuf {
        let Self::Sqlite(dir) = self else { panic!() };
        dir.path().join("shop.db")
    }

    /// The sample shop.
    pub async fn fill(&self, orders: u64) -> Facts {
        let size = Size::orders(orders);
        match self {
            Self::Postgres(_, url) => postgres::create(url, &size, 1).await.unwrap(),
            Self::Mysql(_, url) => {
                let facts = mysql::create(url, &size, 1).await.unwrap();
                self.run("ALTER TABLE sessions ENGINE=InnoDB").await;
                facts
            }
            Self::Sqlite(_) => sqlite::create(&self.path(), &size, 1).await.unwrap(),
        }
    }

    /// An empty database.
    pub async fn empty(&self) {
        if let Self::Sqlite(_) = self {
            sqlx::Connection::close(sqlite::open(&self.path(), true).await.unwrap()).await.unwrap();
        }
    }

    pub async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|e| panic!("{}: {sql}: {e}", self.name()));
    }

    pub async fn try_run(&self, sql: &str) -> Result<(), storefront::Error> {
        match self {
            Self::Postgres(_, url) => postgres::run(&mut postgres::open(url).await?, sql).await,
            Self::Mysql(_, url) => mysql::run(&mut mysql::open(url).await?, sql).await,
            Self::Sqlite(_) => sqlite::run(&mut sqlite::open(&self.path(), false).await?, sql).await,
        }
    }

    /// A number.
    pub async fn count(&self, sql: &str) -> i64 {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self {
            Self::Postgres(_, url) => {
                sqlx::query(sql).fetch_one(&mut postgres::open(url).await.unwrap()).await.unwrap().get_unchecked(0)
            }
            Self::Mysql(_, url) => {
                sqlx::query(sql).fetch_one(&mut mysql::open(url).await.unwrap()).await.unwrap().get_unchecked(0)
            }
            Self::Sqlite(_) => {
                let mut db = sqlite::open(&self.path(), false).await.unwrap();
                sqlx::query(sql).fetch_one(&mut db).await.unwrap().get_unchecked(0)
            }
        }
    }
}
