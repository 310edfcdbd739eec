//! MySQL and MariaDB: accounts, the roles that they were given, and what is granted on everything, on the schema, on a table or on
//! columns of it. What is not followed (views and routines with their owner's rights, proxies, mandatory roles) is said where there is
//! any.

use std::collections::{BTreeMap, BTreeSet};

use super::{Grantee, ID, Role, Seen, TableAccess};
use crate::capability::Flavour;
use crate::engine::reason;
use crate::error::{ErrorKind, Result};
use crate::finding::{Finding, Severity};
use crate::session::{Session, Value};
use crate::table::Table;

/// Rights on everything that reach beyond the shop's data.
const POWERS: [(&str, Severity); 20] = [
    ("SUPER", Severity::Critical),
    ("FILE", Severity::Critical),
    ("CREATE USER", Severity::Critical),
    ("GRANT OPTION", Severity::Critical),
    (SYSTEM, Severity::Critical),
    ("ROLE_ADMIN", Severity::Critical),
    ("SET_USER_ID", Severity::Critical),
    ("SET_ANY_DEFINER", Severity::Critical),
    ("SET USER", Severity::Critical),
    ("SYSTEM_USER", Severity::Warning),
    ("SHUTDOWN", Severity::Warning),
    ("CONNECTION_ADMIN", Severity::Warning),
    ("CONNECTION ADMIN", Severity::Warning),
    ("REPLICATION SLAVE", Severity::Warning),
    ("SELECT", Severity::Warning),
    ("INSERT", Severity::Warning),
    ("UPDATE", Severity::Warning),
    ("DELETE", Severity::Warning),
    ("ALTER", Severity::Warning),
    ("DROP", Severity::Warning),
];
/// Whoever changes the server's own tables makes accounts.
const SYSTEM: &str = "changes the schema mysql";

/// As MariaDB writes what everybody is a member of.
const PUBLIC: &str = "'PUBLIC'@''";

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    /// `'user'@'host'`.
    name: String,
    is_role: bool,
    is_locked: bool,
    has_no_password: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    to: String,
    privilege: String,
    on: Scope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scope {
    Everything,
    /// The schema that is looked at.
    Schema,
    Table(String),
}

