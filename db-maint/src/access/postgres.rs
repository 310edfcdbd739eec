//! PostgreSQL: roles, what they inherit or may switch to, and what is granted on a table, on what it is partitioned into or
//! inherits from, and on the views over it, and over those.
//!
//! Whether a role may also use the schema is not asked: what is granted on the table counts.

use std::collections::BTreeMap;

use super::{Grantee, ID, Role, Seen, TableAccess};
use crate::capability::Flavour;
use crate::error::Result;
use crate::finding::{Finding, Severity};
use crate::session::{Session, Value};
use crate::statement::{Piece, plain_text};
use crate::table::{Table, sql_name};

/// Roles of the server's own that reach beyond the database, or beyond all grants.
const POWERS: [(&str, Severity); 5] = [
    ("pg_execute_server_program", Severity::Critical),
    ("pg_write_server_files", Severity::Critical),
    ("pg_read_server_files", Severity::Critical),
    ("pg_read_all_data", Severity::Warning),
    ("pg_write_all_data", Severity::Critical),
];

pub(super) async fn read(session: &mut Session, tables: &[Table]) -> Result<Seen> {
    let failed = |session: &Session, e| session.error("does not show its roles", e);
    let mut seen = Seen::default();
    session.begin_reading().await.map_err(|e| failed(session, e))?;
    let rows = session
        .rows(
            "SELECT r.rolname::text, r.rolcanlogin::text, r.rolsuper::text, r.rolcreaterole::text, r.rolreplication::text, \
               r.rolbypassrls::text, COALESCE(r.rolvaliduntil < now(), false)::text, \
               to_json(ARRAY(SELECT m.rolname::text FROM pg_roles m WHERE m.oid <> r.oid AND NOT r.rolsuper \
                 AND pg_has_role(r.oid, m.oid, 'MEMBER') ORDER BY 1))::text, (r.oid = 10)::text \
             FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1",
            &[],
        )
        .await
        .map_err(|e| failed(session, e))?;
    for row in &rows {
        seen.add_role(row);
    }
    let rows = session
        .rows(
            "SELECT n.nspname::text FROM pg_namespace n, aclexplode(n.nspacl) a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE' \
             AND n.nspname !~ '^pg_' ORDER BY 1",
            &[],
        )
        .await
        .map_err(|e| failed(session, e))?;
    for schema in rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
        let quoted = crate::ident::quoted(Flavour::Postgres, &schema);
        seen.findings.push(
            Finding::new(
                ID,
                format!("schema {schema}"),
                "everybody may create tables and functions in it: others may run them",
            )
            .remedy(format!("REVOKE CREATE ON SCHEMA {quoted} FROM PUBLIC")),
        );
    }
    for table in tables {
        let (sql, values) = Piece::text(REACH.0)
            .value(&plain_text(), Some(sql_name(Flavour::Postgres, &table.name)))
            .then(REACH.1)
            .build(Flavour::Postgres);
        let rows = session.rows(&sql, &values).await.map_err(|e| failed(session, e))?;
        seen.tables.push(reached(table, &rows));
    }
    if !tables.is_empty() {
        let sql = format!(
            "SELECT count(*)::text FROM pg_proc c JOIN pg_namespace n ON n.oid = c.pronamespace WHERE c.prosecdef AND {}",
            crate::table::POSTGRES_OURS.replace("'pg_class'", "'pg_proc'")
        );
        let functions = session.one(&sql, &[]).await.map_err(|e| failed(session, e))?;
        if functions.as_deref() != Some("0") {
            seen.unknown.push(format!(
                "what {} functions show and change that run with their owner's rights (SECURITY DEFINER)",
                functions.as_deref().unwrap_or("some")
            ));
        }
    }
    session.roll_back().await.map_err(|e| failed(session, e))?;
    Ok(seen)
}

