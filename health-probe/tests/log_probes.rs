//! What nginx and PHP really write, through the probes of logs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::Write;

use chrono::{TimeDelta, Utc};
use health_probe::logs::TrafficOptions;
use health_probe::{
    AccessLogProbe, Context, ErrorLogProbe, HttpProbe, Judgement, LoginLogProbe, Observation, Probe, Verdict, judge,
};
use storefront::{nginx, php};

async fn look(probe: &impl Probe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

fn verdict(judgement: &Judgement, reading: &str) -> Option<Verdict> {
    judgement.finding(reading).map(|f| f.verdict)
}

async fn ask(url: &str, times: u32) {
    let probe = HttpProbe::new("x", url).unwrap().with_header("user-agent", "Mozilla/5.0").unwrap();
    for _ in 0..times {
        probe.observe(&Context::at(Utc::now())).await.unwrap();
    }
}

#[tokio::test]
async fn nginx_and_php_write_and_the_probes_read() {
    let php = php::Server::start().await.unwrap();
    php.page("ok.php", "<?php echo 'ok';").unwrap();
    php.page("broken.php", "<?php if ($_GET['n'] > 0) { throw new Exception('order ' . $_GET['n'] . ' failed'); }")
        .unwrap();
    let web = nginx::Server::start(&format!("server {{ listen 127.0.0.1:{{port}}; {} }}", php.nginx())).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let access = || {
        let log = web.directory().join("access.log");
        AccessLogProbe::new("access", log, state.path().join("access.json"), TrafficOptions::default())
    };
    let errors = ErrorLogProbe::new("errors", php.error_log(), state.path().join("errors.json"));
    ask(&format!("{}broken.php?n=1", web.url()), 1).await;
    let (seen, judgement) = look(&errors).await;
    assert_eq!(verdict(&judgement, "new errors"), Some(Verdict::Healthy), "at the first look all is new: {seen:?}");
    ask(&format!("{}ok.php", web.url()), 200).await;
    ask(&format!("{}gone.html", web.url()), 5).await;
    let (seen, judgement) = look(&access()).await;
    assert_eq!(seen.finite("requests"), Some(206.0), "{seen:?}");
    assert_eq!(seen.finite("server errors"), Some(1.0));
    assert_eq!(judgement.verdict, Verdict::Healthy, "one of 206 is chance, not found is none: {judgement:?}");
    ask(&format!("{}broken.php?n=2", web.url()), 12).await;
    // Another process reads on where this one was.
    let (seen, judgement) = look(&access()).await;
    assert_eq!((seen.finite("requests"), seen.finite("server errors")), (Some(218.0), Some(13.0)));
    assert_eq!(verdict(&judgement, "server errors"), Some(Verdict::Critical), "{judgement:?}");
    let (seen, judgement) = look(&errors).await;
    assert_eq!(verdict(&judgement, "new errors"), Some(Verdict::Healthy), "the same fault: {seen:?}");
    assert_eq!(seen.finite("errors in the last hour"), Some(13.0), "by the times of the lines: {seen:?}");
    php.page("other.php", "<?php nothing_of_that_name();").unwrap();
    ask(&format!("{}other.php", web.url()), 2).await;
    let (seen, judgement) = look(&errors).await;
    assert_eq!((seen.finite("new errors"), verdict(&judgement, "new errors")), (Some(1.0), Some(Verdict::Warning)));
    assert!(seen.evidence[0].contains("nothing_of_that_name") && seen.evidence[0].contains("(2 times)"), "{seen:?}");
    assert_eq!(look(&errors).await.0.finite("new errors"), Some(1.0), "a second look confirms it");
}

/// As Debian sets it: without `error_log`, what PHP says goes through FastCGI into nginx's error log.
#[tokio::test]
async fn what_php_says_through_fastcgi_is_phps() {
    let php = php::Server::start().await.unwrap();
    php.page("warns.php", "<?php echo $nothing; trigger_error('old', E_USER_DEPRECATED);").unwrap();
    php.page("breaks.php", "<?php throw new Exception('order ' . $_GET['n'] . ' failed');").unwrap();
    php.page("other.php", "<?php nothing_of_that_name();").unwrap();
    let through = php.nginx().replace(
        "fastcgi_param REQUEST_METHOD",
        "fastcgi_param PHP_ADMIN_VALUE error_log=; fastcgi_param REQUEST_METHOD",
    );
    let web = nginx::Server::start(&format!("server {{ listen 127.0.0.1:{{port}}; {through} }}")).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let probe = ErrorLogProbe::new("errors", web.directory().join("error.log"), state.path().join("errors.json"));
    look(&probe).await;
    ask(&format!("{}warns.php", web.url()), 60).await;
    let log = std::fs::read_to_string(web.directory().join("error.log")).unwrap();
    assert!(log.contains("FastCGI sent in stderr") && log.contains("PHP message: PHP Warning"), "{log}");
    let (seen, judgement) = look(&probe).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "warnings are no errors, whatever nginx calls them: {seen:?}");
    ask(&format!("{}breaks.php?n=1", web.url()), 6).await;
    ask(&format!("{}breaks.php?n=2", web.url()), 6).await;
    ask(&format!("{}other.php", web.url()), 1).await;
    let (seen, judgement) = look(&probe).await;
    assert_eq!((seen.finite("new errors"), seen.finite("fatal in the last hour")), (Some(2.0), Some(13.0)), "{seen:?}");
    assert_eq!(judgement.verdict, Verdict::Critical);
    assert!(seen.evidence.iter().any(|l| l.contains("nothing_of_that_name")), "{seen:?}");
}

