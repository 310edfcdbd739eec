//! A PostgreSQL shop over a local socket.

use caretaker_benches::Result;
use storefront::Size;
use storefront::postgres::Server;

use crate::aim::{Aim, Bound};
use crate::steps::{Comparison, NEW, Options, SECOND, Side, Step, Subject, VERIFY, Work, compare, create, restore};

const DROP: &str = "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored'";
const FRESH: &str =
    "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE restored TEMPLATE template0'";
const STEPS: [Step; 11] = [
    Step {
        id: "floor-copy",
        work: Work::Create,
        side: Side::Floor,
        who: "floor: COPY on two connections",
        needs: &[],
        before: &[],
        run: "copy() { for t in $1; do echo \"COPY $t TO STDOUT;\"; done | psql -qX > /dev/null; }; copy \"$HALF_A\" & copy \"$HALF_B\" & wait",
        stores: "",
    },
    create("create", Work::Create, &[NEW]),
    Step {
        id: "dump-zstd-age",
        work: Work::Create,
        side: Side::Peer,
        who: "pg_dump | zstd -3 | age",
        needs: &["zstd", "age"],
        before: &[],
        run: "pg_dump | zstd -3 -q | age -r $(cat recipient) > dump.age; sync dump.age",
        stores: "dump.age",
    },
    Step {
        id: "dump-fc",
        work: Work::Create,
        side: Side::Peer,
        who: "pg_dump -Fc",
        needs: &[],
        before: &[],
        run: "exec pg_dump -Fc -f dump.fc",
        stores: "dump.fc",
    },
    Step {
        id: "dump-fd",
        work: Work::Create,
        side: Side::Peer,
        who: "pg_dump -Fd -j2",
        needs: &[],
        before: &["rm -rf dump.fd"],
        run: "pg_dump -Fd -j2 -f dump.fd",
        stores: "dump.fd",
    },
    Step {
        id: "dump-fd-zstd-age",
        work: Work::Create,
        side: Side::Peer,
        who: "pg_dump -Fd -Z0 -j2, then tar | zstd -3 | age",
        needs: &["zstd", "age", "tar"],
        before: &["rm -rf dump.f0"],
        run: "pg_dump -Fd -Z0 -j2 -f dump.f0; tar c dump.f0 | zstd -3 -q | age -r $(cat recipient) > dump.f0.age; sync dump.f0.age; rm -r dump.f0",
        stores: "dump.f0.age",
    },
    SECOND,
    VERIFY,
    restore(&[DROP]),
    Step {
        id: "pg_restore",
        work: Work::Restore,
        side: Side::Peer,
        who: "pg_restore -j2",
        needs: &[],
        before: &[FRESH],
        run: "pg_restore -j2 -d restored dump.fd",
        stores: "",
    },
    Step {
        id: "pg_restore-analyze",
        work: Work::Restore,
        side: Side::Peer,
        who: "pg_restore -j2, then ANALYZE",
        needs: &[],
        before: &[FRESH],
        run: "pg_restore -j2 -d restored dump.fd && vacuumdb -q -Z -d restored",
        stores: "",
    },
];

const AIMS: [Aim; 6] = [
    Aim { step: "create", against: "floor-copy", bound: Bound::Takes(1.35) },
    Aim { step: "create", against: "dump-zstd-age", bound: Bound::Faster(1.6) },
    Aim { step: "create", against: "dump-fc", bound: Bound::Faster(7.0) },
    Aim { step: "create", against: "dump-zstd-age", bound: Bound::Stores(1.0) },
    Aim { step: "create-second", against: "floor-copy", bound: Bound::Takes(1.1) },
    Aim { step: "restore", against: "pg_restore", bound: Bound::Faster(1.3) },
];

pub(crate) fn run(orders: u64, options: &Options) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start())?;
    let url = runtime.block_on(server.database("shop"))?;
    runtime.block_on(storefront::postgres::create(&url, &Size::orders(orders), 1))?;
    server.psql("shop", "VACUUM ANALYZE; CHECKPOINT")?;
    let tables = "FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let column = |what: &str| server.psql("shop", &format!("SELECT {what} {tables} ORDER BY pg_table_size(oid) DESC"));
    // Two halves of about the same size, as a careful person would split them.
    let (names, sizes) = (column("relname")?, column("pg_table_size(oid)")?);
    let mut halves = [(0_u64, String::new()), (0, String::new())];
    for (name, size) in names.lines().zip(sizes.lines()) {
        halves.sort_by_key(|(size, _)| *size);
        halves[0].0 += size.parse::<u64>()?;
        halves[0].1 += &format!(" {name}");
    }
    let version = server.psql("shop", "SHOW server_version")?;
    let bytes = halves[0].0 + halves[1].0;
    let environment = vec![
        ("PATH", format!("{}:{}", server.programs().display(), std::env::var("PATH")?)),
        ("PGHOST", server.socket().display().to_string()),
        ("PGPORT", server.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "shop".to_owned()),
        ("SOURCE", url),
        ("TARGET", server.url("restored")),
        ("HALF_A", halves[0].1.clone()),
        ("HALF_B", halves[1].1.clone()),
    ];
    let subject =
        Subject { name: "postgres", title: format!("PostgreSQL {}", version.trim()), bytes, files: None, environment };
    compare(&STEPS, &AIMS, subject, options)
}
