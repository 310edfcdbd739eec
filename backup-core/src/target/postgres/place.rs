//! Where a restore goes: an empty database, a new one, or a new one that takes an old one's place.

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::close;
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::{Database, state_of};
use crate::sql::{identifier, literal, trusted};

/// How often it is looked whether a database is still being made, every tenth of a second.
const CREATION_LOOKS: u32 = 100;
/// What a database that is not finished is called, after the name it is to have.
const STAGING: &str = "_caretaker_partial";
/// What a database that is being replaced is called.
const REPLACED: &str = "_caretaker_replaced";
/// Databases to talk to the server through while the one in question is not to be touched.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
/// How long the replaced database's sessions may take to end.
const LEAVE: Duration = Duration::from_secs(15);
/// Objects of a user in a schema, by catalogue; extensions' own do not count.
const OBJECTS: &str = "SELECT pg_catalog.count(*) FROM ( \
      SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::pg_catalog.oid AS classid, oid AS objid, relnamespace AS namespace FROM pg_catalog.pg_class \
        WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') \
      UNION ALL SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass, oid, pronamespace FROM pg_catalog.pg_proc \
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, oid, typnamespace FROM pg_catalog.pg_type \
        WHERE typrelid = 0 AND typtype IN ('b', 'd', 'e', 'r') AND typelem = 0 \
    ) o JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace \
    WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
      AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = o.classid AND d.objid = o.objid AND d.deptype = 'e')";
/// Statements that remove what a restore brought into a database that was empty but for these extensions.
const REMOVALS: &str = "SELECT * FROM ( \
      SELECT 1, pg_catalog.format('DROP EVENT TRIGGER IF EXISTS %I', evtname) FROM pg_catalog.pg_event_trigger \
      UNION ALL SELECT 1, pg_catalog.format('DROP PUBLICATION IF EXISTS %I', pubname) FROM pg_catalog.pg_publication \
      UNION ALL SELECT 2, pg_catalog.format('DROP SCHEMA IF EXISTS %I CASCADE', nspname) FROM pg_catalog.pg_namespace n \
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') \
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_extension e WHERE e.extnamespace = n.oid AND e.extname = ANY ($1)) \
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e') \
      UNION ALL SELECT 3, pg_catalog.format('DROP EXTENSION IF EXISTS %I CASCADE', extname) FROM pg_catalog.pg_extension WHERE extname <> ALL ($1) \
      UNION ALL SELECT 4, pg_catalog.format('DROP %s IF EXISTS %s CASCADE', \
          CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, \
          c.oid::pg_catalog.regclass) FROM pg_catalog.pg_class c WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public') AND relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') \
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e') \
      UNION ALL SELECT 5, pg_catalog.format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::pg_catalog.regprocedure) FROM pg_catalog.pg_proc p WHERE pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public') \
          AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') \
      UNION ALL SELECT 6, pg_catalog.format('DROP TYPE IF EXISTS %s CASCADE', t.oid::pg_catalog.regtype) FROM pg_catalog.pg_type t WHERE typnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'public') AND typtype IN ('e', 'd', 'r', 'b') \
          AND typelem = 0 AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e') \
      UNION ALL SELECT 7, pg_catalog.format('SELECT pg_catalog.lo_unlink(%L)', oid) FROM pg_catalog.pg_largeobject_metadata \
    ) AS removals (step, statement) ORDER BY step";

/// Where the rows go, and what there was before.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// What is filled.
    database: Database,
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    /// It lives on; only tables are added or replaced.
    Living,
    /// It was there, with nothing but these extensions.
    Empty { extensions: Vec<String> },
    /// This restore made it.
    New,
    /// It is to take this one's place.
    Instead { of: Box<Database> },
}

impl Place {
    /// A database that lives on.
    pub(super) async fn living(database: &Database) -> Result<Self> {
        Ok(Self { database: database.clone(), way: Way::Living })
    }