pub(super) async fn read(session: &mut Session, tables: &[Table]) -> Result<Seen> {
    let flavour = session.flavour();
    let mut seen = Seen::default();
    let accounts = match flavour {
        Flavour::MariaDb => {
            "SELECT CONCAT('''', User, '''@''', Host, ''''), COALESCE(JSON_VALUE(Priv, '$.is_role'), 'false'), \
               COALESCE(JSON_VALUE(Priv, '$.account_locked'), 'false'), \
               CASE WHEN COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '') = '' AND NOT JSON_EXISTS(Priv, '$.auth_or') \
                 AND COALESCE(JSON_VALUE(Priv, '$.plugin'), '') IN ('', 'mysql_native_password') THEN 'true' ELSE 'false' END \
             FROM mysql.global_priv"
        }
        _ => {
            "SELECT CONCAT('''', CONVERT(User USING utf8mb4), '''@''', CONVERT(Host USING utf8mb4), ''''), 'false', \
               CASE account_locked WHEN 'Y' THEN 'true' ELSE 'false' END, \
               CASE WHEN authentication_string = '' AND plugin IN ('mysql_native_password', 'caching_sha2_password', 'sha256_password') \
                 THEN 'true' ELSE 'false' END \
             FROM mysql.user"
        }
    };
    let edges = match flavour {
        Flavour::MariaDb => {
            "SELECT CONCAT('''', User, '''@''', Host, ''''), CONCAT('''', Role, '''@''''') FROM mysql.roles_mapping"
        }
        _ => {
            "SELECT CONCAT('''', CONVERT(TO_USER USING utf8mb4), '''@''', CONVERT(TO_HOST USING utf8mb4), ''''), \
               CONCAT('''', CONVERT(FROM_USER USING utf8mb4), '''@''', CONVERT(FROM_HOST USING utf8mb4), '''') FROM mysql.role_edges"
        }
    };
    // What roles have on everything MariaDB shows in its table of accounts alone.
    let on_everything: Vec<String> = [
        ("Select_priv", "SELECT"),
        ("Insert_priv", "INSERT"),
        ("Update_priv", "UPDATE"),
        ("Delete_priv", "DELETE"),
        ("Drop_priv", "DROP"),
        ("Alter_priv", "ALTER"),
        ("Trigger_priv", "TRIGGER"),
        ("Repl_slave_priv", "REPLICATION SLAVE"),
        ("File_priv", "FILE"),
        ("Super_priv", "SUPER"),
        ("Shutdown_priv", "SHUTDOWN"),
        ("Create_user_priv", "CREATE USER"),
        ("Grant_priv", "GRANT OPTION"),
    ]
    .iter()
    .map(|(column, privilege)| {
        format!(
            "UNION ALL SELECT CONCAT('''', CONVERT(User USING utf8mb4), '''@''', CONVERT(Host USING utf8mb4), ''''), '{privilege}', \
             'everything', '', 'NO' FROM mysql.user WHERE {column} = 'Y'"
        )
    })
    .collect();
    let grants = "SELECT CONVERT(GRANTEE USING utf8mb4), CONVERT(PRIVILEGE_TYPE USING utf8mb4), 'everything', '', IS_GRANTABLE FROM information_schema.USER_PRIVILEGES \
        UNION ALL SELECT CONVERT(GRANTEE USING utf8mb4), CONVERT(PRIVILEGE_TYPE USING utf8mb4), 'schema', '', 'NO' FROM information_schema.SCHEMA_PRIVILEGES WHERE DATABASE() LIKE TABLE_SCHEMA \
        UNION ALL SELECT CONVERT(GRANTEE USING utf8mb4), CONVERT(PRIVILEGE_TYPE USING utf8mb4), 'table', CONVERT(TABLE_NAME USING utf8mb4), 'NO' FROM information_schema.TABLE_PRIVILEGES WHERE TABLE_SCHEMA = DATABASE() \
        UNION ALL SELECT CONVERT(GRANTEE USING utf8mb4), CONVERT(PRIVILEGE_TYPE USING utf8mb4), 'table', CONVERT(TABLE_NAME USING utf8mb4), 'NO' FROM information_schema.COLUMN_PRIVILEGES WHERE TABLE_SCHEMA = DATABASE()";
    let system = "UNION ALL SELECT CONVERT(GRANTEE USING utf8mb4), 'changes the schema mysql', 'everything', '', 'NO' FROM information_schema.SCHEMA_PRIVILEGES \
          WHERE 'mysql' LIKE TABLE_SCHEMA AND PRIVILEGE_TYPE IN ('INSERT', 'UPDATE', 'DELETE', 'ALTER', 'DROP') \
        UNION ALL SELECT CONVERT(GRANTEE USING utf8mb4), 'changes the schema mysql', 'everything', '', 'NO' FROM information_schema.TABLE_PRIVILEGES \
          WHERE TABLE_SCHEMA = 'mysql' AND PRIVILEGE_TYPE IN ('INSERT', 'UPDATE', 'DELETE', 'ALTER', 'DROP') AND GRANTEE NOT LIKE '_mariadb.sys_@%'";
    let grants = format!("{grants} {} {system}", on_everything.join(" "));
    let read = async |session: &mut Session, sql: &str| session.rows(sql, &[]).await;
    let (accounts, edges, grants) =
        match (read(session, accounts).await, read(session, edges).await, read(session, &grants).await) {
            (Ok(accounts), Ok(edges), Ok(grants)) => (accounts, edges, grants),
            (Err(e), ..) | (_, Err(e), _) | (.., Err(e)) if session.kind(&e) == ErrorKind::Unreachable => {
                return Err(session.error("does not show its accounts", e));
            }
            (Err(e), ..) | (_, Err(e), _) | (.., Err(e)) => {
                seen.unknown.push(format!(
                "who may do what is not shown to this user ({}): audit with an account that may read the schema mysql",
                reason(&e)
            ));
                seen.tables = tables.iter().map(|table| reached(table, &[], &[], &BTreeMap::new())).collect();
                return Ok(seen);
            }
        };
    let mut accounts: Vec<Account> =
        accounts.iter().filter_map(|row| account(row)).filter(|a| !a.name.is_empty()).collect();
    let mut given: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in &edges {
        if let [Some(to), Some(role)] = row.as_slice() {
            given.entry(to.clone()).or_default().insert(role.clone());
        }
    }
    // What everybody has (MariaDB 10.11 and later).
    for account in accounts.iter().filter(|account| !account.is_role) {
        given.entry(account.name.clone()).or_default().insert(PUBLIC.to_owned());
    }
    // MySQL keeps roles among the accounts, and MariaDB writes those of its roles without a host.
    for account in &mut accounts {
        account.is_role |=
            flavour == Flavour::Mysql && account.is_locked && given.values().any(|r| r.contains(&account.name));
    }
    let grants: Vec<Grant> = grants.iter().flat_map(|row| grant(row)).collect();
    let inherited: BTreeMap<String, BTreeSet<String>> =
        accounts.iter().map(|account| (account.name.clone(), closure(&account.name, &given))).collect();
    for account in &accounts {
        let of = |name: &str| inherited.get(name).cloned().unwrap_or_else(BTreeSet::new);
        seen.add_account(account, &of(&account.name), &grants);
    }
    for table in tables {
        seen.tables.push(reached(table, &accounts, &grants, &inherited));
    }
    if !tables.is_empty() {
        not_followed(session, &mut seen).await?;
    }
    Ok(seen)
}

