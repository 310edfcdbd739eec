//! What there is in the database: tables, sequences, large objects.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::sql::{identifier, literal, trusted};

/// Tables, partitions, sequences and foreign tables outside of the system's schemas; of extensions only the tables
/// whose rows belong to the user.
const LIST: &str = "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, \
      ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum), \
      e.extname IS NOT NULL, x.condition \
    FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
      AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e' \
    LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid \
    LEFT JOIN LATERAL (SELECT config.condition FROM unnest(e.extconfig, e.extcondition) AS config(relation, condition) \
      WHERE config.relation = c.oid) x ON true \
    WHERE c.relkind IN ('r', 'p', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
    ORDER BY n.nspname, c.relname";

/// A table or sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    pub(super) oid: i64,
    pub(super) schema: String,
    pub(super) name: String,
    kind: String,
    columns: Vec<String>,
    /// Whether an extension made it.
    of_extension: bool,
    /// Which of an extension's rows belong to the user; `None` where none do.
    condition: Option<String>,
}

impl Relation {
    /// Its name as SQL.
    pub(super) fn qualified(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    /// As its owner calls it: without the schema that everybody has.
    pub(super) fn subject(&self) -> String {
        if self.schema == "public" { self.name.clone() } else { format!("{}.{}", self.schema, self.name) }
    }

    fn columns(&self) -> String {
        if self.columns.is_empty() {
            return String::new();
        }
        format!(" ({})", self.columns.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(", "))
    }

    /// The statement that loads it.
    pub(super) fn copy_in(&self) -> String {
        format!("COPY {}{} FROM stdin", self.qualified(), self.columns())
    }

    /// The statement that reads it.
    pub(super) fn copy_out(&self) -> String {
        match self.condition.as_deref().filter(|c| !c.trim().is_empty()) {
            Some(condition) => {
                let columns: Vec<_> = self.columns.iter().map(|c| identifier(c)).collect();
                format!("COPY (SELECT {} FROM ONLY {} {condition}) TO STDOUT", columns.join(", "), self.qualified())
            }
            None => format!("COPY {}{} TO STDOUT", self.qualified(), self.columns()),
        }
    }

    fn is_users(&self) -> bool {
        !self.of_extension || self.condition.is_some()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Relations(Vec<Relation>);

impl Relations {
    pub(super) async fn list(session: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let mut out = Vec::new();
        for row in sqlx::query(LIST).fetch_all(session).await? {
            out.push(Relation {
                oid: row.try_get(0)?,
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
                kind: row.try_get(3)?,
                columns: row.try_get(4)?,
                of_extension: row.try_get(5)?,
                condition: row.try_get(6)?,
            });
        }
        Ok(Self(out))
    }

    /// Whether nothing came, went or changed its columns since `before`.
    pub(super) fn same_tables(&self, before: &Self) -> bool {
        self.0 == before.0
    }

    /// What can be locked: tables, partitioned ones included.
    pub(super) fn lockable(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().filter(|r| matches!(r.kind.as_str(), "r" | "p") && r.is_users())
    }

    /// What has rows of its own: a partitioned table has none.
    pub(super) fn with_rows(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().filter(|r| r.kind == "r" && r.is_users())
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().filter(|r| r.kind == "S" && r.is_users())
    }

    /// Bytes on disk, by object id.
    pub(super) async fn sizes(&self, session: &mut PgConnection) -> Result<HashMap<i64, i64>, sqlx::Error> {
        let oids: Vec<i64> = self.with_rows().map(|r| r.oid).collect();
        let rows =
            sqlx::query("SELECT o, pg_catalog.pg_table_size(o::pg_catalog.oid) FROM pg_catalog.unnest($1::int8[]) o")
                .bind(oids)
                .fetch_all(session)
                .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<Option<i64>, _>(1)?.unwrap_or(0)))).collect()
    }
}

/// The query whose lines set the sequences to their present values. Sequences stand outside of snapshots: what is read
/// is at least what the rows need.
pub(super) fn sequence_values(sequences: &[&Relation]) -> String {
    let each: Vec<String> = sequences
        .iter()
        .map(|s| {
            let name = literal(&literal(&s.qualified()));
            format!(
                "SELECT pg_catalog.format('SELECT pg_catalog.setval(%s, %s, %s);', {name}, last_value, is_called::pg_catalog.text) FROM {}",
                s.qualified()
            )
        })
        .collect();
    each.join(" UNION ALL ")
}

/// A large object: its number, and who owns and may use it.
#[derive(Debug)]
pub(super) struct LargeObject {
    pub(super) oid: i64,
    pub(super) ownership: String,
}

pub(super) async fn large_objects(session: &mut PgConnection) -> Result<Vec<LargeObject>, sqlx::Error> {
    // The owner's own rights are left out: they come with the owner.
    let sql = "SELECT m.oid::int8, pg_catalog.format(E'ALTER LARGE OBJECT %s OWNER TO %I;\\n', m.oid, o.rolname) || \
          COALESCE((SELECT pg_catalog.string_agg(pg_catalog.format(E'GRANT %s ON LARGE OBJECT %s TO %s%s;\\n', \
              a.privilege_type, m.oid, CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(g.rolname) END, \
              CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '' ORDER BY a.n) \
            FROM pg_catalog.aclexplode(m.lomacl) WITH ORDINALITY a(grantor, grantee, privilege_type, is_grantable, n) \
            LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee WHERE a.grantee <> m.lomowner), '') || \
          COALESCE((SELECT pg_catalog.format(E'COMMENT ON LARGE OBJECT %s IS %L;\\n', m.oid, d.description) \
            FROM pg_catalog.pg_description d WHERE d.objoid = m.oid AND d.objsubid = 0 \
              AND d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass), '') \
        FROM pg_catalog.pg_largeobject_metadata m JOIN pg_catalog.pg_roles o ON o.oid = m.lomowner ORDER BY m.oid";
    let mut out = Vec::new();
    for row in sqlx::query(trusted(sql)).fetch_all(session).await? {
        out.push(LargeObject { oid: row.try_get(0)?, ownership: row.try_get(1)? });
    }
    Ok(out)
}