#[tokio::test]
async fn what_begins_in_a_log_that_was_empty_is_seen_and_times_are_those_of_the_lines() {
    let dir = tempfile::tempdir().unwrap();
    let (log, state) = (dir.path().join("error.log"), dir.path().join("errors.json"));
    std::fs::write(&log, "").unwrap();
    let began = Utc::now() - TimeDelta::days(3);
    let look_at = async |hours: i64| {
        let probe = ErrorLogProbe::new("errors", &log, &state);
        let seen = probe.observe(&Context::at(began + TimeDelta::hours(hours))).await.unwrap();
        let judgement = judge(&seen, &probe.spec().policy);
        (seen, judgement)
    };
    let add = |lines: &str| std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(lines.as_bytes());
    assert_eq!(look_at(0).await.1.verdict, Verdict::Healthy);
    add(&"PHP Fatal error:  Uncaught Error: the database is gone\n".repeat(600)).unwrap();
    let (seen, judgement) = look_at(4).await;
    assert_eq!((seen.finite("new errors"), seen.finite("fatal in the last hour")), (Some(1.0), Some(600.0)));
    assert_eq!(judgement.verdict, Verdict::Critical);
    assert_eq!(look_at(5).await.1.verdict, Verdict::Critical, "confirmed");
    assert_eq!(look_at(6).await.1.verdict, Verdict::Healthy, "and over");
    // Nobody looked for two days; what happened in them did not happen in the last hour.
    for hours in 10..50 {
        let at = (began + TimeDelta::hours(hours)).format("%d-%b-%Y %H:%M:%S UTC");
        add(&format!("[{at}] PHP Fatal error:  Uncaught Error: the database is gone\n")).unwrap();
    }
    let (seen, _) = look_at(60).await;
    assert_eq!(seen.finite("fatal in the last hour"), Some(0.0), "{seen:?}");
    // Whoever may read the examples may read the log.
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o600);

    // The same of log-ins that say no time.
    let (log, state) = (dir.path().join("app.log"), dir.path().join("logins.json"));
    std::fs::write(&log, "").unwrap();
    let probe = LoginLogProbe::new("logins", &log, &state);
    assert_eq!(look(&probe).await.1.verdict, Verdict::Unknown);
    std::fs::write(&log, "login failed user=anna ip=203.0.113.7\n".repeat(60)).unwrap();
    assert_eq!(look(&probe).await.1.verdict, Verdict::Critical);
}

#[tokio::test]
async fn what_strangers_ask_for_is_no_error_and_a_log_without_a_line_says_nothing() {
    let web = nginx::Server::start(
        "server { listen 127.0.0.1:{port}; root {here}; location /.git { deny all; } location / { try_files $uri =404; } \
         location /files/ { } }",
    )
    .await
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let errors = ErrorLogProbe::new("errors", web.directory().join("error.log"), dir.path().join("errors.json"));
    let empty = dir.path().join("access.log");
    std::fs::write(&empty, "").unwrap();
    let access = AccessLogProbe::new("access", &empty, dir.path().join("access.json"), TrafficOptions::default());
    assert_eq!(look(&errors).await.1.verdict, Verdict::Healthy);
    for path in ["files/wp-login.php", ".git/config", "files/"] {
        ask(&format!("{}{path}", web.url()), 100).await;
    }
    let log = std::fs::read_to_string(web.directory().join("error.log")).unwrap();
    assert!(log.contains("No such file") && log.contains("forbidden by rule"), "{log}");
    let (seen, judgement) = look(&errors).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");
    for _ in 0..2 {
        let (_, judgement) = look(&access).await;
        assert_eq!(judgement.verdict, Verdict::Unknown, "Debian's sites write into logs of their own");
        assert!(!judgement.is_idle(), "and somebody is told");
    }
}

