//! The machine and its files: real ones, and trees that stand for a container or a careless shop.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chrono::Utc;
use health_probe::{
    Context, FileRules, FilesProbe, HostProbe, ImagesProbe, Judgement, Observation, PageProbe, Probe, Value, Verdict,
    judge,
};
use storefront::certificates::{Authority, Kind};
use storefront::nginx;

async fn look(probe: &impl Probe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

fn verdict(judgement: &Judgement, reading: &str) -> Option<Verdict> {
    judgement.finding(reading).map(|f| f.verdict)
}

fn write(at: &Path, text: &str) {
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

/// Modes as git and composer leave them, and what shops put there themselves.
#[tokio::test]
async fn an_ordinary_tree_is_healthy_and_what_is_wrong_in_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for (name, text) in [
        (".env.example", "APP_KEY=\nDB_PASSWORD=\n"),
        ("config/database.php", "<?php return [\n'password' => env('DB_PASSWORD', ''),\n'token' => getenv('T'),\n];"),
        ("config/config.php", "<?php\n// 'password' => 'x'\nreturn ['password' => '', 'name' => 'shop'];"),
        ("vendor/cacert.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
        (
            "public/uploads/.htaccess",
            "# AddHandler php\nphp_flag engine off\nRemoveHandler .php\nOptions -ExecCGI\nAddType text/plain .php\n",
        ),
        ("storage/framework/views/a.php", "<?php echo 1;"),
        ("index.php", "<?php"),
    ] {
        write(&at(name), text);
    }
    let rules =
        FileRules { root: dir.path().to_owned(), uploads: vec!["public/uploads".into()], ..FileRules::default() };
    let state = dir.path().with_extension("json");
    let probe = FilesProbe::new("files", rules).with_state(&state);
    probe.accept().unwrap();
    write(&at("storage/framework/views/b.php"), "<?php echo 2;");
    let (seen, judgement) = look(&probe).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");
    for (name, text, reading) in [
        (".env", "APP_KEY=x\n", "secret files that all may read"),
        ("config/config.php", "<?php return ['password' => 'geheim'];", "secret files that all may read"),
        ("wp-config.php", "<?php define( 'DB_PASSWORD', 'geheim' );", "secret files that all may read"),
        ("config/config.php", "<?php define('DB_PASS', 'geheim');", "secret files that all may read"),
        ("config/config.php", "<?php $CFG->dbpass = 'geheim';", "secret files that all may read"),
        ("config/config.php", "<?php return ['password' => env('P', 'geheim')];", "secret files that all may read"),
        (
            "config/config.php",
            "<?php return ['password' => getenv('P') ?: 'geheim'];",
            "secret files that all may read",
        ),
        ("config/config.php", "<?php return ['dsn' => 'mysql://u:geheim@h/db'];", "secret files that all may read"),
        ("public/uploads/.htaccess", "AddHandler application/x-httpd-php none .jpg\n", "executables among the uploads"),
        ("public/uploads/.htaccess", "SetHandler \\\n application/x-httpd-php\n", "executables among the uploads"),
        (
            "public/uploads/.htaccess",
            "Options +Includes\nAddOutputFilter INCLUDES .jpg\n",
            "executables among the uploads",
        ),
        ("tls.pem", "-----BEGIN PRIVATE KEY-----\n", "secret files that all may read"),
        ("public/uploads/.htaccess", "SetHandler application/x-httpd-php\n", "executables among the uploads"),
        ("public/uploads/a/.htaccess", "php_flag engine on\n", "executables among the uploads"),
        ("index.php", "<?php system($_GET['c']);", "changed code files"),
    ] {
        let before = fs::read(at(name)).ok();
        write(&at(name), text);
        let (seen, judgement) = look(&probe).await;
        let found = seen.evidence.iter().any(|l| l.starts_with(reading) && l.contains(name));
        assert!(found && judgement.verdict.rank() >= Verdict::Warning.rank(), "{name}: {seen:?}");
        match before {
            Some(before) => fs::write(at(name), before).unwrap(),
            None => fs::remove_file(at(name)).unwrap(),
        }
    }
    fs::remove_file(state).unwrap();
}

#[tokio::test]
async fn this_machine_is_read_as_it_is() {
    let probe = HostProbe::new("host", ["/", "/dev/shm"]);
    let (seen, judgement) = look(&probe).await;
    for name in ["cpu used", "memory used", "disk / used", "disk /dev/shm used"] {
        assert!(seen.finite(name).is_some_and(|n| (0.0..=100.0).contains(&n)), "{name}: {seen:?}");
    }
    assert_eq!(verdict(&judgement, "disk / writable"), Some(Verdict::Healthy));
    // What df says of the same disk, rounded up.
    let df = std::process::Command::new("df").args(["--output=pcent", "/dev/shm"]).output().unwrap();
    let df: f64 =
        String::from_utf8_lossy(&df.stdout).lines().nth(1).unwrap().trim().trim_end_matches('%').parse().unwrap();
    let ours = seen.finite("disk /dev/shm used").unwrap();
    assert!((ours.ceil() - df).abs() <= 1.0, "{ours} {df}");
    // One look is no trend; proc is read-only for nobody, and a path that is not there is an error.
    assert!(matches!(seen.reading("disk / full in").unwrap().value, Value::NotApplicable(_)));
    assert!(HostProbe::new("host", ["/no/such/disk"]).observe(&Context::at(Utc::now())).await.is_err());
}

#[tokio::test]
async fn in_a_container_its_limits_count_and_file_pages_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let (proc, group) = (dir.path().join("proc"), dir.path().join("cgroup"));
    write(&proc.join("stat"), "cpu  100 0 100 1000 0 0 0 0 0 0\ncpu0 1 0 1 1 0 0 0\ncpu1 1 0 1 1 0 0 0\n");
    write(&proc.join("meminfo"), "MemTotal: 16000000 kB\nMemAvailable: 12000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n");
    write(&proc.join("self/cgroup"), "0::/shop\n");
    let own = group.join("shop");
    write(&own.join("memory.max"), "1073741824\n");
    write(&own.join("memory.current"), "1063004406\n");
    write(&own.join("memory.stat"), "anon 1\ninactive_file 536870912\nactive_file 1\n");
    write(&own.join("cpu.max"), "50000 100000\n");
    write(&own.join("cpu.stat"), "usage_usec 1000\nuser_usec 1\n");
    let probe = HostProbe::new("host", ["/"]).reading(&proc, &group);
    let (seen, _) = look(&probe).await;
    let memory = seen.finite("memory used").unwrap();
    assert!((memory - 49.0).abs() < 1.0, "without inactive file pages: {memory}");
    assert!(seen.evidence.iter().any(|l| l.starts_with("0.5 cores")), "{:?}", seen.evidence);
    assert_eq!(seen.finite("cpu used"), Some(0.0), "the group used nothing meanwhile");
    assert!(matches!(seen.reading("swap used").unwrap().value, Value::NotApplicable(_)));
    assert!(matches!(seen.reading("cpu pressure").unwrap().value, Value::NotApplicable(_)));
    // A parent's limit holds for the child, and "max" is none.
    write(&own.join("memory.max"), "max\n");
    write(&group.join("memory.max"), "2147483648\n");
    write(&group.join("memory.current"), "2000000000\n");
    write(&group.join("memory.stat"), "inactive_file 0\n");
    let (seen, judgement) = look(&probe).await;
    assert!(seen.finite("memory used").unwrap() > 90.0, "{seen:?}");
    assert_eq!(verdict(&judgement, "memory used"), Some(Verdict::Warning));
    // No limit at all: the machine's own memory.
    fs::remove_dir_all(&group).unwrap();
    fs::create_dir(&group).unwrap();
    assert_eq!(look(&probe).await.0.finite("memory used"), Some(25.0));
    // A file that says nothing is not 0.
    write(&proc.join("meminfo"), "Nothing: 1 kB\n");
    assert_eq!(verdict(&look(&probe).await.1, "memory used"), Some(Verdict::Unknown));
}

#[tokio::test]
async fn a_careless_shop_and_its_tidy_twin() {
    let dir = tempfile::tempdir().unwrap();
    let at = |p: &str| dir.path().join(p);
    let mode = |p: &str, m: u32| fs::set_permissions(at(p), fs::Permissions::from_mode(m)).unwrap();
    write(&at(".env"), "DB_PASSWORD=x");
    write(&at("app/cart.php"), "<?php");
    write(&at("public/index.php"), "<?php");
    write(&at("uploads/a.jpg"), "\u{ff}");
    write(&at("uploads/invoice.pdf"), "%PDF");
    mode(".env", 0o640);
    let rules = FileRules {
        root: dir.path().into(),
        uploads: vec!["uploads".into()],
        public: vec!["public".into()],
        ..FileRules::default()
    };
    let state = tempfile::tempdir().unwrap();
    let probe = FilesProbe::new("files", rules.clone()).with_state(state.path().join("code.json"));
    let (_, judgement) = look(&probe).await;
    assert_eq!(verdict(&judgement, "changed code files"), Some(Verdict::Unknown), "never accepted");
    probe.accept().unwrap();
    let (seen, judgement) = look(&probe).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?} {seen:?}");

    mode(".env", 0o644);
    write(&at("uploads/avatar.php.jpg"), "x");
    write(&at("uploads/shell.gif"), "GIF89a<?php system($_GET['c']);");
    write(&at("uploads/.htaccess"), "AddType application/x-httpd-php .gif");
    write(&at("public/backup.sql.gz"), "x");
    write(&at("public/.git/config"), "x");
    write(&at("app/cart.php"), "<?php evil();");
    write(&at("app/new.js"), "x");
    mode("app/new.js", 0o666);
    std::os::unix::fs::symlink("/etc/passwd", at("uploads/link.php")).unwrap();
    let (seen, judgement) = look(&probe).await;
    for (what, n, wanted) in [
        ("secret files that all may read", 1.0, Verdict::Critical),
        ("executables among the uploads", 3.0, Verdict::Critical),
        ("in the web root that should not be", 2.0, Verdict::Critical),
        ("files that all may write", 1.0, Verdict::Warning),
        ("changed code files", 2.0, Verdict::Warning),
    ] {
        assert_eq!(
            (seen.finite(what), verdict(&judgement, what)),
            (Some(n), Some(wanted)),
            "{what}: {:?}",
            seen.evidence
        );
    }
    // A tree that is empty or not there is no tidy one.
    let empty = tempfile::tempdir().unwrap();
    let nothing = FilesProbe::new("files", FileRules { root: empty.path().into(), ..FileRules::default() });
    assert!(nothing.observe(&Context::at(Utc::now())).await.is_err());
}

