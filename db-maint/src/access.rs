//! Who may do what in the database: the server's roles with all that they inherit, who can read and change the tables that not
//! everybody may see, and who the shop's own administrators are. What a policy says of it is held against what is so.

mod mysql;
mod postgres;
mod sqlite;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::batch::time;
use crate::batch::work::{Written, expired, no_numbers};
use crate::capability::Flavour;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::finding::{Finding, Severity};
use crate::policy::condition::enclosed;
use crate::policy::{AccessRule, AdminRule, SensitiveTable};
use crate::schema::TableName;
use crate::session::Session;
use crate::shop::ask;
use crate::statement::Piece;
use crate::table::Table;

const ID: &str = "access";
/// How long one question may take.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(60);
/// So many administrators at most; a shop with more has customers among them.
const MOST: usize = 1_000;

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessReport {
    /// Which database, without password.
    pub location: String,
    /// When, by the database's clock.
    pub taken_at: DateTime<Utc>,
    /// Everybody who may log in, and groups of rights that others have.
    pub roles: Vec<Role>,
    /// Each table of the policy with who reaches it.
    pub tables: Vec<TableAccess>,
    /// The shop's own administrators.
    pub admins: Vec<Admin>,
    /// What should not be so, the gravest first.
    pub findings: Vec<Finding>,
    /// What could not be seen, and why: an audit with such a thing is not a clean one.
    pub unknown: Vec<String>,
}

/// Somebody who may log in to the server, or a group of rights.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Role {
    /// As the server writes it: `shop`, `'shop'@'%'`.
    pub name: String,
    /// Whether it may log in.
    pub can_log_in: bool,
    /// What it may do beyond single tables, by its own right or another one's: `superuser`, `FILE`.
    pub powers: Vec<String>,
    /// Whose rights it has too, whether it was given them or those who were.
    pub member_of: Vec<String>,
}

/// Who reaches one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TableAccess {
    /// The table.
    pub table: TableName,
    /// Who may log in and read it, or a part of it.
    pub readers: Vec<Grantee>,
    /// Who may log in and change it.
    pub writers: Vec<Grantee>,
}

/// Somebody who reaches a table, and by what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Grantee {
    /// The role that may log in.
    pub role: String,
    /// By what: its own grant, a role that it is a member of, `PUBLIC`, a view.
    pub by: Vec<String>,
}

/// One of the shop's own administrators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Admin {
    /// What people know the administrator by.
    pub label: String,
    /// When the administrator was here last, as the database writes it.
    pub seen: Option<String>,
    /// Whether that is longer ago than the policy allows, or never was.
    pub is_idle: bool,
}

/// What an engine has read of its roles.
#[derive(Debug, Default)]
struct Seen {
    roles: Vec<Role>,
    tables: Vec<TableAccess>,
    /// What roles may do that are not trusted with everything.
    powers: Vec<Finding>,
    /// What is wrong whoever it is: an account without a password.
    findings: Vec<Finding>,
    unknown: Vec<String>,
}

/// Looks who may do what, and holds it against `rule`. Changes nothing.
///
/// # Errors
/// [`ErrorKind::Config`] where the rule does not fit the schema. What this user may not see is in the report.
pub async fn audit_access(engine: &dyn Engine, rule: &AccessRule, now: Option<DateTime<Utc>>) -> Result<AccessReport> {
    let mut session = engine.session().await?;
    session.limit(LONGEST).await.map_err(|e| session.error("does not take a limit", e))?;
    let taken_at = time(&mut session, now).await?;
    let mut tables = Vec::new();
    for sensitive in &rule.table {
        tables.push(Table::find(&mut session, sensitive.schema.as_deref(), &sensitive.table).await?);
    }
    let mut seen = match session.flavour() {
        Flavour::Postgres => postgres::read(&mut session, &tables).await?,
        Flavour::Mysql | Flavour::MariaDb => mysql::read(&mut session, &tables).await?,
        Flavour::Sqlite => sqlite::read(&engine.location(), &tables),
    };
    // What those who are trusted may do is as it should be.
    let is_trusted = |name: &str| rule.trusted.iter().any(|trusted| is_named(trusted, name));
    let powers = std::mem::take(&mut seen.powers);
    seen.findings.extend(powers.into_iter().filter(|finding| !is_trusted(&finding.object)));
    for (sensitive, access) in rule.table.iter().zip(&seen.tables) {
        seen.findings.extend(judge_table(sensitive, access, &is_trusted));
    }
    let mut admins = Vec::new();
    if let Some(rule) = &rule.admins {
        admins = read_admins(&mut session, rule, taken_at).await?;
        seen.findings.extend(judge_admins(rule, &admins));
    }
    session.close().await;
    seen.findings.sort_by(|a, b| (b.severity, &a.object, &a.summary).cmp(&(a.severity, &b.object, &b.summary)));
    let Seen { mut roles, tables, findings, unknown, .. } = seen;
    roles.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(AccessReport { location: engine.location(), taken_at, roles, tables, admins, findings, unknown })
}

