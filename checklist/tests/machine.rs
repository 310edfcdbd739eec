//! A source tree and a host as they must not be, and their hardened twins.
#![cfg(all(feature = "source", feature = "host"))]
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use checklist::check::host::{self, Host};
use checklist::check::source::{self, SourceTree};
use checklist::{Auditor, Check, CheckReport, Context, Outcome, Standing, items};
use chrono::Utc;

fn put(root: &Path, name: &str, mode: u32, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

async fn run(checks: Vec<Arc<dyn Check>>) -> BTreeMap<String, CheckReport> {
    let audit =
        Auditor::new(items()).with_checks(checks).run("shop", &Context::at(Utc::now()), &Standing::default()).await;
    audit.items.into_iter().flat_map(|i| i.checks).map(|c| (c.check.clone(), c)).collect()
}

#[tokio::test]
async fn a_weak_source_and_its_twin() {
    let dir = tempfile::tempdir().unwrap();
    let (weak, hard) = (dir.path().join("weak"), dir.path().join("hard"));
    let key = ["sk_live_", "9fK2mQ7xL4vB8nR1tW6y"].concat();
    put(&weak, "lib/pay.ts", 0o644, &format!("const stripe = new Stripe('{key}');\n"));
    put(&weak, "lib/db.php", 0o644, "<?php $db = new PDO('mysql:host=db;dbname=shop', 'shop', 'hT5rfq9x');\n");
    put(
        &weak,
        "lib/find.ts",
        0o666,
        "export const find = (q) => prisma.$queryRawUnsafe(`SELECT * FROM p WHERE n = '${q}'`);\n",
    );
    put(&weak, "app/page.tsx", 0o644, "export default () => <p dangerouslySetInnerHTML={{ __html: text }} />;\n");
    put(
        &weak,
        "upload.php",
        0o644,
        "<?php move_uploaded_file($_FILES['f']['tmp_name'], 'uploads/' . $_FILES['f']['name']);\n",
    );
    put(&weak, "login.php", 0o644, "<form method=\"post\"><input name=email></form>\n<?php login($_POST['email']);\n");
    put(&weak, "lib/token.ts", 0o644, "export const token = (id) => jwt.sign({ id }, process.env.KEY);\n");
    put(&weak, ".env", 0o644, "X=1\n");
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&weak))))).await;
    assert_eq!(found.len(), 10);
    for (check, report) in &found {
        assert_eq!(report.outcome, Outcome::Fail, "{check}: {report:#?}");
    }
    let shown = format!("{found:?}");
    assert!(!shown.contains("9fK2mQ7xL4vB8nR1tW6y") && !shown.contains("hT5rfq9x"));
    assert_eq!(
        (found["source.sql"].places[0].at.as_str(), found["source.sql"].places[0].line),
        ("lib/find.ts", Some(1))
    );

    put(&hard, ".gitignore", 0o644, ".env*\n");
    put(&hard, ".env", 0o600, &format!("STRIPE_SECRET_KEY={key}\nDATABASE_URL=postgres://shop:hT5rfq9x@db/shop\n"));
    put(
        &hard,
        "lib/pay.ts",
        0o644,
        "const stripe = new Stripe(process.env.STRIPE_SECRET_KEY); // pk_live_9fK2mQ7xL4vB8nR1tW6y\n",
    );
    put(&hard, "lib/find.ts", 0o644, "export const find = (q) => prisma.$queryRaw`SELECT * FROM p WHERE n = ${q}`;\n");
    put(
        &hard,
        "app/api/cart/route.ts",
        0o644,
        "export async function POST(request) { const cart = Cart.parse(await request.json()); }\n",
    );
    put(
        &hard,
        "lib/token.ts",
        0o644,
        "export const token = (id) => jwt.sign({ id }, process.env.KEY, { expiresIn: '1h' });\n",
    );
    put(&hard, "middleware.ts", 0o644, "import { Ratelimit } from '@upstash/ratelimit';\n");
    put(
        &hard,
        "upload.php",
        0o644,
        "<?php $kind = (new finfo(FILEINFO_MIME_TYPE))->file($_FILES['f']['tmp_name']);\nmove_uploaded_file($_FILES['f']['tmp_name'], $path);\n",
    );
    put(
        &hard,
        "login.php",
        0o644,
        "<form method=\"post\"><input type=hidden name=csrf value=\"<?= $csrf ?>\"></form>\n<?php $mail = filter_var($_POST['email'], FILTER_VALIDATE_EMAIL);\n",
    );
    put(
        &hard,
        "node_modules/x/index.js",
        0o644,
        &format!("var k = '{key}'; db.query(\"SELECT * FROM t WHERE id = \" + id)\n"),
    );
    for (check, report) in run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await {
        assert_eq!(report.outcome, Outcome::Pass, "{check}: {report:#?}");
    }
    // A dump of some megabytes is no reason to know nothing, and none to look away.
    let filler = "INSERT INTO products VALUES (1, 'a lamp');\n".repeat(60_000);
    put(&hard, "seed/products.sql", 0o644, &filler);
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await;
    assert_eq!(found["source.secrets"].outcome, Outcome::Pass, "{:?}", found["source.secrets"]);
    put(&hard, "seed/products.sql", 0o644, &format!("{filler}INSERT INTO settings VALUES ('{key}');\n{filler}"));
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await;
    let places = &found["source.secrets"].places;
    assert_eq!(
        places.iter().map(|p| (p.at.as_str(), p.line)).collect::<Vec<_>>(),
        [("seed/products.sql", Some(60_001))]
    );
    fs::remove_file(hard.join("seed/products.sql")).unwrap();
    // What a CDN limits is not seen here, and its word is no proof.
    put(&hard, "middleware.ts", 0o644, "// caretaker-allow: rate-limit by Cloudflare, 20 a minute on /login\n");
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await;
    assert_eq!(found["source.rate-limit"].outcome, Outcome::Unknown, "{:?}", found["source.rate-limit"]);
    put(&hard, "middleware.ts", 0o644, "export {};\n");
    fs::remove_file(hard.join("login.php")).unwrap();
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await;
    assert_eq!(found["source.rate-limit"].outcome, Outcome::Fail, "{:?}", found["source.rate-limit"]);
    assert_eq!(found["source.csrf"].outcome, Outcome::NotApplicable, "no form, no pass: {:?}", found["source.csrf"]);
    // The line of Next.js' template hides local files, and no others.
    put(&hard, ".gitignore", 0o644, ".env*.local\n");
    let found = run(source::checks(Some(Arc::new(SourceTree::new(&hard))))).await;
    assert_eq!(
        found["source.secrets"].outcome,
        Outcome::Fail,
        "a committed .env is seen: {:?}",
        found["source.secrets"]
    );
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    for tree in [None, Some(empty), Some(dir.path().join("not there"))] {
        for (check, report) in run(source::checks(tree.clone().map(|t| Arc::new(SourceTree::new(t))))).await {
            assert_eq!(report.outcome, Outcome::Unknown, "{check}: {tree:?} {report:#?}");
        }
    }
}