#[tokio::test]
async fn images_that_are_too_heavy_too_large_or_no_images() {
    let dir = tempfile::tempdir().unwrap();
    let (_, judgement) = look(&ImagesProbe::new("images", dir.path())).await;
    assert_ne!(judgement.verdict, Verdict::Critical);
    // A GIF's size stands in its first bytes; the rest may be anything.
    let gif = |name: &str, (w, h): (u16, u16), bytes: usize| {
        let mut text = [b"GIF89a".to_vec(), w.to_le_bytes().to_vec(), h.to_le_bytes().to_vec()].concat();
        text.resize(bytes, 0);
        fs::write(dir.path().join(name), text).unwrap();
    };
    for i in 0..17 {
        gif(&format!("fine{i}.gif"), (800, 600), 40_000);
    }
    let probe = ImagesProbe::new("images", dir.path());
    assert_eq!(look(&probe).await.1.verdict, Verdict::Healthy);
    gif("large.gif", (4000, 3000), 90_000);
    gif("heavy.gif", (800, 600), 900_000);
    gif("dense.gif", (300, 300), 150_000);
    gif("misnamed.jpg", (300, 300), 10_000);
    fs::write(dir.path().join("broken.png"), "no image").unwrap();
    let (seen, judgement) = look(&probe).await;
    assert_eq!(seen.finite("images"), Some(22.0));
    let of = |n: f64| Some(n / 22.0 * 100.0);
    assert_eq!((seen.finite("images too heavy"), seen.finite("images too large")), (of(2.0), of(1.0)));
    assert_eq!(
        (seen.finite("images misnamed"), verdict(&judgement, "images damaged")),
        (of(1.0), Some(Verdict::Warning))
    );
    assert!(seen.evidence.iter().any(|l| l.contains("heavy.gif")));
}

