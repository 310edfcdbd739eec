//! A MariaDB shop over a local socket.

use caretaker_benches::Result;
use storefront::Size;
use storefront::mysql::Server;

use crate::aim::{Aim, Bound};
use crate::steps::{Comparison, NEW, Options, SECOND, Side, Step, Subject, VERIFY, Work, compare, create, restore};

const DROP: &str = "$CLIENT -e 'DROP DATABASE IF EXISTS restored'";
const FRESH: &str = "$CLIENT -e 'DROP DATABASE IF EXISTS restored; CREATE DATABASE restored'";
const STEPS: [Step; 10] = [
    Step {
        id: "floor-dump",
        work: Work::Create,
        side: Side::Floor,
        who: "floor: mariadb-dump > /dev/null",
        needs: &[],
        before: &[],
        run: "$DUMP shop > /dev/null",
        stores: "",
    },
    create("create", Work::Create, &[NEW]),
    Step {
        id: "dump-zstd-age",
        work: Work::Create,
        side: Side::Peer,
        who: "mariadb-dump | zstd -3 | age",
        needs: &["zstd", "age"],
        before: &[],
        run: "$DUMP shop | zstd -3 -q | age -r $(cat recipient) > dump.age; sync dump.age",
        stores: "dump.age",
    },
    Step {
        id: "mydumper",
        work: Work::Create,
        side: Side::Peer,
        who: "mydumper -t 2 (neither compressed nor encrypted)",
        needs: &["mydumper"],
        before: &["rm -rf md"],
        run: "$MYDUMPER --database=shop --outputdir=md > /dev/null 2>&1",
        stores: "md",
    },
    Step {
        id: "mydumper-compressed",
        work: Work::Create,
        side: Side::Peer,
        who: "mydumper -t 2 --compress",
        needs: &["mydumper"],
        before: &["rm -rf md.gz"],
        run: "$MYDUMPER --database=shop --compress --outputdir=md.gz > /dev/null 2>&1",
        stores: "md.gz",
    },
    SECOND,
    VERIFY,
    restore(&[DROP]),
    Step {
        id: "client",
        work: Work::Restore,
        side: Side::Peer,
        who: "age | zstd | mariadb",
        needs: &["age", "zstd"],
        before: &[FRESH],
        run: "age -d -i keys/owner-identity.txt dump.age | zstd -dc | $CLIENT restored",
        stores: "",
    },
    Step {
        id: "myloader",
        work: Work::Restore,
        side: Side::Peer,
        who: "myloader -t 2",
        needs: &["mydumper"],
        before: &[FRESH],
        run: "$MYLOADER --database=restored --directory=md > /dev/null 2>&1",
        stores: "",
    },
];

const AIMS: [Aim; 3] = [
    Aim { step: "create", against: "dump-zstd-age", bound: Bound::Faster(1.4) },
    Aim { step: "create", against: "mydumper", bound: Bound::Takes(1.6) },
    Aim { step: "restore", against: "client", bound: Bound::Faster(2.0) },
];

pub(crate) fn run(orders: u64, options: &Options) -> Result<Comparison> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server = runtime.block_on(Server::start())?;
    let url = server.database("shop")?;
    runtime.block_on(storefront::mysql::create(&url, &Size::orders(orders), 1))?;
    let size = "SELECT sum(data_length) FROM information_schema.tables WHERE table_schema = 'shop'";
    let bytes: u64 = server.sql("", size)?.trim().parse()?;
    let version = server.sql("", "SELECT version()")?;
    let socket = server.socket().display().to_string();
    let client = |program: &str| format!("{program} --no-defaults --user=root --socket={socket}");
    let threaded = |program: &str| format!("{program} --socket={socket} --user=root --threads=2");
    let environment = vec![
        ("CLIENT", client("mariadb")),
        ("DUMP", format!("{} --single-transaction --routines --events --hex-blob", client("mariadb-dump"))),
        ("MYDUMPER", threaded("mydumper")),
        ("MYLOADER", threaded("myloader")),
        ("SOURCE", url),
        ("TARGET", server.url("restored")),
    ];
    let subject = Subject { name: "mysql", title: version.trim().to_owned(), bytes, files: None, environment };
    compare(&STEPS, &AIMS, subject, options)
}