    /// A place for a whole snapshot.
    pub(super) async fn prepare(database: &Database, clean: bool) -> Result<Self> {
        if let Some(vacant) = Self::vacant(database).await? {
            if matches!(vacant.way, Way::New) {
                create(database, None).await?;
            }
            return Ok(vacant);
        }
        if !clean {
            return Err(Error::new(ErrorKind::TargetNotEmpty, format!("{} is not empty", database.location()))
                .with_next_step("restore into a new or empty database, or say --clean to replace this one"));
        }
        let staging = database.sibling(&short(database.name(), STAGING));
        let (through, mut session) = maintenance(database).await?;
        let parked = short(database.name(), REPLACED);
        let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1)")
            .bind(&parked)
            .fetch_one(&mut session)
            .await
            .map_err(|e| through.failed("could not be read", e))?;
        if left {
            return Err(Error::new(
                ErrorKind::TargetNotEmpty,
                format!("an earlier restore left {parked}, the database that {} replaced", database.name()),
            )
            .with_next_step("look whether anything in it is still needed, and drop it"));
        }
        // Left by a restore that was killed; nobody else has such a name.
        through
            .run(&mut session, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(staging.name())))
            .await?;
        close(session).await;
        create(&staging, Some(database)).await?;
        Ok(Self { database: staging, way: Way::Instead { of: Box::new(database.clone()) } })
    }

    /// A database that holds nothing, or is not there yet.
    pub(super) async fn vacant(database: &Database) -> Result<Option<Self>> {
        let mut session = match database.connect().await {
            Ok(session) => session,
            Err(e) if is_missing(&e) => return Ok(Some(Self { database: database.clone(), way: Way::New })),
            Err(e) => return Err(e),
        };
        let mut vacant = None;
        if is_vacant(database, &mut session).await? {
            let extensions = sqlx::query_scalar("SELECT extname::text FROM pg_catalog.pg_extension")
                .fetch_all(&mut session)
                .await
                .map_err(|e| database.failed("could not be read", e))?;
            vacant = Some(Self { database: database.clone(), way: Way::Empty { extensions } });
        }
        close(session).await;
        Ok(vacant)
    }

    /// What is filled.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// After an error: what there was before is all there is.
    pub(super) async fn take_back(&self) -> Result<()> {
        match &self.way {
            // All of it was one transaction, which ended with its session.
            Way::Living => Ok(()),
            Way::Empty { extensions } => empty(&self.database, extensions).await,
            Way::New | Way::Instead { .. } => drop_database(&self.database).await,
        }
    }

    /// The restored database takes its place.
    ///
    /// What could not be tidied up afterwards is told.
    pub(super) async fn put_in_place(&self) -> Result<Option<String>> {
        let Way::Instead { of: old } = &self.way else { return Ok(None) };
        if let Err(e) = swap(old, &self.database).await {
            // Whatever broke may have broken the session too: another one lets the old database's users in again.
            let by_hand =
                format!("let its users in again: ALTER DATABASE {} ALLOW_CONNECTIONS true", identifier(old.name()));
            let why = format!("{e}; what was to take its place is there as {}", self.database.name());
            let e = Error::new(e.kind(), why).with_retry(e.is_retryable());
            return Err(if allow_connections(old).await.is_err() { e.with_next_step(by_hand) } else { e });
        }
        let parked = old.sibling(&short(old.name(), REPLACED));
        let gone = async {
            // Its subscriptions have to go first, and for that somebody has to get in.
            allow_connections(&parked).await?;
            drop_database(&parked).await
        };
        Ok(gone.await.err().map(|e| format!("the replaced database is still there, as {}: {e}", parked.name())))
    }

    /// Removes what was restored, from a place that was vacant before.
    pub(super) async fn remove(&self) -> Result<()> {
        match &self.way {
            Way::Living | Way::Instead { .. } => Err(Error::new(
                ErrorKind::Internal,
                format!("{} was not empty before, so nothing is removed from it", self.database.location()),
            )),
            Way::Empty { extensions } => empty(&self.database, extensions).await,
            Way::New => drop_database(&self.database).await,
        }
    }
}

/// Whether the database that was asked for does not exist.
pub(super) fn is_missing(e: &Error) -> bool {
    state_of(e).as_deref() == Some("3D000")
}

/// Whether there is nothing of a user's in it; extensions may be.
async fn is_vacant(database: &Database, session: &mut PgConnection) -> Result<bool> {
    let sql = format!(
        "SELECT ({OBJECTS}) = 0 \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_largeobject_metadata) \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_namespace n WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public') \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_extension e WHERE e.extnamespace = n.oid) \
             AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND d.objid = n.oid AND d.deptype = 'e'))"
    );
    sqlx::query_scalar(trusted(sql)).fetch_one(session).await.map_err(|e| database.failed("could not be read", e))
}

/// A name with an ending, within the server's 63 bytes.
fn short(name: &str, ending: &str) -> String {
    let mut end = name.len().min(63 - ending.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &name[..end])
}

/// A session with the same server that is not in `database`.
async fn maintenance(database: &Database) -> Result<(Database, PgConnection)> {
    let mut last = None;
    for name in MAINTENANCE.iter().filter(|name| **name != database.name()) {
        let other = database.sibling(name);
        match other.connect().await {
            Ok(session) => return Ok((other, session)),
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| Error::new(ErrorKind::Target, "there is no database to work from")))
}

