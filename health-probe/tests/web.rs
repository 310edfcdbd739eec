//! Probes of the web against nginx and PHP from Debian, and against servers that answer as no server should.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use chrono::Utc;
use health_probe::{
    Context, DnsProbe, Expect, Family, HttpProbe, Judgement, Limits, NetworkProbe, Observation, Probe, Reach, Starttls,
    TcpProbe, TlsProbe, Unit, Verdict, judge,
};
use storefront::answers::{self, Answer};
use storefront::certificates::{Authority, Kind};
use storefront::{nginx, php};

async fn look(probe: &impl Probe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

fn verdict(judgement: &Judgement, reading: &str) -> Option<Verdict> {
    judgement.finding(reading).map(|f| f.verdict)
}

#[tokio::test]
async fn a_page_of_nginx_and_php_is_timed_and_held_against_what_is_expected() {
    let php = php::Server::start().await.unwrap();
    php.page(
        "health.php",
        "<?php header('X-Shop: dija'); header('Content-Type: application/json'); \
        echo json_encode(['status' => 'ok', 'checks' => ['db' => true], 'queue' => 12]);",
    )
    .unwrap();
    php.page("broken.php", "<?php nothing_of_that_name();").unwrap();
    let web = nginx::Server::start(&format!("server {{ listen 127.0.0.1:{{port}}; {} }}", php.nginx())).await.unwrap();
    let probe = HttpProbe::new("app", &format!("{}health.php", web.url()))
        .unwrap()
        .expecting(Expect::Status(vec![200]))
        .expecting(Expect::Header("x-shop".into(), "dija".into()))
        .expecting(Expect::Body("\"ok\"".into()))
        .expecting(Expect::NotInBody("Fatal error".into()))
        .expecting(Expect::Json("/status".into(), "ok".into()))
        .expecting(Expect::Json("/checks/db".into(), true.into()))
        .expecting(Expect::JsonBelow("/queue".into(), Unit::Count, Limits::new(100.0, 1000.0)));
    let (seen, judgement) = look(&probe).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?}\n{seen:?}");
    for phase in ["dns", "connect", "first byte", "transfer", "response time"] {
        assert!(seen.finite(phase).is_some_and(|t| (0.0..3.0).contains(&t)), "{phase}: {seen:?}");
    }
    assert!(seen.finite("clock off").unwrap().abs() < 2.0);

    // What is not there is unknown, not 0; a wrong type too.
    let probe = HttpProbe::new("app", &format!("{}health.php", web.url()))
        .unwrap()
        .expecting(Expect::JsonBelow("/queue/depth".into(), Unit::Count, Limits::new(100.0, 1000.0)))
        .expecting(Expect::JsonBelow("/status".into(), Unit::Count, Limits::new(100.0, 1000.0)))
        .expecting(Expect::Json("/checks/db".into(), "true".into()));
    let (_, judgement) = look(&probe).await;
    for reading in ["json /queue/depth", "json /status", "json /checks/db"] {
        assert_eq!(verdict(&judgement, reading), Some(Verdict::Unknown), "{judgement:?}");
    }

    let (_, judgement) = look(&HttpProbe::new("app", &format!("{}broken.php", web.url())).unwrap()).await;
    assert_eq!(verdict(&judgement, "status as expected"), Some(Verdict::Critical), "{judgement:?}");
    assert!(std::fs::read_to_string(php.error_log()).unwrap().contains("nothing_of_that_name"));
}

