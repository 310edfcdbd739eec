//! The sample shop that the tools, the tests and the benches share: its schema, a seeded generator that fills it with
//! realistic data and known faults, its uploads, and the throw-away servers that tests need.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let facts = storefront::sqlite::create(&dir.path().join("shop.db"), &storefront::Size::orders(100), 7).await?;
//! assert_eq!(facts.orders, 100);
//! assert!(facts.orphaned_items > 0);
//! # Ok(()) }
//! ```
//!
//! # Layout
//!
//! ```text
//! data       the rows of the shop, as SQL text that every engine reads
//! sqlite     the shop on SQLite; a day of trading
//! postgres   the shop on PostgreSQL, and a server for it (feature postgres)
//! pgbouncer  a pooler in front of it
//! mysql      the same on MariaDB (feature mysql)
//! redis      a Redis server
//! smtp       a mail server
//! chromium   a browser
//! dns        a name server
//! nginx      a web server
//! php        PHP behind it
//! web        the shop by both, weak and hardened
//! certificates  good ones and bad ones
//! answers    a server in this process that answers as it is told
//! process    what the servers share
//! faults     what grown shops suffer from, and how to make a clean twin
//! uploads    images and documents
//! s3         an S3 server in this process (feature s3-server)
//! network    a loopback port to a server, that can be cut
//! ```

pub mod answers;
pub mod certificates;
pub mod chromium;
mod data;
pub mod dns;
pub mod faults;
pub mod imap;
#[cfg(feature = "mysql")]
pub mod mysql;
pub mod network;
pub mod nginx;
#[cfg(feature = "postgres")]
pub mod pgbouncer;
pub mod php;
#[cfg(feature = "postgres")]
pub mod postgres;
// The databases need more of it than the others.
#[cfg_attr(not(any(feature = "postgres", feature = "mysql")), allow(dead_code))]
mod process;
pub mod redis;
#[cfg(feature = "s3-server")]
pub mod s3;
pub mod smtp;
pub mod sqlite;
pub mod uploads;
pub mod web;

/// How large a shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    orders: u64,
}

impl Size {
    /// A shop with so many orders, and customers, products and the rest in proportion.
    pub const fn orders(orders: u64) -> Self {
        Self { orders }
    }

    /// How many orders.
    pub const fn order_count(self) -> u64 {
        self.orders
    }

    /// How many customers.
    pub const fn customers(self) -> u64 {
        self.orders / 4 + 10
    }

    /// How many products; each has three variants.
    pub const fn products(self) -> u64 {
        let products = self.orders / 100 + 40;
        if products > 8000 { 8000 } else { products }
    }
}

/// What the generator made, faults included: what a check has to find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Orders.
    pub orders: u64,
    /// Order items whose order does not exist.
    pub orphaned_items: u64,
    /// Sessions that were last used more than 30 days ago.
    pub old_sessions: u64,
    /// Variants with less stock than their threshold.
    pub low_stock: u64,
    /// Carts left for more than a day with something in them.
    pub abandoned_carts: u64,
    /// Payments that failed.
    pub failed_payments: u64,
}

/// An error of the sample shop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database refused something.
    #[error("the sample shop's database: {0}")]
    Database(#[from] sqlx::Error),
    /// A file could not be written.
    #[error("the sample shop's files: {0}")]
    Io(#[from] std::io::Error),
    /// A server could not be started.
    #[error("a server for tests: {0}")]
    Server(String),
}

/// The moment at which the generated data ends: 2026-01-15 12:00:00 UTC, in seconds since 1970.
pub const NOW: i64 = 1_768_478_400;
