//! What there is in the database: tables, sequences, large objects.

use std::collections::HashMap;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::error::Error;
use crate::sql::{identifier, literal, trusted};
use crate::tier::Tier;

/// Tables, partitions, sequences and foreign tables outside of the system's schemas; of extensions only the tables
/// whose rows belong to the user.
const LIST: &str = "SELECT c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, \
      ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a \
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum), \
      e.extname IS NOT NULL, x.condition, c.relpersistence = 'u' AND pg_catalog.pg_is_in_recovery() \
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
    /// Whether this server has the definition alone: it is a standby, and what is unlogged never comes here.
    absent: bool,
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

    /// The statements that read it part by part: from each of these pages to the next, and from the last to its end.
    fn copy_out_from(&self, pages: impl Iterator<Item = i64>) -> Vec<String> {
        let columns = self.columns.iter().map(|c| identifier(c)).collect::<Vec<_>>().join(", ");
        let begin: Vec<i64> = pages.collect();
        let end = begin.iter().skip(1).map(|page| format!(" AND ctid < '({page},0)'")).chain([String::new()]);
        let part = |(page, end): (&i64, String)| {
            format!("COPY (SELECT {columns} FROM ONLY {} WHERE ctid >= '({page},0)'{end}) TO STDOUT", self.qualified())
        };
        begin.iter().zip(end).map(part).collect()
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

    fn has_content(&self) -> bool {
        self.is_users() && !self.absent
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
                absent: row.try_get(7)?,
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
        self.0.iter().filter(|r| r.kind == "r" && r.has_content())
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().filter(|r| r.kind == "S" && r.has_content())
    }

    /// What has content that this server does not have.
    pub(super) fn absent(&self) -> impl Iterator<Item = &Relation> {
        self.0.iter().filter(|r| r.is_users() && r.absent)
    }

    /// The tables with rows that belong to a tier: what it names, their parts, and where foreign keys lead.
    pub(super) async fn of_tier<'a>(
        &'a self,
        tier: &Tier,
        session: &mut PgConnection,
    ) -> Result<Result<Vec<&'a Relation>, Error>, sqlx::Error> {
        let tables: Vec<&Relation> = self.lockable().collect();
        let place: HashMap<i64, usize> = tables.iter().enumerate().map(|(n, r)| (r.oid, n)).collect();
        let mut needs = Vec::new();
        for row in sqlx::query(NEEDS).fetch_all(session).await? {
            if let (Some(from), Some(to)) = (place.get(&row.try_get(0)?), place.get(&row.try_get(1)?)) {
                needs.push((*from, *to));
            }
        }
        let names: Vec<String> = tables.iter().map(|r| r.subject()).collect();
        Ok(tier.members(&names, &needs).map(|members| {
            tables
                .into_iter()
                .zip(members)
                .filter(|(r, is_member)| *is_member && r.kind == "r" && r.has_content())
                .map(|(r, _)| r)
                .collect()
        }))
    }
}

/// Foreign keys, and what a partitioned or inherited table is made of.
const NEEDS: &str = "SELECT conrelid::int8, confrelid::int8 FROM pg_catalog.pg_constraint WHERE contype = 'f' \
    UNION SELECT inhparent::int8, inhrelid::int8 FROM pg_catalog.pg_inherits";

/// How large tables are, by object id.
#[derive(Debug)]
pub(super) struct Sizes(HashMap<i64, Size>);

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    /// With what is stored outside of the rows.
    bytes: i64,
    /// Pages of the rows themselves, where they lie in pages one after the other.
    pages: i64,
}

/// Tables from this many pages on are worth reading in parts.
const PARTED_FROM: i64 = 2048;
/// Pages of a part: some 4 MiB.
const PART: i64 = 512;
/// The first version that reads from one page to another without looking at the others.
const RANGE_SCANS: u32 = 14;

pub(super) async fn sizes(tables: &[&Relation], session: &mut PgConnection) -> Result<Sizes, sqlx::Error> {
    let oids: Vec<i64> = tables.iter().map(|r| r.oid).collect();
    let rows = sqlx::query(
        "SELECT c.oid::int8, pg_catalog.pg_table_size(c.oid), CASE a.amname WHEN 'heap' THEN \
           pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8 ELSE 0 END \
         FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam WHERE c.oid = ANY ($1::int8[]::pg_catalog.oid[])",
    )
    .bind(oids)
    .fetch_all(session)
    .await?;
    let size = |row: &sqlx::postgres::PgRow| {
        let number = |at| row.try_get::<Option<i64>, _>(at).map(Option::unwrap_or_default);
        Ok((row.try_get(0)?, Size { bytes: number(1)?, pages: number(2)? }))
    };
    rows.iter().map(size).collect::<Result<_, _>>().map(Sizes)
}

impl Sizes {
    /// Bytes on disk.
    pub(super) fn bytes(&self, table: &Relation) -> i64 {
        self.0.get(&table.oid).map_or(0, |s| s.bytes)
    }

    /// The statements that read a table in parts, where that is worth it: where one session would still be reading it
    /// when the others are through with everything else.
    pub(super) fn parts(&self, table: &Relation, major: u32, connections: usize) -> Option<Vec<String>> {
        let size = self.0.get(&table.oid)?;
        let all: i64 = self.0.values().map(|s| s.bytes).sum();
        let share = all / i64::try_from(connections).unwrap_or(i64::MAX);
        let worth_it = connections > 1 && major >= RANGE_SCANS && size.pages >= PARTED_FROM && size.bytes > share;
        // Of extensions' tables only some rows count; without columns there is nothing to select.
        (worth_it && table.condition.is_none() && !table.columns.is_empty())
            .then(|| table.copy_out_from((0..).map(|n| n * PART).take_while(|page| *page < size.pages)))
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