/// Ways to a table that are not followed here, where there are such.
async fn not_followed(session: &mut Session, seen: &mut Seen) -> Result<()> {
    let mut ways = vec![
        (
            "what views and routines show and change that run with their owner's rights (DEFINER)",
            "SELECT CAST((SELECT COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE() AND SECURITY_TYPE = 'DEFINER') \
               + (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE() AND SECURITY_TYPE = 'DEFINER') AS CHAR)",
        ),
        (
            "who may stand for another account (PROXY)",
            "SELECT CAST(COUNT(*) AS CHAR) FROM mysql.proxies_priv WHERE Proxied_user <> ''",
        ),
    ];
    if session.flavour() == Flavour::Mysql {
        ways.push((
            "what roles everybody has (mandatory_roles)",
            "SELECT CASE @@mandatory_roles WHEN '' THEN '0' ELSE '1' END",
        ));
        ways.push(("which rights were taken away again (partial_revokes)", "SELECT CAST(@@partial_revokes AS CHAR)"));
    }
    for (what, sql) in ways {
        match session.one(sql, &[]).await {
            Ok(count) if matches!(count.as_deref(), Some("0" | "OFF")) => {}
            Ok(_) => seen.unknown.push(what.to_owned()),
            Err(e) if session.kind(&e) == ErrorKind::Unreachable => {
                return Err(session.error("does not show its rights", e));
            }
            Err(e) => seen.unknown.push(format!("{what}: {}", reason(&e))),
        }
    }
    Ok(())
}

fn account(row: &[Value]) -> Option<Account> {
    let is = |at: usize| matches!(row.get(at).cloned().flatten().as_deref(), Some("true" | "1"));
    Some(Account { name: row.first()?.clone()?, is_role: is(1), is_locked: is(2), has_no_password: is(3) })
}

fn grant(row: &[Value]) -> Vec<Grant> {
    let [Some(to), Some(privilege), Some(on), Some(table), Some(grantable)] = row else { return Vec::new() };
    let on = match on.as_str() {
        "everything" => Scope::Everything,
        "schema" => Scope::Schema,
        _ => Scope::Table(table.clone()),
    };
    let mut grants = vec![Grant { to: to.clone(), privilege: privilege.clone(), on: on.clone() }];
    if grantable == "YES" && on == Scope::Everything {
        grants.push(Grant { to: to.clone(), privilege: "GRANT OPTION".into(), on });
    }
    grants
}

/// The roles that an account was given, and those that they were given.
fn closure(name: &str, given: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut next = vec![name.to_owned()];
    while let Some(name) = next.pop() {
        for role in given.get(&name).into_iter().flatten() {
            if all.insert(role.clone()) {
                next.push(role.clone());
            }
        }
    }
    all
}

impl Seen {
    fn add_account(&mut self, account: &Account, roles: &BTreeSet<String>, grants: &[Grant]) {
        let own = |grant: &&Grant| grant.to == account.name || roles.contains(&grant.to);
        let powers: Vec<&(&str, Severity)> = POWERS
            .iter()
            .filter(|(power, _)| grants.iter().filter(own).any(|g| g.on == Scope::Everything && g.privilege == *power))
            .collect();
        let can_log_in = !account.is_role && !account.is_locked;
        let told = |what: String, severity: Severity, remedy: &str| {
            Finding::new(ID, account.name.clone(), what).severity(severity).remedy(remedy)
        };
        if can_log_in && account.has_no_password {
            self.findings.push(told(
                "it may log in without a password".into(),
                Severity::Critical,
                "give it one, or drop it",
            ));
        }
        if can_log_in && account.name.starts_with("''@") {
            self.findings.push(told(
                "everybody may log in, whatever name they give".into(),
                Severity::Critical,
                "DROP USER ''",
            ));
        }
        // Those that the server began with, and that come from the machine itself.
        let is_local = ["'localhost'", "'127.0.0.1'", "'::1'"].iter().any(|host| account.name.ends_with(host));
        let is_first = account.name.starts_with("'root'@") && is_local;
        if can_log_in && !powers.is_empty() && !is_first {
            let names: Vec<&str> = powers.iter().map(|(power, _)| *power).collect();
            let severity = powers.iter().map(|(_, severity)| *severity).max().unwrap_or(Severity::Warning);
            self.powers.push(
                told(
                    format!("it may log in, and has on everything: {}", names.join(", ")),
                    severity,
                    "grant it what it needs on the shop's schema alone; trust the others in the policy",
                )
                .evidence("powers", names.clone()),
            );
        }
        self.roles.push(Role {
            name: account.name.clone(),
            can_log_in,
            powers: powers.iter().map(|(power, _)| (*power).to_owned()).collect(),
            member_of: roles.iter().filter(|role| *role != PUBLIC).cloned().collect(),
        });
    }
}