#[tokio::test]
async fn guessed_passwords_scanners_and_a_log_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (log, state) = (dir.path().join("access.log"), dir.path().join("state.json"));
    let probe = || AccessLogProbe::new("access", &log, &state, TrafficOptions::default());
    assert!(probe().observe(&Context::at(Utc::now())).await.is_err(), "no log says nothing");
    let mut out = std::fs::File::create(&log).unwrap();
    let mut line = |ago: i64, ip: &str, request: &str, status: u16| {
        let at = (Utc::now() - TimeDelta::minutes(ago)).format("%d/%b/%Y:%H:%M:%S +0000");
        writeln!(out, "{ip} - - [{at}] \"{request} HTTP/1.1\" {status} 5 \"-\" \"Mozilla\"").unwrap();
    };
    for i in 0..30 {
        line(10, "203.0.113.7", "POST /login", 401);
        line(10, &format!("198.51.100.{i}"), "POST /login", 401);
        line(10, &format!("198.51.100.{i}"), "POST /login", 401);
    }
    line(5, "192.0.2.1", "GET /.env", 200);
    line(5, "192.0.2.1", "GET /wp-login.php", 404);
    let (seen, judgement) = look(&probe()).await;
    assert_eq!(seen.finite("failed logins of one address"), Some(30.0));
    assert_eq!(verdict(&judgement, "failed logins of one address"), Some(Verdict::Warning));
    assert_eq!(
        (seen.finite("failed logins of one subnet"), verdict(&judgement, "failed logins of one subnet")),
        (Some(60.0), Some(Verdict::Warning))
    );
    assert_eq!(verdict(&judgement, "exposed"), Some(Verdict::Critical), "{seen:?}");
    // Rotated away and deleted before it was read to its end: said.
    std::fs::remove_file(&log).unwrap();
    std::fs::write(&log, "").unwrap();
    let (_, judgement) = look(&probe()).await;
    assert_eq!(verdict(&judgement, "lines lost"), Some(Verdict::Warning));
    std::fs::remove_file(&log).unwrap();
    let gone = probe().observe(&Context::at(Utc::now())).await.unwrap_err();
    assert!(gone.to_string().contains("the log is gone"), "{gone}");
    std::fs::write(&log, "").unwrap();
    std::fs::write(&state, "no state").unwrap();
    assert!(probe().observe(&Context::at(Utc::now())).await.unwrap_err().to_string().contains("is not what was kept"));
}

#[tokio::test]
async fn guessed_passwords_by_account() {
    // What nginx itself asks a password for.
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("htpasswd");
    std::fs::write(&passwords, "anna:{PLAIN}geheim\n").unwrap();
    let site = format!(
        "server {{ listen 127.0.0.1:{{port}}; location / {{ return 200; }}
         location /admin {{ auth_basic shop; auth_basic_user_file {}; try_files /no =404; }} }}",
        passwords.display()
    );
    let web = nginx::Server::start(&site).await.unwrap();
    let admin = |login: Option<&str>| {
        let probe = HttpProbe::new("x", &format!("{}admin", web.url())).unwrap();
        match login {
            Some(base64) => probe.with_header("authorization", &format!("Basic {base64}")).unwrap(),
            None => probe,
        }
    };
    // anna:falsch, anna:geheim, and nobody.
    for login in [Some("YW5uYTpmYWxzY2g="); 12].into_iter().chain([Some("YW5uYTpnZWhlaW0="), None, None]) {
        admin(login).observe(&Context::at(Utc::now())).await.unwrap();
    }
    let log = web.directory().join("access.log");
    let probe = AccessLogProbe::new("access", log, folder.path().join("access.json"), TrafficOptions::default());
    let (seen, judgement) = look(&probe).await;
    assert_eq!(seen.finite("failed logins of one account"), Some(12.0), "{seen:?}");
    assert_eq!(verdict(&judgement, "failed logins of one account"), Some(Verdict::Warning));

    // What an application in PHP logs.
    let php = php::Server::start().await.unwrap();
    php.page("login.php", "<?php error_log('Failed login for user ' . $_GET['u'] . ' from 203.0.113.7');").unwrap();
    php.page("ok.php", "<?php error_log('Login of anna@example.com');").unwrap();
    let web = nginx::Server::start(&format!("server {{ listen 127.0.0.1:{{port}}; {} }}", php.nginx())).await.unwrap();
    let probe = LoginLogProbe::new("logins", php.error_log(), folder.path().join("logins.json"));
    ask(&format!("{}ok.php", web.url()), 1).await;
    let (seen, judgement) = look(&probe).await;
    assert_eq!(judgement.verdict, Verdict::Unknown, "nothing proves that failures are written down: {seen:?}");
    ask(&format!("{}login.php?u=anna@example.com", web.url()), 9).await;
    ask(&format!("{}login.php?u=bob@example.com", web.url()), 3).await;
    let (seen, judgement) = look(&probe).await;
    assert_eq!(
        (seen.finite("failed logins"), seen.finite("failed logins of one account"), judgement.verdict),
        (Some(12.0), Some(9.0), Verdict::Healthy)
    );
    assert_eq!(seen.finite("failed logins of one address"), Some(12.0), "{seen:?}");
    ask(&format!("{}login.php?u=anna@example.com", web.url()), 41).await;
    let (seen, judgement) = look(&probe).await;
    assert_eq!(verdict(&judgement, "failed logins of one account"), Some(Verdict::Critical), "{seen:?}");
    assert!(!format!("{seen:?}").contains("anna@"), "{seen:?}");
}
