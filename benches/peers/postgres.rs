//! A PostgreSQL shop over a local socket.

use caretaker_benches::Result;
use storefront::Size;
use storefront::postgres::Server;

use crate::steps::{Options, Step, Title, compare};

const DROP: &str = "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored'";
const STEPS: [Step; 10] = [
    Step {
        name: "floor: COPY on two connections",
        needs: &[],
        before: "",
        run: "copy() { for t in $1; do echo \"COPY $t TO STDOUT;\"; done | psql -qX > /dev/null; }; copy \"$HALF_A\" & copy \"$HALF_B\" & wait",
        stores: false,
    },
    Step {
        name: "caretaker create (encrypted, deduplicated)",
        needs: &[],
        before: "rm -rf place keys && \"$TOOL\" keygen --out keys > /dev/null && cp keys/recipient.txt recipient && \"$TOOL\" init --store file://$PWD/place --keys keys > /dev/null",
        run: "exec \"$TOOL\" create --store file://$PWD/place --keys keys --source \"$DATABASE_URL\" > /dev/null",
        stores: true,
    },
    Step {
        name: "caretaker create, second, unchanged",
        needs: &[],
        before: "",
        run: "exec \"$TOOL\" create --store file://$PWD/place --keys keys --source \"$DATABASE_URL\" > /dev/null",
        stores: false,
    },
    Step {
        name: "caretaker restore (checked, compared again)",
        needs: &[],
        before: DROP,
        run: "exec \"$TOOL\" restore --store file://$PWD/place --keys keys --snapshot latest --target \"$RESTORED_URL\" > /dev/null",
        stores: false,
    },
    Step {
        name: "pg_dump, zstd -3, age",
        needs: &["zstd", "age"],
        before: "",
        run: "pg_dump | zstd -3 -q | age -r $(cat recipient) > dump.age; sync dump.age",
        stores: false,
    },
    Step { name: "pg_dump -Fc", needs: &[], before: "", run: "pg_dump -Fc -f dump.fc; sync dump.fc", stores: false },
    Step {
        name: "pg_dump -Fd -j2",
        needs: &[],
        before: "rm -rf dump.fd",
        run: "pg_dump -Fd -j2 -f dump.fd; sync dump.fd",
        stores: false,
    },
    Step {
        name: "pg_dump -Fd -j2, zstd -3, age (tar)",
        needs: &["zstd", "age"],
        before: "rm -rf dump.f0",
        run: "pg_dump -Fd -Z0 -j2 -f dump.f0; tar c dump.f0 | zstd -3 -q | age -r $(cat recipient) > dump.f0.age; rm -r dump.f0",
        stores: false,
    },
    Step {
        name: "pg_restore -j2",
        needs: &[],
        before: "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE restored TEMPLATE template0'",
        run: "pg_restore -j2 -d restored dump.fd",
        stores: false,
    },
    Step {
        name: "pg_restore -j2, then ANALYZE",
        needs: &[],
        before: "psql -q -d postgres -c 'DROP DATABASE IF EXISTS restored' -c 'CREATE DATABASE restored TEMPLATE template0'",
        run: "pg_restore -j2 -d restored dump.fd && vacuumdb -q -Z -d restored",
        stores: false,
    },
];

pub(crate) fn run(orders: u64, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start())?;
    let url = runtime.block_on(server.database("shop"))?;
    runtime.block_on(storefront::postgres::create(&url, &Size::orders(orders), 1))?;
    server.psql("shop", "VACUUM ANALYZE; CHECKPOINT")?;
    let data: u64 = server.psql("shop", "SELECT sum(pg_table_size(oid))::int8 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")?.trim().parse()?;
    // Two halves of about the same size, as a careful person would split them.
    let names = server.psql("shop", "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC")?;
    let sizes = server.psql("shop", "SELECT pg_table_size(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY pg_table_size(oid) DESC")?;
    let mut halves = [(0_u64, String::new()), (0, String::new())];
    for (name, size) in names.lines().zip(sizes.lines()) {
        halves.sort_by_key(|(size, _)| *size);
        halves[0].0 += size.parse::<u64>()?;
        halves[0].1 += &format!(" {name}");
    }
    let version = server.psql("shop", "SHOW server_version")?;
    let path = format!("{}:{}", server.programs().display(), std::env::var("PATH")?);
    let environment = [
        ("PATH", path),
        ("PGHOST", server.socket().display().to_string()),
        ("PGPORT", server.port().to_string()),
        ("PGUSER", "postgres".to_owned()),
        ("PGDATABASE", "shop".to_owned()),
        ("DATABASE_URL", url),
        ("RESTORED_URL", server.url("restored")),
        ("HALF_A", halves[0].1.clone()),
        ("HALF_B", halves[1].1.clone()),
    ];
    compare(&STEPS, &environment, &Title { server: format!("PostgreSQL {}", version.trim()), data }, options)
}