/// Makes an empty database, with the encoding and collation of another.
async fn create(database: &Database, like: Option<&Database>) -> Result<()> {
    let (through, mut session) = maintenance(database).await?;
    let failed = |e| through.failed("could not be read", e);
    let mut sql = format!("CREATE DATABASE {} TEMPLATE template0", identifier(database.name()));
    if let Some(like) = like {
        let row = sqlx::query(
            "SELECT pg_catalog.pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text, d ->> 'datlocprovider', \
               COALESCE(d ->> 'datlocale', d ->> 'daticulocale') \
             FROM pg_catalog.pg_database, LATERAL (SELECT pg_catalog.to_jsonb(pg_database) AS d) j WHERE datname = $1",
        )
        .bind(like.name())
        .fetch_one(&mut session)
        .await
        .map_err(failed)?;
        let text = |at: usize| row.try_get::<Option<String>, _>(at).map_err(failed);
        let part = |keyword: &str, value: Option<String>| {
            value.map_or_else(String::new, |v| format!(" {keyword} {}", literal(&v)))
        };
        sql += &part("ENCODING", text(0)?);
        sql += &part("LC_COLLATE", text(1)?);
        sql += &part("LC_CTYPE", text(2)?);
        match text(3)?.as_deref() {
            Some("i") => sql += &format!(" LOCALE_PROVIDER icu{}", part("ICU_LOCALE", text(4)?)),
            Some("b") => sql += &format!(" LOCALE_PROVIDER builtin{}", part("BUILTIN_LOCALE", text(4)?)),
            _ => {}
        }
    } else {
        sql += " ENCODING 'UTF8'";
    }
    let made = through.run(&mut session, &sql).await.map_err(|e| {
        Error::new(ErrorKind::Target, format!("{} cannot be made: {e}", database.location()))
            .with_next_step("give the user the right CREATEDB, or make an empty database and restore into that")
    });
    close(session).await;
    made
}

async fn allow_connections(database: &Database) -> Result<()> {
    let (through, mut session) = maintenance(database).await?;
    let sql = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS true", identifier(database.name()));
    let allowed = through.run(&mut session, &sql).await;
    close(session).await;
    allowed
}

async fn drop_database(database: &Database) -> Result<()> {
    // A database cannot go while subscriptions are in it. The slot at the other end is not theirs to remove.
    if let Ok(mut session) = database.connect().await {
        drop_subscriptions(database, &mut session).await?;
        close(session).await;
    }
    let (through, mut session) = maintenance(database).await?;
    wait_for_creation(&through, &mut session, database.name()).await?;
    let dropped = through
        .run(&mut session, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(database.name())))
        .await;
    close(session).await;
    dropped
}

