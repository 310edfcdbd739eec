//! A source and a target of one's own: the keys of a shop in Redis, with one prefix.

use std::sync::Mutex;

use backup_core::bytes::Bytes;
use backup_core::futures::TryStreamExt;
use backup_core::futures::stream::{self, BoxStream};
use backup_core::{
    Capture, CaptureContext, CaptureEnd, Entry, EntryKind, EntryRecord, Error, ErrorKind, Filling, Intake, Manifest,
    Problem, Result, Source, SourceInfo, Target, async_trait, chrono::Utc,
};
use redis::{Client, Connection};
use serde::{Deserialize, Serialize};

/// The entry of all keys.
const ENTRY: &str = "data/keys";

/// Keys of one Redis server, by prefix.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    client: Client,
    prefix: String,
}

/// A key: its name, when it expires, what it holds. Bytes as hex: a line is a row.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    key: String,
    /// Milliseconds of Unix; below 0 where it does not expire.
    expires: i64,
    #[serde(rename = "type")]
    kind: String,
    value: Vec<String>,
}

/// All keys at one instant, for a script runs alone: a server waits for it as long as that takes, so this is for some megabytes of carts and
/// sessions, not for gigabytes.
const READ: &str = "
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, value = redis.call('TYPE', key).ok, {}
  if kind == 'string' then value = {redis.call('GET', key)}
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  end
  out[#out + 1] = {key, redis.call('PEXPIRETIME', key), kind, value}
end
return out";

impl Keys {
    /// The keys that begin with `prefix`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where that is no address of Redis.
    pub(crate) fn new(url: &str, prefix: &str) -> Result<Self> {
        let client = Client::open(url)
            .map_err(|e| Error::new(ErrorKind::Config, "that is no address of Redis").with_source(e))?;
        Ok(Self { client, prefix: prefix.to_owned() })
    }

    /// Does something with a connection, where that keeps nobody waiting.
    async fn with<T: Send + 'static>(
        &self,
        kind: ErrorKind,
        work: impl FnOnce(&mut Connection) -> redis::RedisResult<T> + Send + 'static,
    ) -> Result<T> {
        let client = self.client.clone();
        let failed = move |e: redis::RedisError| {
            Error::new(kind, format!("Redis: {e}"))
                .with_next_step("see whether it runs, and what it says")
                .with_source(e)
        };
        tokio::task::spawn_blocking(move || work(&mut client.get_connection()?))
            .await
            .map_err(|e| Error::new(ErrorKind::Internal, "the work with Redis ended early").with_source(e))?
            .map_err(failed)
    }

    /// What matches the prefix and nothing else: it may hold what patterns know.
    fn pattern(&self) -> String {
        let escaped: String =
            self.prefix.chars().flat_map(|c| if "*?[]^-\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect();
        escaped + "*"
    }
}

type Read = (Vec<u8>, i64, String, Vec<Vec<u8>>);

#[async_trait]
impl Source for Keys {
    fn name(&self) -> &str {
        "redis"
    }

    async fn capture(&self, _: CaptureContext) -> Result<Box<dyn Capture>> {
        let pattern = self.pattern();
        let read = self.with(ErrorKind::Source, move |redis| {
            redis::cmd("EVAL").arg(READ).arg(0).arg(pattern).query::<Vec<Read>>(redis)
        });
        let taken_at = Utc::now();
        let mut read = read.await?;
        // The same data is the same rows, in whatever order a server keeps it.
        read.sort();
        let (mut lines, mut problems) = (String::new(), Vec::new());
        for (key, expires, kind, mut value) in read {
            match kind.as_str() {
                "set" => value.sort(),
                "hash" => {
                    let mut pairs: Vec<_> = value.chunks(2).map(<[_]>::to_vec).collect();
                    pairs.sort();
                    value = pairs.concat();
                }
                "string" | "list" | "zset" => {}
                // What is not read is said.
                other => {
                    let name = String::from_utf8_lossy(&key).into_owned();
                    problems.push(Problem::new(name, format!("keys of the type {other} are not read")));
                    continue;
                }
            }
            let row = Row { key: hex::encode(key), expires, kind, value: value.iter().map(hex::encode).collect() };
            let line = serde_json::to_string(&row)
                .map_err(|e| Error::new(ErrorKind::Internal, "a key that cannot be written as JSON").with_source(e))?;
            lines += &line;
            lines.push('\n');
        }
        Ok(Box::new(Captured { lines: Some(lines), problems, taken_at }))
    }
}

struct Captured {
    lines: Option<String>,
    problems: Vec<Problem>,
    taken_at: backup_core::chrono::DateTime<Utc>,
}

#[async_trait]
impl Capture for Captured {
    fn info(&self) -> SourceInfo {
        SourceInfo::new("redis", "redis", "redis", "7")
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        Ok(self
            .lines
            .take()
            .map(|lines| Entry::new(ENTRY, EntryKind::Data, "keys", stream::iter([Ok(Bytes::from(lines).into())]))))
    }

    async fn finish(self: Box<Self>) -> Result<CaptureEnd> {
        let count = self.problems.len() as u64;
        Ok(CaptureEnd::at(self.taken_at).with_problems(self.problems, count))
    }
}

/// Keys that are put back: nothing of them is visible before all of them are.
#[derive(Debug)]
struct Filled {
    keys: Keys,
    clean: bool,
    rows: Mutex<Vec<Row>>,
}

#[async_trait]
impl Target for Keys {
    fn location(&self) -> String {
        format!("keys {}* of Redis", self.prefix)
    }

    async fn open(&self, _: &Manifest, filling: &Filling) -> Result<Box<dyn Intake>> {
        if !filling.clean && !self.is_vacant().await? {
            return Err(Error::new(ErrorKind::TargetNotEmpty, format!("there are {}", self.location()))
                .with_next_step("say that they are to be replaced"));
        }
        Ok(Box::new(Filled { keys: self.clone(), clean: filling.clean, rows: Mutex::default() }))
    }

    fn read_back(&self) -> Option<Box<dyn Source>> {
        Some(Box::new(self.clone()))
    }

    async fn is_vacant(&self) -> Result<bool> {
        let pattern = self.pattern();
        let keys =
            self.with(ErrorKind::Target, move |redis| redis::cmd("KEYS").arg(pattern).query::<Vec<Vec<u8>>>(redis));
        Ok(keys.await?.is_empty())
    }

    async fn remove(&self) -> Result<()> {
        let pattern = self.pattern();
        self.with(ErrorKind::Target, move |redis| {
            let keys = redis::cmd("KEYS").arg(pattern).query::<Vec<Vec<u8>>>(redis)?;
            match keys.is_empty() {
                true => Ok(()),
                false => redis::cmd("DEL").arg(keys).query::<u64>(redis).map(drop),
            }
        })
        .await
    }
}

#[async_trait]
impl Intake for Filled {
    fn wants(&self, entry: &EntryRecord) -> bool {
        entry.name == ENTRY
    }

    async fn take(&self, _: &EntryRecord, body: BoxStream<'_, Result<Bytes>>) -> Result<()> {
        let bytes = body.try_fold(Vec::new(), |mut all, more| async move {
            all.extend_from_slice(&more);
            Ok(all)
        });
        let bytes = bytes.await?;
        let bad = |e: serde_json::Error| Error::new(ErrorKind::Damaged, "a row is no key of Redis").with_source(e);
        let rows = serde_json::Deserializer::from_slice(&bytes)
            .into_iter::<Row>()
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(bad)?;
        self.rows.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(rows);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<Vec<String>> {
        let rows = self.rows.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bad = |e: hex::FromHexError| Error::new(ErrorKind::Damaged, "a row is no key of Redis").with_source(e);
        let (pattern, clean) = (self.keys.pattern(), self.clean);
        let mut all = redis::pipe();
        for row in rows {
            let key = hex::decode(row.key).map_err(bad)?;
            let mut value =
                row.value.iter().map(hex::decode).collect::<std::result::Result<Vec<_>, _>>().map_err(bad)?;
            let command = match row.kind.as_str() {
                "string" => "SET",
                "list" => "RPUSH",
                "set" => "SADD",
                "hash" => "HSET",
                _ => {
                    // Scores stand behind their members, and before them in the command.
                    value.chunks_mut(2).for_each(<[_]>::reverse);
                    "ZADD"
                }
            };
            all.cmd(command).arg(&key).arg(value).ignore();
            if row.expires > 0 {
                all.cmd("PEXPIREAT").arg(&key).arg(row.expires).ignore();
            }
        }
        self.keys
            .with(ErrorKind::Target, move |redis| {
                let mut whole = redis::pipe();
                whole.atomic();
                let there = match clean {
                    true => redis::cmd("KEYS").arg(pattern).query::<Vec<Vec<u8>>>(redis)?,
                    false => Vec::new(),
                };
                if !there.is_empty() {
                    whole.cmd("DEL").arg(there).ignore();
                }
                for command in all.cmd_iter() {
                    whole.add_command(command.clone()).ignore();
                }
                whole.query::<()>(redis)
            })
            .await?;
        Ok(Vec::new())
    }
}