/// Whether a rule fits the schema.
pub(crate) async fn fits(session: &mut Session, rule: &AccessRule, now: DateTime<Utc>) -> Result<()> {
    for table in &rule.table {
        Table::find(session, table.schema.as_deref(), &table.table).await?;
    }
    match &rule.admins {
        Some(rule) => read_admins(session, rule, now).await.map(drop),
        None => Ok(()),
    }
}

/// Whether a policy means this role: `shop` means `'shop'@'%'` and every other host's.
fn is_named(name: &str, role: &str) -> bool {
    name == role || role.strip_prefix('\'').and_then(|r| r.split_once("'@'")).is_some_and(|(user, _)| user == name)
}

fn judge_table(rule: &SensitiveTable, access: &TableAccess, is_trusted: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let told = |who: &Grantee, what: &str, severity: Severity| {
        Finding::new(ID, who.role.clone(), format!("it may {what} {}, by {}", access.table, who.by.join(", ")))
            .severity(severity)
            .evidence("table", access.table.to_string())
            .evidence("by", who.by.clone())
            .remedy("take it away (REVOKE), or name the role in the policy")
    };
    let among = |names: &[String], who: &Grantee| names.iter().any(|name| is_named(name, &who.role));
    let strangers =
        |who: &&Grantee, names: &[&[String]]| !is_trusted(&who.role) && !names.iter().any(|names| among(names, who));
    let writers = access.writers.iter().filter(|who| strangers(who, &[&rule.writers]));
    let mut findings: Vec<Finding> = writers.map(|who| told(who, "change", Severity::Critical)).collect();
    let is_told = |who: &Grantee| findings.iter().any(|f| f.object == who.role);
    let readers = access.readers.iter().filter(|who| strangers(who, &[&rule.readers, &rule.writers]) && !is_told(who));
    let readers: Vec<Finding> = readers.map(|who| told(who, "read", Severity::Warning)).collect();
    findings.extend(readers);
    findings
}

/// The shop's administrators.
async fn read_admins(session: &mut Session, rule: &AdminRule, now: DateTime<Utc>) -> Result<Vec<Admin>> {
    let what = "the rule for administrators";
    let table = Table::find(session, rule.schema.as_deref(), &rule.table).await?;
    let flavour = table.flavour;
    let label = table.column(&rule.label)?.text(flavour, &table.of(&rule.label));
    let condition = match &rule.condition {
        Some(condition) => enclosed(flavour, condition)?,
        None => "1 = 1".to_owned(),
    };
    let (seen, idle) = match &rule.seen {
        Some(column) => {
            let column = table.column(column)?;
            no_numbers(session, &table, column, rule.unit).await?;
            let cutoff = now.checked_sub_signed(rule.idle.delta()).unwrap_or(DateTime::<Utc>::MIN_UTC);
            let idle = expired(&table, column, Written { unit: rule.unit, zone: rule.zone }, cutoff)?;
            let name = table.of(&column.name);
            // Who never was here is not here either.
            (
                column.text(flavour, &name),
                Piece::text(format!("CASE WHEN {name} IS NULL OR (")).piece(&idle).then(") THEN '1' ELSE '0' END"),
            )
        }
        None => ("NULL".to_owned(), Piece::text("'0'")),
    };
    let sql = Piece::text(format!("SELECT {label}, {seen}, ")).piece(&idle).then(format!(
        " FROM {} WHERE {condition} ORDER BY 1 LIMIT {}",
        table.sql(),
        MOST + 1
    ));
    let rows = ask(session, what, &sql).await?;
    if rows.is_empty() {
        return Err(Error::new(ErrorKind::Config, format!("{what} meets no row of {table}: nobody was looked at"))
            .with_next_step("check where = \"…\""));
    }
    if rows.len() > MOST {
        return Err(Error::new(ErrorKind::Config, format!("{what} meets more than {MOST} rows of {table}"))
            .with_next_step("write where = \"role = 'admin'\", or whatever tells them from customers"));
    }
    let admin = |row: Vec<crate::session::Value>| Admin {
        label: row.first().cloned().flatten().unwrap_or_else(|| "(no name)".to_owned()),
        seen: row.get(1).cloned().flatten(),
        is_idle: row.get(2).cloned().flatten().as_deref() == Some("1"),
    };
    Ok(rows.into_iter().map(admin).collect())
}