/// A server ends what it has begun though nobody waits for it any more: a database that it is just making appears later.
async fn wait_for_creation(through: &Database, session: &mut PgConnection, name: &str) -> Result<()> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_stat_activity WHERE state = 'active' AND starts_with(query, $1))";
    for _ in 0..CREATION_LOOKS {
        let making: bool = sqlx::query_scalar(sql)
            .bind(format!("CREATE DATABASE {} ", identifier(name)))
            .fetch_one(&mut *session)
            .await
            .map_err(|e| through.failed("could not be read", e))?;
        if !making {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn drop_subscriptions(database: &Database, session: &mut PgConnection) -> Result<()> {
    // Only a superuser can have any, or see them.
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT pg_catalog.quote_ident(subname) FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid \
         WHERE d.datname = pg_catalog.current_database() AND pg_catalog.has_column_privilege('pg_catalog.pg_subscription', 'subname', 'SELECT')",
    )
    .fetch_all(&mut *session)
    .await
    .map_err(|e| database.failed("could not be read", e))?;
    for name in names {
        for sql in
            ["ALTER SUBSCRIPTION {} DISABLE", "ALTER SUBSCRIPTION {} SET (slot_name = NONE)", "DROP SUBSCRIPTION {}"]
        {
            database.run(session, &sql.replace("{}", &name)).await?;
        }
    }
    Ok(())
}

/// Removes everything but these extensions.
async fn empty(database: &Database, extensions: &[String]) -> Result<()> {
    let mut session = database.connect().await?;
    let failed = |e| database.failed("could not be emptied", e);
    let removals: Vec<String> = sqlx::query(REMOVALS)
        .bind(extensions)
        .fetch_all(&mut session)
        .await
        .and_then(|rows| rows.iter().map(|row| row.try_get(1)).collect())
        .map_err(failed)?;
    drop_subscriptions(database, &mut session).await?;
    for removal in removals {
        database.run(&mut session, &removal).await?;
    }
    if !is_vacant(database, &mut session).await? {
        return Err(Error::new(ErrorKind::Target, format!("{} could not be emptied altogether", database.location()))
            .with_next_step("drop the database and make it anew"));
    }
    close(session).await;
    Ok(())
}

/// `new` takes the name, owner, rights and settings of `old`, which is put aside. On an error `old` has its name.
async fn swap(old: &Database, new: &Database) -> Result<()> {
    let (through, mut session) = maintenance(old).await?;
    let failed = |e| through.failed("could not be read", e);
    let (was, is) = (identifier(old.name()), identifier(new.name()));
    let parked = identifier(&short(old.name(), REPLACED));
    let settings: Vec<String> =
        sqlx::query_scalar(SETTINGS).bind(old.name()).bind(new.name()).fetch_all(&mut session).await.map_err(failed)?;
    for setting in settings {
        through.run(&mut session, &setting).await?;
    }
    through.run(&mut session, &format!("ALTER DATABASE {was} WITH ALLOW_CONNECTIONS false")).await?;
    leave(&through, &mut session, old.name()).await?;
    // Both names in one transaction: at no moment is there no database of that name.
    let both = format!("BEGIN; ALTER DATABASE {was} RENAME TO {parked}; ALTER DATABASE {is} RENAME TO {was}; COMMIT");
    through.run(&mut session, &both).await?;
    close(session).await;
    Ok(())
}

/// Ends all sessions of a database that takes no new ones.
async fn leave(through: &Database, session: &mut PgConnection, name: &str) -> Result<()> {
    let began = std::time::Instant::now();
    loop {
        let left: i64 = sqlx::query_scalar(
            "SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE datname = $1",
        )
        .bind(name)
        .fetch_one(&mut *session)
        .await
        .map_err(|e| through.failed("could not end the sessions of the database to replace", e))?;
        if left == 0 {
            return Ok(());
        }
        if began.elapsed() > LEAVE {
            return Err(Error::new(
                ErrorKind::Target,
                format!("{left} sessions of {name} do not end; it was not replaced"),
            )
            .with_next_step("stop what uses the database, and restore again"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Statements that give database `$2` what `$1` has: owner, rights, settings, comment, limit.
const SETTINGS: &str = "WITH old AS (SELECT * FROM pg_catalog.pg_database WHERE datname = $1) \
    SELECT statement FROM ( \
      SELECT 1, pg_catalog.format('ALTER DATABASE %I WITH CONNECTION LIMIT %s', $2, datconnlimit) FROM old \
      UNION ALL SELECT 2, pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC', $2) FROM old WHERE datacl IS NOT NULL \
      UNION ALL SELECT 3, pg_catalog.format('GRANT %s ON DATABASE %I TO %s%s', a.privilege_type, $2, \
          CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(r.rolname) END, \
          CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
        FROM old, LATERAL pg_catalog.aclexplode(datacl) a LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE a.grantee <> datdba \
      UNION ALL SELECT 4, CASE WHEN s.setrole = 0 THEN pg_catalog.format('ALTER DATABASE %I', $2) \
            ELSE pg_catalog.format('ALTER ROLE %I IN DATABASE %I', r.rolname, $2) END \
          || pg_catalog.format(' SET %I TO ', pg_catalog.split_part(c, '=', 1)) \
          || CASE WHEN pg_catalog.split_part(c, '=', 1) IN ('search_path', 'temp_tablespaces', 'session_preload_libraries', 'local_preload_libraries') \
               THEN pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) \
               ELSE pg_catalog.quote_literal(pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1)) END \
        FROM old JOIN pg_catalog.pg_db_role_setting s ON s.setdatabase = old.oid LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, \
          LATERAL pg_catalog.unnest(s.setconfig) c \
      UNION ALL SELECT 5, pg_catalog.format('COMMENT ON DATABASE %I IS %L', $2, d.description) \
        FROM old JOIN pg_catalog.pg_shdescription d ON d.objoid = old.oid AND d.classoid = 'pg_catalog.pg_database'::pg_catalog.regclass \
      UNION ALL SELECT 6, pg_catalog.format('ALTER DATABASE %I OWNER TO %I', $2, r.rolname) FROM old JOIN pg_catalog.pg_roles r ON r.oid = datdba \
    ) AS settings (step, statement) ORDER BY step";
