//! What a shop's database tells: how passwords are kept, whose data is readable, whether there are cards, who logs in.

mod cards;
mod passwords;
mod personal;
mod session;

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::Looks;
use crate::error::Result;
use crate::item::{Check, Context, Tier};
use crate::outcome::Finding;
use crate::register::{Software, judge_version};

pub use session::Database;

use session::{Engine, Session};

type Look = fn(Arc<Database>, Context) -> BoxFuture<'static, Result<Finding>>;

/// An asynchronous function over a session as a look.
macro_rules! look {
    ($path:path) => {
        |database, cx| {
            async move {
                let mut session = database.open().await?;
                let found = $path(&mut session, &cx).await;
                session.close().await;
                found
            }
            .boxed()
        }
    };
}

/// The checks of a database; without one, each of them is unknown. Give the address that the shop itself uses: what is judged are its
/// rights.
pub fn checks(database: Option<Arc<Database>>) -> Vec<Arc<dyn Check>> {
    let all: [(&str, &str, Look); 5] = [
        ("database.passwords", "auth.password-hash", look!(passwords::census)),
        ("database.privileges", "data.database-credentials", look!(privileges)),
        ("database.personal-data", "data.pii", look!(personal::readable)),
        ("database.cards", "compliance.pci", look!(cards::cards)),
        ("database.end-of-life", "upkeep.end-of-life", look!(end_of_life)),
    ];
    let one = |(id, item, look)| {
        let at = database.clone();
        let check = Looks { id, item, tier: Tier::AuthenticatedRead, look, at, missing: "the address of a database" };
        Arc::new(check) as Arc<dyn Check>
    };
    all.into_iter().map(one).collect()
}

/// The login may do no more than the shop needs.
async fn privileges(session: &mut Session, _: &Context) -> Result<Finding> {
    let who = session.login();
    match session.engine {
        Engine::Sqlite => Ok(Finding::not_applicable("SQLite has no logins: the modes of its file decide")),
        Engine::Postgres => {
            let sql = "SELECT rolsuper::text, rolcreaterole::text, rolcreatedb::text, rolreplication::text, rolbypassrls::text \
                       FROM pg_catalog.pg_roles WHERE rolname = current_user";
            let rows = session.rows(sql).await?;
            let Some(row) = rows.first() else { return Ok(Finding::unknown("the login does not see itself")) };
            let names =
                ["superuser", "may make roles", "may make databases", "may replicate", "passes row security by"];
            let is = |at: usize| row.get(at).and_then(Option::as_deref) == Some("true");
            let too_much: Vec<&str> = names.iter().enumerate().filter(|(at, _)| is(*at)).map(|(_, n)| *n).collect();
            Ok(judge_rights(&who, &too_much))
        }
        Engine::Mysql => {
            // Each row is one grant, as text.
            let rows = session.plain_rows("SHOW GRANTS").await?;
            let grants: Vec<String> = rows.into_iter().flatten().flatten().map(|g| g.to_uppercase()).collect();
            if grants.is_empty() {
                return Ok(Finding::unknown("the login does not see its grants"));
            }
            // Only before ON: behind it stands a name, which may be anything.
            let everywhere = |right: &str| {
                let given = |g: &String| {
                    g.split_once(" ON *.* ").is_some_and(|(rights, to)| {
                        rights.contains(right) || (right == "GRANT OPTION" && to.ends_with("WITH GRANT OPTION"))
                    })
                };
                grants.iter().any(given)
            };
            let rights = [
                ("ALL PRIVILEGES", "may do everything"),
                ("SUPER", "SUPER"),
                ("FILE", "reads and writes files of the server"),
                ("CREATE USER", "makes users"),
                ("GRANT OPTION", "gives rights on"),
                ("SHUTDOWN", "may stop the server"),
            ];
            let too_much: Vec<&str> = rights.iter().filter(|(right, _)| everywhere(right)).map(|(_, n)| *n).collect();
            Ok(judge_rights(&who, &too_much))
        }
    }
}

fn judge_rights(who: &str, too_much: &[&str]) -> Finding {
    match too_much {
        [] => Finding::pass(format!("the login {who} has no rights beyond its data")),
        some => Finding::fail(format!("the login {who} may do more than a shop needs: {}", some.join(", "))).at(
            who,
            None,
            some.join(", "),
        ),
    }
}

/// The server's version is still mended.
async fn end_of_life(session: &mut Session, cx: &Context) -> Result<Finding> {
    let sql = match session.engine {
        Engine::Sqlite => return Ok(Finding::not_applicable("SQLite comes with the program that uses it")),
        Engine::Postgres => "SELECT current_setting('server_version')",
        Engine::Mysql => "SELECT CAST(version() AS CHAR)",
    };
    let rows = session.rows(sql).await?;
    let Some(version) = rows.first().and_then(|row| row.first().cloned().flatten()) else {
        return Ok(Finding::unknown("the server does not name its version"));
    };
    let software = match session.engine {
        Engine::Postgres => Software::Postgres,
        _ if version.contains("MariaDB") => Software::MariaDb,
        _ => Software::Mysql,
    };
    Ok(judge_version(software, &version, cx.now))
}