impl Seen {
    fn add_role(&mut self, row: &[Value]) {
        let is = |at: usize| row.get(at).cloned().flatten().as_deref() == Some("true");
        let Some(name) = row.first().cloned().flatten() else { return };
        let member_of: Vec<String> = match row.get(7).cloned().flatten().map(|json| serde_json::from_str(&json)) {
            Some(Ok(roles)) => roles,
            _ => {
                self.unknown.push(format!("whose rights {name} has too"));
                Vec::new()
            }
        };
        let own = [("superuser", 2), ("CREATEROLE", 3), ("REPLICATION", 4), ("BYPASSRLS", 5)];
        let mut powers: Vec<String> =
            own.iter().filter(|(_, at)| is(*at)).map(|(power, _)| (*power).to_owned()).collect();
        let borrowed = POWERS.iter().filter(|(power, _)| member_of.iter().any(|role| role == power));
        powers.extend(borrowed.map(|(power, _)| (*power).to_owned()));
        let can_log_in = is(1);
        // The one that the server began with has to be.
        let is_first = is(8);
        if can_log_in && !is_first {
            for power in &powers {
                let severity = match power.as_str() {
                    "superuser" => Severity::Critical,
                    "CREATEROLE" | "BYPASSRLS" | "REPLICATION" => Severity::Warning,
                    other => POWERS.iter().find(|(power, _)| *power == other).map_or(Severity::Warning, |(_, s)| *s),
                };
                self.powers.push(
                    Finding::new(ID, name.clone(), format!("it may log in, and has {power}"))
                        .severity(severity)
                        .remedy(
                            "give the shop's own role the rights on its tables alone; trust the others in the policy",
                        ),
                );
            }
        }
        if can_log_in && is(6) {
            self.findings.push(
                Finding::new(ID, name.clone(), "its password is over, and it is still there")
                    .severity(Severity::Notice)
                    .remedy(format!(
                        "DROP ROLE {} where nobody needs it",
                        crate::ident::quoted(Flavour::Postgres, &name)
                    )),
            );
        }
        self.roles.push(Role { name, can_log_in, powers, member_of });
    }
}

/// Who may log in and reaches a table, by which grant: its own, its owner's, everybody's, one on a view over it, or the server's
/// own roles for all data. A member may switch to what it does not inherit.
const REACH: (&str, &str) = (
    "WITH RECURSIVE t AS (SELECT c.oid FROM pg_class c WHERE c.oid = to_regclass(",
    ")), \
     f AS (SELECT t.oid FROM t UNION SELECT CASE WHEN i.inhrelid = f.oid THEN i.inhparent ELSE i.inhrelid END \
       FROM f JOIN pg_inherits i ON f.oid IN (i.inhrelid, i.inhparent)), \
     x AS (SELECT f.oid, NULL::text COLLATE \"C\" AS by FROM f \
       UNION SELECT v.oid, n.nspname || '.' || v.relname FROM x \
         JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = x.oid AND d.classid = 'pg_rewrite'::regclass \
         JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class AND v.relkind IN ('v', 'm') AND v.oid <> x.oid \
           AND NOT COALESCE(v.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1'], false) \
         JOIN pg_namespace n ON n.oid = v.relnamespace), \
     o AS (SELECT c.oid, c.relowner, c.relacl, c.relkind, COALESCE(' on the view ' || x.by, \
         CASE WHEN c.oid <> (SELECT oid FROM t) THEN ' on ' || c.oid::regclass::text END) AS view \
       FROM x JOIN pg_class c ON c.oid = x.oid), \
     g AS (SELECT a.grantee, a.privilege_type, o.view, o.relkind FROM o, aclexplode(COALESCE(o.relacl, acldefault('r', o.relowner))) a \
       UNION SELECT a.grantee, a.privilege_type, o.view, o.relkind FROM o JOIN pg_attribute att ON att.attrelid = o.oid AND att.attacl IS NOT NULL, \
         aclexplode(att.attacl) a \
       UNION SELECT o.relowner, p, o.view, o.relkind FROM o, unnest(ARRAY['SELECT', 'UPDATE']) p \
       UNION SELECT r.oid, CASE r.rolname WHEN 'pg_read_all_data' THEN 'SELECT' ELSE 'UPDATE' END, NULL, 'r' FROM pg_roles r \
         WHERE r.rolname IN ('pg_read_all_data', 'pg_write_all_data')) \
     SELECT l.rolname::text, CASE WHEN l.rolsuper THEN 'superuser' WHEN g.grantee = 0 THEN 'PUBLIC' \
         WHEN g.grantee = l.oid THEN 'its own right' ELSE 'role ' || r.rolname END || COALESCE(g.view, ''), \
       bool_or(g.privilege_type = 'SELECT')::text, \
       bool_or(g.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER') AND g.relkind <> 'm')::text \
     FROM pg_roles l JOIN g ON CASE WHEN l.rolsuper OR g.grantee = 0 THEN true ELSE pg_has_role(l.oid, g.grantee, 'MEMBER') END \
     LEFT JOIN pg_roles r ON r.oid = g.grantee WHERE l.rolcanlogin GROUP BY 1, 2 ORDER BY 1, 2",
);

fn reached(table: &Table, rows: &[Vec<Value>]) -> TableAccess {
    let by = |at: usize| {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.get(at).cloned().flatten().as_deref() == Some("true")) {
            if let [Some(role), Some(by), ..] = row.as_slice() {
                all.entry(role.clone()).or_default().push(by.clone());
            }
        }
        all.into_iter().map(|(role, by)| Grantee { role, by }).collect()
    };
    TableAccess { table: table.name.clone(), readers: by(2), writers: by(3) }
}
