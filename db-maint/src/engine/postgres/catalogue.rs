//! Tables, indexes, foreign keys and sequences, from the catalogue. No table is opened, so no lock of one is waited for: sizes
//! are those that the last vacuum or analysis wrote down. Sequences are, as whoever asks them does.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Error, Row};

use super::natural;
use crate::capability::Version;
use crate::ident::trusted;
use crate::schema::{Counter, ForeignKey, Index, KeyPart, Purpose, Schema, State, Table, TableName};
use crate::table::POSTGRES_OURS as OURS;

pub(super) async fn read(session: &mut PgConnection, version: Version) -> Result<Schema, Error> {
    Ok(Schema {
        tables: tables(session).await?,
        indexes: indexes(session, version).await?,
        foreign_keys: foreign_keys(session).await?,
    })
}

async fn tables(session: &mut PgConnection) -> Result<Vec<Table>, Error> {
    let sql = format!(
        "SELECT n.nspname::text, c.relname::text, c.relispartition, COALESCE(a.amname::text, ''), \
           CASE WHEN c.relkind = 'r' AND c.reltuples >= 0 THEN c.reltuples::int8 END, \
           (c.relpages::int8 + COALESCE(t.relpages, 0)) * current_setting('block_size')::int8 \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am a ON a.oid = c.relam \
         LEFT JOIN pg_class t ON t.oid = c.reltoastrelid WHERE c.relkind IN ('r', 'p') AND {OURS}"
    );
    let table = |row: PgRow| {
        Ok(Table {
            name: TableName::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?),
            is_part: row.try_get(2)?,
            engine: row.try_get(3)?,
            rows: row.try_get::<Option<i64>, _>(4)?.map(natural),
            bytes: row.try_get::<Option<i64>, _>(5)?.map(natural),
        })
    };
    sqlx::query(trusted(sql)).persistent(false).fetch_all(session).await?.into_iter().map(table).collect()
}

async fn indexes(session: &mut PgConnection, version: Version) -> Result<Vec<Index>, Error> {
    let nulls_equal = if version.major >= 15 { "i.indnullsnotdistinct" } else { "false" };
    // Keys as columns' names or expressions' texts; beside each what it compares by. Somebody who holds the lock that a build
    // holds may be building: an autovacuum holds it too, and then the answer has to wait.
    let sql = format!(
        "SELECT n.nspname::text, t.relname::text, c.relname::text, a.amname::text, \
           ARRAY(SELECT COALESCE(att.attname::text, pg_get_indexdef(i.indexrelid, k.n::int4, true)) \
             FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n) \
             LEFT JOIN pg_attribute att ON att.attrelid = i.indrelid AND att.attnum = k.att AND k.att <> 0 ORDER BY k.n), \
           string_to_array(i.indkey::text, ' '), i.indnkeyatts::int4, \
           ARRAY(SELECT concat_ws(' ', cl, co, op) FROM unnest(i.indclass::oid[], i.indcollation::oid[], i.indoption::int2[]) \
             WITH ORDINALITY o(cl, co, op, n) ORDER BY n), \
           pg_get_expr(i.indpred, i.indrelid), i.indisunique, {nulls_equal}, i.indisprimary, \
           i.indisexclusion OR con.oid IS NOT NULL, i.indisreplident, i.indisvalid AND i.indisready, \
           NOT (i.indisvalid AND i.indisready) AND EXISTS (SELECT FROM pg_locks l WHERE l.relation = i.indrelid AND l.granted \
             AND l.mode = 'ShareUpdateExclusiveLock' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())), \
           c.relkind = 'I', c.relispartition, c.relpages::int8 * current_setting('block_size')::int8, s.idx_scan, \
           pg_get_indexdef(i.indexrelid) \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid \
         JOIN pg_namespace n ON n.oid = t.relnamespace JOIN pg_am a ON a.oid = c.relam \
         LEFT JOIN pg_stat_user_indexes s ON s.indexrelid = i.indexrelid \
         LEFT JOIN pg_constraint con ON con.conindid = i.indexrelid AND con.contype IN ('p', 'u', 'x') \
         WHERE t.relkind IN ('r', 'p', 'm') AND {}",
        OURS.replace("c.oid", "t.oid")
    );
    sqlx::query(trusted(sql)).persistent(false).fetch_all(session).await?.iter().map(index).collect()
}

