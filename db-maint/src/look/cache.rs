//! How often pages were found in the server's own memory, and how often not.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{group, number, odd, text};
use crate::activity::{Seen, Unseen};
use crate::capability::Flavour;
use crate::error::Result;
use crate::session::Session;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cache {
    /// Pages that were found there.
    pub(crate) hits: u64,
    /// Pages that the system was asked for: it may have had them in its own memory.
    pub(crate) misses: u64,
    /// What is counted together: this database, or the whole server.
    pub(crate) of: String,
    /// Since when.
    pub(crate) since: Option<DateTime<Utc>>,
}

pub(super) async fn read(session: &mut Session) -> Result<Seen<Cache>> {
    Ok(match session.flavour() {
        Flavour::Postgres => {
            let sql = "SELECT blks_hit::text, blks_read::text, (EXTRACT(EPOCH FROM stats_reset) * 1000)::int8::text \
                FROM pg_stat_database WHERE datname = current_database()";
            group(session, sql, &[], "try again").await?.and_then(|rows| {
                let row = rows.first().ok_or_else(|| odd("its cache"))?;
                let counted = number(row, 0).zip(number(row, 1)).ok_or_else(|| odd("its cache"))?;
                let since = number(row, 2).and_then(DateTime::from_timestamp_millis);
                Ok(Cache { hits: counted.0, misses: counted.1, of: "database".into(), since })
            })
        }
        Flavour::Mysql | Flavour::MariaDb => {
            let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN \
                ('Innodb_buffer_pool_read_requests', 'Innodb_buffer_pool_reads')";
            group(session, sql, &[], "try again").await?.and_then(|rows| {
                let of = |name: &str| {
                    rows.iter()
                        .find(|row| text(row, 0).is_some_and(|n| n.eq_ignore_ascii_case(name)))
                        .and_then(|row| number::<u64>(row, 1))
                        .ok_or_else(|| odd("its cache"))
                };
                let (requests, misses) = (of("Innodb_buffer_pool_read_requests")?, of("Innodb_buffer_pool_reads")?);
                Ok(Cache { hits: requests.saturating_sub(misses), misses, of: "server".into(), since: None })
            })
        }
        Flavour::Sqlite => {
            Err(Unseen::NotApplicable("the cache of a SQLite file is in the shop's own programs".into()))
        }
    })
}
