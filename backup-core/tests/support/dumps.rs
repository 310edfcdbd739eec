//! What the server's own client says of two databases.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use storefront::mysql::Server;

pub fn assert_same(server: &Server, a: &str, b: &str, arguments: &[&str]) {
    let dump = |database: &str| {
        let text = String::from_utf8_lossy(&server.dump(database, arguments).unwrap()).into_owned();
        // The server writes the database before the name of a sequence; each has to be its own.
        let text = text.replace(&format!("nextval(`{database}`."), "nextval(");
        // MySQL tells it of a copy, and leaves it out of what was made without.
        text.replace(" CHARACTER SET latin1 COLLATE latin1_german1_ci", " COLLATE latin1_german1_ci")
    };
    let (a, b) = (dump(a), dump(b));
    if a == b {
        return;
    }
    let differ: Vec<_> = a
        .lines()
        .zip(b.lines())
        .enumerate()
        .filter(|(_, (x, y))| x != y)
        .take(5)
        .map(|(n, (x, y))| (n, x.chars().take(300).collect::<String>(), y.chars().take(300).collect::<String>()))
        .collect();
    panic!("dumps of {} and {} bytes differ: {differ:#?}", a.len(), b.len());
}

/// A schema with every type and kind of object that the server knows.
pub fn every_type(server: &Server) -> &'static str {
    if server.is_mariadb() {
        include_str!("../every_type_mariadb.sql")
    } else {
        include_str!("../every_type_mysql.sql")
    }
}
