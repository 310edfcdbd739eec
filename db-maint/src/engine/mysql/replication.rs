//! What this server follows. How far its own replicas are behind they know themselves.

use chrono::TimeDelta;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Column, Error, Executor, Row};

use super::{bounded, number_of, reason};
use crate::activity::{Replication, Seen, Unseen, Upstream};
use crate::capability::{Capabilities, Flavour, NodeRole};

const GRANT: &str = "GRANT REPLICATION CLIENT ON *.* to this user (MariaDB: SLAVE MONITOR)";

pub(super) async fn read(session: &mut MySqlConnection, capabilities: &Capabilities) -> Seen<Replication> {
    let statement = match capabilities.flavour {
        Flavour::MariaDb => "SHOW ALL SLAVES STATUS",
        _ => "SHOW REPLICA STATUS",
    };
    let mut rows = bounded(session.fetch_all(statement)).await;
    // The older name is the only one before MySQL 8.0.22.
    if rows.as_ref().err().and_then(number_of) == Some(1064) {
        rows = bounded(session.fetch_all("SHOW SLAVE STATUS")).await;
    }
    let rows = rows.map_err(|e| {
        Unseen::unknown(format!("whether it follows another server is not shown: {}", reason(&e)), GRANT)
    })?;
    let upstreams = rows.iter().map(upstream).collect::<Result<Vec<_>, _>>();
    let upstreams =
        upstreams.map_err(|e| Unseen::unknown(format!("how it follows another server cannot be read: {e}"), GRANT))?;
    let unknown = match capabilities.role {
        NodeRole::Primary => vec!["how far its replicas are behind: each knows that itself; inspect each".to_owned()],
        NodeRole::Unknown => vec!["whether replicas follow it is not shown to this user".to_owned()],
        _ => Vec::new(),
    };
    Ok(Replication { upstreams, unknown, ..Replication::default() })
}

fn upstream(row: &MySqlRow) -> Result<Upstream, Error> {
    let text = |names: &[&str]| -> Result<Option<String>, Error> {
        match row.columns().iter().find(|c| names.iter().any(|name| c.name().eq_ignore_ascii_case(name))) {
            Some(column) => row.try_get_unchecked(column.ordinal()),
            None => Ok(None),
        }
    };
    let number = |names: &[&str]| -> Result<Option<i64>, Error> { Ok(text(names)?.and_then(|n| n.parse().ok())) };
    let host = text(&["Source_Host", "Master_Host"])?.unwrap_or_else(|| "its primary".to_owned());
    let name = match text(&["Channel_Name", "Connection_name"])?.filter(|name| !name.is_empty()) {
        Some(channel) => format!("{host} ({channel})"),
        None => host,
    };
    let mut broken = None;
    let threads: [(&str, &[&str], &[&str]); 2] = [
        ("connection to it", &["Replica_IO_Running", "Slave_IO_Running"], &["Last_IO_Errno"]),
        ("thread that applies its log", &["Replica_SQL_Running", "Slave_SQL_Running"], &["Last_SQL_Errno"]),
    ];
    for (what, running, errno) in threads {
        let state = text(running)?;
        if state.as_deref() != Some("Yes") {
            // Its text may quote what rows hold.
            let error = number(errno)?.filter(|n| *n != 0).map_or_else(String::new, |n| format!(", error {n}"));
            broken.get_or_insert(format!("the {what} does not run{error}"));
        }
    }
    Ok(Upstream {
        name,
        broken,
        lag: number(&["Seconds_Behind_Source", "Seconds_Behind_Master"])?.map(TimeDelta::seconds),
        wanted: TimeDelta::seconds(number(&["SQL_Delay"])?.unwrap_or(0)),
    })
}