fn host_at(root: &Path, uploads: &str) -> Option<Arc<Host>> {
    let mut host = Host::default();
    host.root = root.to_owned();
    host.uploads = vec![root.join(uploads)];
    Some(Arc::new(host))
}

#[tokio::test]
async fn a_weak_host_and_its_twin() {
    let dir = tempfile::tempdir().unwrap();
    let (weak, hard) = (dir.path().join("weak"), dir.path().join("hard"));
    let head = "  sl  local_address rem_address   st\n";
    // PostgreSQL on all addresses; in the twin on loopback, with 443 for all.
    put(&weak, "proc/net/tcp", 0o644, &format!("{head}   0: 00000000:1538 00000000:0000 0A 0\n"));
    put(
        &hard,
        "proc/net/tcp",
        0o644,
        &format!("{head}   0: 0100007F:1538 00000000:0000 0A 0\n   1: 00000000:01BB 00000000:0000 0A 0\n"),
    );
    put(
        &weak,
        "etc/php/8.4/fpm/php.ini",
        0o644,
        "display_errors = On\nsession.cookie_secure = 0\nsession.use_only_cookies = 0\n",
    );
    put(
        &hard,
        "etc/php/8.4/fpm/php.ini",
        0o644,
        "display_errors = Off\nlog_errors = On\nexpose_php = Off\nsession.cookie_secure = 1\nsession.cookie_httponly = 1\nsession.use_strict_mode = 1\n",
    );
    put(&weak, "etc/nginx/nginx.conf", 0o644, "http { ssl_certificate a;\nssl_protocols TLSv1 TLSv1.1 TLSv1.2;\n}\n");
    put(
        &hard,
        "etc/nginx/nginx.conf",
        0o644,
        "http { ssl_certificate a;\n# ssl_protocols TLSv1;\nssl_protocols TLSv1.2 TLSv1.3;\n}\n",
    );
    put(&weak, "srv/uploads/a/shell.php.jpg", 0o644, "x");
    put(&hard, "srv/uploads/a/cat.jpg", 0o644, "x");
    let (bad, good) = (
        run(host::checks(host_at(&weak, "srv/uploads"))).await,
        run(host::checks(host_at(&hard, "srv/uploads"))).await,
    );
    for check in ["host.ports", "host.php-errors", "host.php-sessions", "host.tls-floor", "host.uploads"] {
        assert_eq!(bad[check].outcome, Outcome::Fail, "{:#?}", bad[check]);
        assert_eq!(good[check].outcome, Outcome::Pass, "{:#?}", good[check]);
    }
    // Each pool counts, whatever the last one says; and each site.
    put(&hard, "etc/php/8.4/fpm/pool.d/a.conf", 0o644, "[a]\nphp_admin_flag[display_errors] = on\n[b]\nuser = b\n");
    put(&hard, "etc/php/8.4/fpm/pool.d/z.conf", 0o644, "[z]\nphp_admin_flag[display_errors] = off\n");
    put(&hard, "etc/nginx/sites-enabled/old", 0o644, "server {\nlisten 443 ssl;\ninclude snippets/tls.conf;\n}\n");
    put(&hard, "etc/nginx/snippets/tls.conf", 0o644, "ssl_protocols TLSv1.1 TLSv1.2;\n");
    let mixed = run(host::checks(host_at(&hard, "srv/uploads"))).await;
    assert_eq!(mixed["host.php-errors"].outcome, Outcome::Fail, "{:#?}", mixed["host.php-errors"]);
    assert!(mixed["host.php-errors"].places[0].at.ends_with("a.conf"), "{:#?}", mixed["host.php-errors"]);
    assert_eq!(mixed["host.tls-floor"].outcome, Outcome::Fail, "{:#?}", mixed["host.tls-floor"]);
    assert!(mixed["host.tls-floor"].places[0].at.ends_with("snippets/tls.conf"), "{:#?}", mixed["host.tls-floor"]);
    let red_hat = dir.path().join("red hat");
    put(&red_hat, "etc/php.ini", 0o644, "display_errors = On\n");
    put(&red_hat, "etc/php-fpm.d/www.conf", 0o644, "[www]\nuser = apache\n");
    let found = run(host::checks(host_at(&red_hat, "srv/uploads"))).await;
    assert_eq!(found["host.php-errors"].outcome, Outcome::Fail, "{:#?}", found["host.php-errors"]);
    // No program of an image is run, and nothing is known by what is not there.
    for check in ["host.firewall", "host.end-of-life"] {
        assert_eq!(good[check].outcome, Outcome::Unknown);
    }
    let nothing = run(host::checks(host_at(&dir.path().join("none"), "srv/uploads"))).await;
    for check in ["host.ports", "host.uploads", "host.firewall"] {
        assert_eq!(nothing[check].outcome, Outcome::Unknown, "{:#?}", nothing[check]);
    }
    assert!(run(host::checks(None)).await.values().all(|r| r.outcome == Outcome::Unknown));
}

/// On this host: whatever it is, each check comes to something, and a socket that was just opened is seen.
#[tokio::test]
async fn the_host_that_this_runs_on() {
    let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let found = run(host::checks(Some(Arc::new(Host::default())))).await;
    let ports = &found["host.ports"];
    assert_eq!(ports.outcome, Outcome::Fail);
    assert!(ports.places.iter().any(|p| p.at == format!("port {port}")), "{ports:#?}");
    assert_ne!(found["host.firewall"].outcome, Outcome::NotApplicable);
}