#[tokio::test]
async fn a_page_is_weighed_with_all_that_it_names() {
    let authority = Authority::new().unwrap();
    let site = tempfile::tempdir().unwrap();
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755)).unwrap();
    write(&site.path().join("style.css"), &"a".repeat(50_000));
    write(&site.path().join("photo.jpg"), &"b".repeat(4_000_000));
    let page = "<html><link rel=stylesheet href=style.css><script src=/gone.js></script>";
    write(&site.path().join("light.html"), "<html><link rel=stylesheet href=style.css>");
    write(&site.path().join("heavy.html"), &format!("{page}<img src=photo.jpg>"));
    let web = nginx::Server::start(&format!(
        "gzip on; gzip_types text/css; gzip_min_length 1; types {{ text/html html; text/css css; image/jpeg jpg; }}\n\
         server {{ listen 127.0.0.1:{{port}}; root {}; }}\n\
         server {{ listen 127.0.0.1:{{second}} ssl; {} root {}; }}",
        site.path().display(),
        authority.nginx(Kind::Good),
        site.path().display()
    ))
    .await
    .unwrap();
    let (seen, judgement) = look(&PageProbe::new("page", &format!("{}light.html", web.url())).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?} {seen:?}");
    assert_eq!(seen.finite("requests"), Some(2.0));
    assert!(seen.finite("page weight").unwrap() < 2000.0, "as sent, compressed: {seen:?}");
    let (seen, judgement) = look(&PageProbe::new("page", &format!("{}heavy.html", web.url())).unwrap()).await;
    assert_eq!((seen.finite("requests"), seen.finite("broken")), (Some(4.0), Some(1.0)), "{seen:?}");
    assert_eq!(verdict(&judgement, "page weight"), Some(Verdict::Warning), "{seen:?}");
    assert!(seen.evidence.iter().any(|l| l.contains("photo.jpg")));
    let (_, judgement) = look(&PageProbe::new("page", &format!("{}no.html", web.url())).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Critical);
}

