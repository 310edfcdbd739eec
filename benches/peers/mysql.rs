//! A MariaDB shop over a local socket.

use caretaker_benches::Result;
use storefront::Size;
use storefront::mysql::Server;

use crate::steps::{Options, Step, Title, compare};

const DROP: &str = "$CLIENT -e 'DROP DATABASE IF EXISTS restored'";
const FRESH: &str = "$CLIENT -e 'DROP DATABASE IF EXISTS restored; CREATE DATABASE restored'";
const STEPS: [Step; 8] = [
    Step {
        name: "floor: mariadb-dump to nowhere",
        needs: &[],
        before: "",
        run: "$DUMP shop > /dev/null",
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
        name: "mariadb-dump, zstd -3, age",
        needs: &["zstd", "age"],
        before: "",
        run: "$DUMP shop | zstd -3 -q | age -r $(cat recipient) > dump.age; sync dump.age",
        stores: false,
    },
    Step {
        name: "mydumper -t 2 (compressed)",
        needs: &["mydumper"],
        before: "rm -rf md",
        run: "mydumper --socket=$SOCKET --user=root --database=shop --threads=2 --compress --outputdir=md > /dev/null 2>&1",
        stores: false,
    },
    Step {
        name: "myloader -t 2",
        needs: &["mydumper"],
        before: FRESH,
        run: "myloader --socket=$SOCKET --user=root --database=restored --threads=2 --directory=md > /dev/null 2>&1",
        stores: false,
    },
    Step {
        name: "mariadb < its dump",
        needs: &["age", "zstd"],
        before: FRESH,
        run: "age -d -i keys/owner-identity.txt dump.age | zstd -dc | $CLIENT restored",
        stores: false,
    },
];

pub(crate) fn run(orders: u64, options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start())?;
    let url = server.database("shop")?;
    runtime.block_on(storefront::mysql::create(&url, &Size::orders(orders), 1))?;
    let size = "SELECT sum(data_length) FROM information_schema.tables WHERE table_schema = 'shop'";
    let data: u64 = server.sql("", size)?.trim().parse()?;
    let version = server.sql("", "SELECT version()")?;
    let socket = server.socket().display().to_string();
    let client = |program: &str| format!("{program} --no-defaults --user=root --socket={socket}");
    let environment = [
        ("CLIENT", client("mariadb")),
        ("DUMP", format!("{} --single-transaction --routines --events --hex-blob", client("mariadb-dump"))),
        ("SOCKET", socket.clone()),
        ("DATABASE_URL", url),
        ("RESTORED_URL", server.url("restored")),
    ];
    compare(&STEPS, &environment, &Title { server: version.trim().to_owned(), data }, options)
}