fn index(row: &PgRow) -> Result<Index, Error> {
    let whats: Vec<String> = row.try_get(4)?;
    let columns: Vec<String> = row.try_get(5)?;
    let key_length = usize::try_from(row.try_get::<i32, _>(6)?).unwrap_or(0);
    let orders: Vec<String> = row.try_get(7)?;
    let mut keys: Vec<KeyPart> = Vec::new();
    let mut included = Vec::new();
    for (at, what) in whats.into_iter().enumerate() {
        if at >= key_length {
            included.push(what);
            continue;
        }
        let is_expression = columns.get(at).is_some_and(|c| c == "0");
        let order = orders.get(at).cloned();
        let order = order.ok_or_else(|| Error::Protocol("an index has more columns than ways to order them".into()))?;
        keys.push(KeyPart { what, is_expression, order, prefix: None });
    }
    let (primary, constraint, identity): (bool, bool, bool) = (row.try_get(11)?, row.try_get(12)?, row.try_get(13)?);
    let (valid, building): (bool, bool) = (row.try_get(14)?, row.try_get(15)?);
    Ok(Index {
        table: TableName::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?),
        name: row.try_get(2)?,
        method: row.try_get(3)?,
        keys,
        included,
        predicate: row.try_get(8)?,
        unique: row.try_get(9)?,
        nulls_equal: row.try_get(10)?,
        purpose: match (primary, constraint, identity) {
            (true, ..) => Purpose::Primary,
            (_, true, _) => Purpose::Constraint,
            (_, _, true) => Purpose::Identity,
            _ => Purpose::Plain,
        },
        state: match (valid, building) {
            (true, _) => State::Valid,
            (false, true) => State::Building,
            (false, false) => State::Invalid,
        },
        visible: true,
        is_partitioned: row.try_get(16)?,
        is_part: row.try_get(17)?,
        bytes: row.try_get::<Option<i64>, _>(18)?.map(natural),
        scans: row.try_get::<Option<i64>, _>(19)?.map(natural),
        counted_since: None,
        definition: row.try_get(20)?,
    })
}

async fn foreign_keys(session: &mut PgConnection) -> Result<Vec<ForeignKey>, Error> {
    // What a partition has from its parent is the parent's.
    let sql = format!(
        "SELECT k.conname::text, n.nspname::text, c.relname::text, \
           ARRAY(SELECT att.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(num, at) \
             JOIN pg_attribute att ON att.attrelid = k.conrelid AND att.attnum = u.num ORDER BY u.at), \
           fn.nspname::text, f.relname::text, \
           k.convalidated AND NOT EXISTS (SELECT FROM pg_trigger g WHERE g.tgconstraint = k.oid AND g.tgenabled <> 'O'), \
           ARRAY(SELECT att.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(num, at) \
             JOIN pg_attribute att ON att.attrelid = k.confrelid AND att.attnum = u.num ORDER BY u.at) \
         FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace fn ON fn.oid = f.relnamespace \
         WHERE k.contype = 'f' AND k.conparentid = 0 AND {OURS}"
    );
    let key = |row: PgRow| {
        Ok(ForeignKey {
            name: row.try_get(0)?,
            table: TableName::new(row.try_get::<String, _>(1)?, row.try_get::<String, _>(2)?),
            columns: row.try_get(3)?,
            to: TableName::new(row.try_get::<String, _>(4)?, row.try_get::<String, _>(5)?),
            validated: row.try_get(6)?,
            to_columns: row.try_get(7)?,
        })
    };
    sqlx::query(trusted(sql)).persistent(false).fetch_all(session).await?.into_iter().map(key).collect()
}

/// Sequences, each with the columns that it fills: those that own it, and those whose default asks it.
pub(super) async fn counters(session: &mut PgConnection) -> Result<Vec<Counter>, Error> {
    let sql = format!(
        "SELECT n.nspname || '.' || c.relname, tn.nspname || '.' || t.relname || '.' || a.attname, \
           CASE a.atttypid WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 END::int8, \
           s.seqmax, s.seqmin, s.seqincrement, s.seqcycle, \
           has_sequence_privilege(c.oid, 'USAGE, SELECT') AS readable, \
           CASE WHEN has_sequence_privilege(c.oid, 'USAGE, SELECT') AND NOT (c.relpersistence = 'u' AND pg_is_in_recovery()) \
             THEN pg_sequence_last_value(c.oid) END \
         FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN (SELECT d.objid AS sequence, d.refobjid AS relation, d.refobjsubid AS number FROM pg_depend d \
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0 \
           UNION SELECT d.refobjid, ad.adrelid, ad.adnum FROM pg_depend d JOIN pg_attrdef ad ON ad.oid = d.objid \
             WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass) u ON u.sequence = c.oid \
         LEFT JOIN pg_class t ON t.oid = u.relation AND NOT t.relispartition LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace \
         LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = u.number \
         WHERE (u.relation IS NULL OR t.oid IS NOT NULL) AND {OURS}"
    );
    let mut counters = Vec::new();
    for row in sqlx::query(trusted(sql)).persistent(false).fetch_all(session).await? {
        let sequence: String = row.try_get(0)?;
        let column: Option<String> = row.try_get(1)?;
        let of_type: Option<i64> = row.try_get(2)?;
        let (max, min, increment): (i64, i64, i64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
        let last: Option<i64> = row.try_get(8)?;
        // Going down is going up on the other side of zero.
        let (last, end) = if increment < 0 {
            (last.map(|n| -i128::from(n)), -i128::from(min))
        } else {
            (last.map(i128::from), i128::from(max))
        };
        let (limit, limited_by) = match of_type.map(i128::from) {
            Some(of_type) if of_type < end => (of_type, "the column's type".to_owned()),
            _ => (end, format!("the sequence {sequence}")),
        };
        let readable: bool = row.try_get("readable")?;
        counters.push(Counter {
            object: column.unwrap_or(sequence),
            // One that was never asked has given out nothing.
            last: if readable { Some(last.unwrap_or(0)) } else { None },
            limit,
            limited_by,
            cycles: row.try_get(6)?,
        });
    }
    Ok(counters)
}