#[tokio::test]
async fn the_parts_of_a_page_share_connections_and_one_that_ends_costs_nothing() {
    let site = tempfile::tempdir().unwrap();
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let images: String = (0..40).map(|i| format!("<img src={i}.jpg>")).collect();
    write(&site.path().join("page.html"), &format!("<html>{images}"));
    for i in 0..40 {
        write(&site.path().join(format!("{i}.jpg")), "x");
    }
    for (keeps, most) in [("keepalive_requests 1000;", 7), ("keepalive_requests 3;", 21), ("keepalive_timeout 0;", 41)]
    {
        let web = nginx::Server::start(&format!(
            "types {{ text/html html; image/jpeg jpg; }} log_format c $connection;\n\
             server {{ listen 127.0.0.1:{{port}}; root {}; access_log {{here}}/connections.log c; {keeps} }}",
            site.path().display()
        ))
        .await
        .unwrap();
        let (seen, judgement) = look(&PageProbe::new("page", &format!("{}page.html", web.url())).unwrap()).await;
        assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?} {seen:?}");
        assert_eq!(seen.finite("requests"), Some(41.0));
        // A line is written once its answer was sent.
        let log = async {
            loop {
                let log = fs::read_to_string(web.directory().join("connections.log")).unwrap();
                if log.lines().count() >= 41 {
                    return log;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let log = tokio::time::timeout(std::time::Duration::from_secs(30), log).await.unwrap();
        let connections: std::collections::BTreeSet<&str> = log.lines().collect();
        assert_eq!(log.lines().count(), 41, "nothing was asked for twice");
        assert!((2..=most).contains(&connections.len()), "{keeps}: {}", connections.len());
    }
}