fn judge_admins(rule: &AdminRule, admins: &[Admin]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for admin in admins {
        let is_expected = |expected: &Vec<String>| expected.iter().any(|name| name.eq_ignore_ascii_case(&admin.label));
        if rule.expected.as_ref().is_some_and(|expected| !is_expected(expected)) {
            findings.push(
                Finding::new(ID, admin.label.clone(), "an administrator of the shop whom nobody has named")
                    .severity(Severity::Critical)
                    .remedy("find out who made this account; take its rights away, or name it in the policy"),
            );
        }
        if admin.is_idle {
            let seen = admin.seen.as_deref().unwrap_or("never");
            findings.push(
                Finding::new(
                    ID,
                    admin.label.clone(),
                    format!("an administrator who was not here for {} (last: {seen})", rule.idle),
                )
                .remedy("close the account where it is not needed any more"),
            );
        }
    }
    for name in rule.expected.iter().flatten() {
        if !admins.iter().any(|admin| admin.label.eq_ignore_ascii_case(name)) {
            findings.push(
                Finding::new(ID, name.clone(), "named as an administrator, and is none")
                    .severity(Severity::Notice)
                    .remedy("take the name out of the policy, or find out who took the rights away"),
            );
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Period;

    fn grantee(role: &str) -> Grantee {
        Grantee { role: role.into(), by: vec!["its own grant".into()] }
    }

    #[test]
    fn who_reaches_a_table_and_is_not_named_is_told_once() {
        let rule = SensitiveTable {
            schema: None,
            table: "payments".into(),
            readers: vec!["report".into()],
            writers: vec!["shop".into()],
        };
        let access = TableAccess {
            table: TableName::new("", "payments"),
            readers: ["'shop'@'%'", "report", "intern", "dba"].map(grantee).to_vec(),
            writers: ["'shop'@'%'", "report", "dba"].map(grantee).to_vec(),
        };
        let findings = judge_table(&rule, &access, &|name| name == "dba");
        let told: Vec<_> = findings.iter().map(|f| (f.object.as_str(), f.severity)).collect();
        assert_eq!(told, [("report", Severity::Critical), ("intern", Severity::Warning)]);
    }

    #[test]
    fn administrators_are_held_against_who_they_should_be() {
        let rule = AdminRule {
            schema: None,
            table: "users".into(),
            label: "email".into(),
            condition: None,
            expected: Some(vec!["Ada@shop.example".into(), "gone@shop.example".into()]),
            seen: None,
            unit: None,
            zone: None,
            idle: Period::new(chrono::TimeDelta::days(90)),
        };
        let admin = |label: &str, is_idle| Admin { label: label.into(), seen: None, is_idle };
        let admins = [admin("ada@shop.example", true), admin("eve@shop.example", false)];
        let told: Vec<_> = judge_admins(&rule, &admins).into_iter().map(|f| (f.object, f.severity)).collect();
        assert_eq!(
            told,
            [
                ("ada@shop.example".to_owned(), Severity::Warning),
                ("eve@shop.example".to_owned(), Severity::Critical),
                ("gone@shop.example".to_owned(), Severity::Notice)
            ]
        );
    }
}