#[tokio::test]
async fn each_property_of_a_certificate_has_its_own_verdict() {
    let authority = Authority::new().unwrap();
    use Verdict::{Critical, Healthy, Warning};
    // trusted, name matches, already valid, days left, chain days left
    let cases = [
        (Kind::Good, [Some(Healthy); 5]),
        (Kind::Expired, [Some(Healthy), Some(Healthy), Some(Healthy), Some(Critical), Some(Critical)]),
        (Kind::NotYetValid, [Some(Healthy), Some(Healthy), Some(Critical), Some(Healthy), Some(Healthy)]),
        (Kind::WrongName, [Some(Healthy), Some(Critical), Some(Healthy), Some(Healthy), Some(Healthy)]),
        (Kind::SelfSigned, [Some(Critical), Some(Healthy), Some(Healthy), Some(Healthy), None]),
        (Kind::MissingIntermediate, [Some(Critical), Some(Healthy), Some(Healthy), Some(Healthy), None]),
        (Kind::ExpiredExtra, [Some(Healthy); 5]),
        (Kind::EndsSoon, [Some(Healthy), Some(Healthy), Some(Healthy), Some(Warning), Some(Warning)]),
        (Kind::ChainEndsSoon, [Some(Healthy), Some(Healthy), Some(Healthy), Some(Healthy), Some(Critical)]),
    ];
    for (kind, wanted) in cases {
        let server = format!("server {{ listen 127.0.0.1:{{port}} ssl; {} }}", authority.nginx(kind));
        let web = nginx::Server::start(&server).await.unwrap();
        let address = local(&web.url());
        let probe =
            TlsProbe::new("tls", "shop.test", address.port()).pinned_to(address).trusting(&authority.root()).unwrap();
        let (seen, judgement) = look(&probe).await;
        let names = ["trusted", "name matches", "already valid", "days left", "chain days left"];
        assert_eq!(names.map(|n| verdict(&judgement, n)), wanted, "{kind:?}: {judgement:?}\n{seen:?}");
        assert_eq!(verdict(&judgement, "protocol"), Some(Healthy), "{kind:?}");
        assert!(seen.finite("clock off").unwrap().abs() < 3.0, "{seen:?}");

        // The page behind it is refused where a browser refuses it.
        let page = HttpProbe::new("page", &format!("https://shop.test:{}/", address.port()))
            .unwrap()
            .pinned_to(address)
            .trusting(&authority.root())
            .unwrap()
            .expecting(Expect::Status(vec![200, 403, 404]));
        let (seen, judgement) = look(&page).await;
        let good = matches!(kind, Kind::Good | Kind::ExpiredExtra | Kind::EndsSoon | Kind::ChainEndsSoon);
        assert_eq!(verdict(&judgement, "reachable") == Some(Healthy), good, "{kind:?}: {seen:?}");
        // A clock that is wrong makes dates unknown, not expired.
        if kind == Kind::Good {
            let wrong = Context::at(Utc::now() + chrono::TimeDelta::days(400));
            let seen = probe.observe(&wrong).await.unwrap();
            let judgement = judge(&seen, &probe.spec().policy);
            assert_eq!(verdict(&judgement, "days left"), Some(Verdict::Unknown), "{judgement:?}");
        }
    }
}

/// Caches give the time at which they were told, and an `Age` beside it.
#[tokio::test]
async fn a_page_from_a_cache_hides_no_certificate_that_ends() {
    let authority = Authority::new().unwrap();
    let behind = answers::Server::start(Answer::Plain(200, String::new(), "ok".into())).await.unwrap();
    let site = format!(
        "server {{ listen 127.0.0.1:{{port}} ssl; {} location / {{ proxy_pass {}; proxy_pass_header Date; }} }}",
        authority.nginx(Kind::ChainEndsSoon),
        behind.url()
    );
    let web = nginx::Server::start(&site).await.unwrap();
    let address = local(&web.url());
    let probe =
        TlsProbe::new("tls", "shop.test", address.port()).pinned_to(address).trusting(&authority.root()).unwrap();
    for (hours, age, wanted) in [
        (2, Some(7200), Some(Verdict::Critical)),
        // Some leave the age out: three days less two hours are as few.
        (2, None, Some(Verdict::Critical)),
        // Which of two clocks that are days apart is right, nobody knows.
        (50, None, Some(Verdict::Unknown)),
    ] {
        let date = (Utc::now() - chrono::TimeDelta::hours(hours)).to_rfc2822().replace("+0000", "GMT");
        let age = age.map_or(String::new(), |age| format!("Age: {age}\r\n"));
        behind.answer("/", Answer::Plain(200, format!("Date: {date}\r\n{age}"), "ok".into()));
        let (seen, judgement) = look(&probe).await;
        assert_eq!(verdict(&judgement, "chain days left"), wanted, "{hours} h: {seen:?}");
    }
}

#[tokio::test]
async fn a_server_that_still_takes_old_tls_is_told_of_and_one_that_has_nothing_else_too() {
    const OLD: &str = "TLS 1.1 and older refused";
    let authority = Authority::new().unwrap();
    for (protocols, handshake, refused) in [
        ("TLSv1.2 TLSv1.3", Verdict::Healthy, Verdict::Healthy),
        ("TLSv1.1 TLSv1.2", Verdict::Healthy, Verdict::Warning),
        ("TLSv1 TLSv1.3", Verdict::Healthy, Verdict::Warning),
        ("TLSv1", Verdict::Critical, Verdict::Warning),
    ] {
        let server = format!(
            "server {{ listen 127.0.0.1:{{port}} ssl; {} ssl_protocols {protocols}; ssl_ciphers \"ALL:@SECLEVEL=0\"; }}",
            authority.nginx(Kind::Good)
        );
        let web = nginx::Server::start(&server).await.unwrap();
        let address = local(&web.url());
        let probe =
            TlsProbe::new("tls", "shop.test", address.port()).pinned_to(address).trusting(&authority.root()).unwrap();
        let (seen, judgement) = look(&probe).await;
        assert_eq!(verdict(&judgement, "handshake"), Some(handshake), "{protocols}: {seen:?}");
        assert_eq!(verdict(&judgement, OLD), Some(refused), "{protocols}: {seen:?}");
    }
}