fn reached(
    table: &Table,
    accounts: &[Account],
    grants: &[Grant],
    inherited: &BTreeMap<String, BTreeSet<String>>,
) -> TableAccess {
    let who = |privileges: &[&str]| -> Vec<Grantee> {
        let mut all = Vec::new();
        for account in accounts.iter().filter(|a| !a.is_role && !a.is_locked) {
            let is_its =
                |to: &str| to == account.name || inherited.get(&account.name).is_some_and(|roles| roles.contains(to));
            let mut by: Vec<String> = grants
                .iter()
                .filter(|g| privileges.contains(&g.privilege.as_str()) && is_its(&g.to))
                .filter(|g| !matches!(&g.on, Scope::Table(name) if *name != table.name.name))
                .map(|g| {
                    let on = match &g.on {
                        Scope::Everything => "on everything",
                        Scope::Schema => "on the schema",
                        Scope::Table(_) => "on the table",
                    };
                    if g.to == PUBLIC {
                        format!("PUBLIC {on}")
                    } else if g.to == account.name {
                        format!("its own right {on}")
                    } else {
                        format!("role {} {on}", g.to)
                    }
                })
                .collect();
            by.sort();
            by.dedup();
            if !by.is_empty() {
                all.push(Grantee { role: account.name.clone(), by });
            }
        }
        all
    };
    TableAccess {
        table: table.name.clone(),
        readers: who(&["SELECT"]),
        writers: who(&["INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "TRIGGER"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str) -> Account {
        Account { name: name.into(), is_role: false, is_locked: false, has_no_password: false }
    }

    fn grant(to: &str, privilege: &str, on: Scope) -> Grant {
        Grant { to: to.into(), privilege: privilege.into(), on }
    }

    #[test]
    fn rights_are_followed_through_roles_of_roles() {
        let given = BTreeMap::from([
            ("'eve'@'%'".to_owned(), BTreeSet::from(["'support'@''".to_owned()])),
            ("'support'@''".to_owned(), BTreeSet::from(["'reader'@''".to_owned(), "'support'@''".to_owned()])),
        ]);
        let roles = closure("'eve'@'%'", &given);
        assert_eq!(roles.len(), 2);
        let mut seen = Seen::default();
        let grants =
            [grant("'reader'@''", "FILE", Scope::Everything), grant("'other'@'%'", "SUPER", Scope::Everything)];
        seen.add_account(&account("'eve'@'%'"), &roles, &grants);
        assert_eq!(seen.roles[0].powers, ["FILE"]);
        assert_eq!(seen.powers[0].severity, Severity::Critical);
    }

    #[test]
    fn accounts_without_password_and_the_server_s_own() {
        let of = |account: Account, grants: &[Grant]| {
            let mut seen = Seen::default();
            seen.add_account(&account, &BTreeSet::new(), grants);
            seen.findings.len() + seen.powers.len()
        };
        assert_eq!(of(Account { has_no_password: true, ..account("'x'@'%'") }, &[]), 1);
        assert_eq!(of(Account { has_no_password: true, is_locked: true, ..account("'x'@'%'") }, &[]), 0);
        assert_eq!(of(account("''@'localhost'"), &[]), 1);
        assert_eq!(of(account("'root'@'localhost'"), &[grant("'root'@'localhost'", "SUPER", Scope::Everything)]), 0);
        assert_eq!(of(account("'root'@'%'"), &[grant("'root'@'%'", "SUPER", Scope::Everything)]), 1);
    }
}
