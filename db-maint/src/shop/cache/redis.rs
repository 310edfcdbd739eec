//! Keys in Redis, or what speaks like it, with one prefix. One server: of a cluster only the node that is named.

use std::time::Duration;

use redis::{Client, Cmd, Connection, ConnectionInfo, IntoConnectionInfo, RedisResult};

use super::{CacheReport, secret};
use crate::batch::Stop;
use crate::policy::RedisCache;

/// How long the server may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// About so many keys are looked at in one step: the server does nothing else meanwhile.
const STEP: usize = 500;
/// So many keys are shown.
const SHOWN: usize = 5;

pub(super) async fn clear(rule: &RedisCache, apply: bool, stop: &Stop, report: &mut CacheReport) {
    report.place = format!("{} {}*", rule.url, rule.prefix);
    let (rule, stop) = (rule.clone(), stop.clone());
    let swept = tokio::task::spawn_blocking(move || {
        let mut tally = Tally::default();
        let done = connect(&rule).and_then(|mut server| {
            tally.sweep(&mut server, rule.prefix.as_bytes(), apply, &stop).map_err(|e| format!("the server says: {e}"))
        });
        (tally, done)
    });
    match swept.await {
        Ok((tally, done)) => {
            (report.met, report.cleared, report.sample) = (tally.met, tally.cleared, tally.sample);
            report.failed.extend(done.err());
        }
        Err(e) => report.failed.push(format!("it was broken off: {e}")),
    }
}

fn connect(rule: &RedisCache) -> Result<Connection, String> {
    let mut info: ConnectionInfo =
        rule.url.as_str().into_connection_info().map_err(|e| format!("the url cannot be understood: {e}"))?;
    if let Some(variable) = &rule.password_env {
        let settings = info.redis_settings().clone().set_password(secret(variable)?);
        info = info.set_redis_settings(settings);
    }
    let failed = |e: redis::RedisError| format!("it cannot be reached: {e}");
    let server = Client::open(info).and_then(|client| client.get_connection_with_timeout(PATIENCE)).map_err(failed)?;
    server.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    server.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
    Ok(server)
}

#[derive(Default)]
struct Tally {
    met: u64,
    cleared: u64,
    sample: Vec<String>,
}

impl Tally {
    /// Step by step over all keys: one that is made meanwhile may stay, and one that is there all the time does not.
    fn sweep(&mut self, server: &mut Connection, prefix: &[u8], apply: bool, stop: &Stop) -> RedisResult<()> {
        let pattern = pattern(prefix);
        let mut cursor = 0u64;
        loop {
            let (next, mut keys): (u64, Vec<Vec<u8>>) =
                Cmd::new().arg("SCAN").arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP).query(server)?;
            // Whatever the server takes for a match.
            keys.retain(|key| key.starts_with(prefix));
            self.met += keys.len() as u64;
            let room = SHOWN.saturating_sub(self.sample.len());
            self.sample.extend(keys.iter().take(room).map(|key| shown(key, prefix)));
            if apply && !keys.is_empty() {
                // Each by itself: the nodes of a cluster take no two in one command.
                let mut all = redis::pipe();
                for key in &keys {
                    all.cmd("UNLINK").arg(key);
                }
                let gone: Vec<u64> = all.query(server)?;
                self.cleared += gone.iter().sum::<u64>();
            }
            cursor = next;
            if cursor == 0 || stop.is_stopped() {
                return Ok(());
            }
        }
    }
}

/// A key as it may be shown: where a prefix takes in more than a cache, what follows may be somebody's session.
fn shown(key: &[u8], prefix: &[u8]) -> String {
    let all = String::from_utf8_lossy(key);
    let most = String::from_utf8_lossy(prefix).chars().count() + 8;
    match all.chars().count() > most {
        true => format!("{}…", all.chars().take(most).collect::<String>()),
        false => all.into_owned(),
    }
}

/// All that begins so, as the server's patterns are written.
fn pattern(prefix: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(prefix.len() + 1);
    for byte in prefix {
        if b"*?[]^-\\".contains(byte) {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern.push(b'*');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_itself() {
        assert_eq!(pattern(b"shop:*[a]"), b"shop:\\*\\[a\\]*");
    }
}