#[tokio::test]
async fn tls_begins_after_starttls_and_a_certificate_for_the_name_that_was_asked_for() {
    let authority = Authority::new().unwrap();
    // SNI: two names at one port.
    let (good, other) = (authority.nginx(Kind::Good), authority.nginx(Kind::WrongName));
    let web = nginx::Server::start(&format!(
        "server {{ listen 127.0.0.1:{{port}} ssl; server_name other.test; {other} }}\n\
         server {{ listen 127.0.0.1:{{port}} ssl; server_name shop.test; {good} }}"
    ))
    .await
    .unwrap();
    let address = local(&web.url());
    for name in ["shop.test", "other.test"] {
        let probe = TlsProbe::new("tls", name, address.port()).pinned_to(address).trusting(&authority.root()).unwrap();
        let (_, judgement) = look(&probe).await;
        assert_eq!(judgement.verdict, Verdict::Healthy, "{name}: {judgement:?}");
    }
    // No TLS at all, and nobody there.
    let plain = nginx::Server::start("server { listen 127.0.0.1:{port}; }").await.unwrap();
    let address = local(&plain.url());
    for starttls in
        [Starttls::None, Starttls::Smtp, Starttls::Imap, Starttls::Pop3, Starttls::Postgres, Starttls::Mysql]
    {
        let probe = TlsProbe::new("tls", "shop.test", address.port())
            .pinned_to(address)
            .after(starttls)
            .with_limit(Duration::from_secs(2));
        let (_, judgement) = look(&probe).await;
        assert_eq!(verdict(&judgement, "handshake"), Some(Verdict::Critical), "{starttls:?}: {judgement:?}");
    }
    drop(plain);
    let (_, judgement) = look(&TlsProbe::new("tls", "127.0.0.1", address.port())).await;
    assert_eq!(verdict(&judgement, "reachable"), Some(Verdict::Critical));
    let (_, judgement) = look(&TcpProbe::new("port", "127.0.0.1", address.port())).await;
    assert_eq!(judgement.verdict, Verdict::Critical);
}

#[tokio::test]
async fn answers_that_no_server_should_give_are_critical_and_end_in_time() {
    let server = answers::Server::start(Answer::Json(200, "{}".into())).await.unwrap();
    let probe = |path: &str| {
        HttpProbe::new("x", &format!("{}{path}", server.url()))
            .unwrap()
            .with_limits(Duration::from_millis(700), 1 << 20)
    };
    let (_, judgement) = look(&HttpProbe::new("x", &server.url()).unwrap()).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?}");
    for (path, answer, reading, wanted) in [
        ("/down", Answer::Json(503, "{}".into()), "status as expected", Verdict::Critical),
        ("/garbage", Answer::Garbage, "reachable", Verdict::Critical),
        ("/large", Answer::Large(10 << 20), "body within limit", Verdict::Warning),
        ("/endless", Answer::Endless, "body ended", Verdict::Critical),
        ("/loop", Answer::Loop, "reachable", Verdict::Critical),
        ("/silent", Answer::Silent, "reachable", Verdict::Critical),
        ("/hangup", Answer::Hangup, "reachable", Verdict::Critical),
        ("/slow", Answer::Slow(Duration::from_secs(60), Box::new(Answer::Loop)), "reachable", Verdict::Critical),
    ] {
        server.answer(path, answer);
        let (seen, judgement) = look(&probe(path)).await;
        assert_eq!(verdict(&judgement, reading), Some(wanted), "{path}: {judgement:?}\n{seen:?}");
        assert!(seen.finite("body size").unwrap_or(0.0) <= f64::from(1 << 20), "{path}");
    }
    let (seen, _) = look(&probe("/loop")).await;
    assert!(seen.evidence.iter().any(|l| l.contains("loop")), "{seen:?}");
}

#[tokio::test]
async fn redirects_are_vetted_and_credentials_stay_at_home() {
    let (shop, other) = (
        answers::Server::start(Answer::Json(200, "{}".into())).await.unwrap(),
        answers::Server::start(Answer::Json(200, "{}".into())).await.unwrap(),
    );
    let to = |url: &str| Answer::Plain(302, format!("Location: {url}\r\n"), String::new());
    shop.answer("/out", to(&format!("{}/in", other.url())));
    shop.answer("/metadata", to("http://169.254.169.254/latest/meta-data/"));
    shop.answer("/mapped", to("http://[::ffff:169.254.169.254]/"));
    shop.answer("/file", to("file:///etc/passwd"));
    let probe = |path: &str| {
        HttpProbe::new("x", &format!("{}{path}", shop.url()))
            .unwrap()
            .with_header("Authorization", "Bearer geheim")
            .unwrap()
    };
    let (seen, judgement) = look(&probe("/out")).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{judgement:?}");
    assert_eq!(seen.finite("redirects"), Some(1.0));
    assert!(shop.requests()[0].contains("geheim") && !other.requests()[0].contains("geheim"));
    for path in ["/metadata", "/mapped", "/file"] {
        let (seen, judgement) = look(&probe(path)).await;
        assert_eq!(judgement.verdict, Verdict::Critical, "{path}");
        assert!(seen.evidence.iter().any(|l| l.starts_with("redirect:")), "{path}: {seen:?}");
    }
    let (seen, judgement) = look(&probe("/out").with_redirects(0)).await;
    assert_eq!(verdict(&judgement, "status as expected"), Some(Verdict::Critical), "{seen:?}");
    let (_, judgement) = look(&probe("/").with_reach(Reach::PublicOnly)).await;
    assert_eq!(judgement.verdict, Verdict::Critical);
    let (_, judgement) = look(&probe("/").over(Family::V6)).await;
    assert_eq!(verdict(&judgement, "reachable"), Some(Verdict::Critical));
    assert!(!format!("{:?}", probe("/?token=geheim")).contains("geheim"));
}

fn local(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").trim_end_matches('/').parse().unwrap()
}

#[tokio::test]
async fn a_way_out_is_there_where_one_address_answers_and_names_are_found() {
    let web = nginx::Server::start("server { listen 127.0.0.1:{port}; }").await.unwrap();
    let (there, nobody) = (local(&web.url()).to_string(), "127.0.0.1:9".to_owned());
    let probe = |by: &[String], name: &str| NetworkProbe::new("network").by(by).unwrap().finding(name);
    let (seen, judgement) = look(&probe(&[nobody.clone(), there.clone()], "localhost")).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");
    let (seen, judgement) = look(&probe(std::slice::from_ref(&nobody), "localhost")).await;
    assert_eq!(verdict(&judgement, "reachable"), Some(Verdict::Critical), "{seen:?}");
    let (seen, judgement) = look(&probe(&[there], "no-such-name.invalid")).await;
    assert_eq!(verdict(&judgement, "names found"), Some(Verdict::Critical), "{seen:?}");
    assert!(NetworkProbe::new("n").by(&[]).is_err() && NetworkProbe::new("n").by(&["router:1".into()]).is_err());
}

#[tokio::test]
async fn names_are_asked_of_a_name_server() {
    let server = storefront::dns::Server::start(&[
        "--host-record=shop.test,192.0.2.7",
        "--mx-host=shop.test,mail.shop.test,10",
        "--txt-record=shop.test,v=spf1 include:_spf.mail.test -all",
        "--local=/test/",
    ])
    .await
    .unwrap();
    let probe = |kind: &str, expect: &str| {
        let expect = if expect.is_empty() { vec![] } else { vec![expect.to_owned()] };
        DnsProbe::new("dns", "shop.test", kind).unwrap().asking(server.address()).expecting(expect)
    };
    for (kind, expect) in [("A", "192.0.2.7"), ("mx", "10 mail.shop.test"), ("TXT", "v=spf1"), ("A", "")] {
        let (seen, judgement) = look(&probe(kind, expect)).await;
        assert_eq!(judgement.verdict, Verdict::Healthy, "{kind}: {judgement:?} {seen:?}");
    }
    let (_, judgement) = look(&probe("A", "198.51.100.1")).await;
    assert_eq!(verdict(&judgement, "as expected"), Some(Verdict::Critical));
    for none in [probe("AAAA", ""), DnsProbe::new("dns", "gone.test", "A").unwrap().asking(server.address())] {
        let (seen, judgement) = look(&none).await;
        assert_eq!(verdict(&judgement, "has records"), Some(Verdict::Critical), "{seen:?}");
    }
    let address = server.address();
    drop(server);
    let nobody = DnsProbe::new("dns", "shop.test", "A").unwrap().asking(address).with_limit(Duration::from_secs(2));
    let (_, judgement) = look(&nobody).await;
    assert_eq!(verdict(&judgement, "answered"), Some(Verdict::Critical));
    assert!(DnsProbe::new("dns", "shop.test", "NONSENSE").is_err());
}
