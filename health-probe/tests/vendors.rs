//! Other people's services, by servers that answer with what those services were seen to answer: on good days and bad ones.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::time::Duration;

use chrono::{Datelike, TimeDelta, Utc};
use health_probe::{Context, Judgement, Observation, Probe, VendorProbe, Verdict, judge};
use storefront::answers::{Answer, Server};

async fn look(probe: &VendorProbe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

fn all(url: &str) -> Vec<VendorProbe> {
    within(url, Duration::from_secs(30))
}

fn within(url: &str, limit: Duration) -> Vec<VendorProbe> {
    let probes = [
        VendorProbe::statuspage("paystack status", url),
        VendorProbe::stripe_status("stripe status", url),
        VendorProbe::stripe_key("stripe key", url, "rk_live_geheimgeheim"),
        VendorProbe::paystack_key("paystack key", url, "sk_live_geheimgeheim"),
        VendorProbe::remita_key("remita key", url, "2547916", "geheimgeheim", "310008169517"),
        VendorProbe::sentry("sentry", url, "shop", "web", "sntrys_geheimgeheim"),
        VendorProbe::crux("crux", url, "AIza_geheimgeheim", "https://shop.example/cart?x=1", Some("PHONE")),
    ];
    probes.into_iter().map(|p| p.unwrap().with_limit(limit)).collect()
}

fn issue(hours: i64, substatus: &str) -> String {
    let first = (Utc::now() - TimeDelta::hours(hours)).to_rfc3339();
    format!(
        r#"{{"id":"1","title":"TypeError: x is undefined","firstSeen":"{first}","substatus":"{substatus}","count":"12"}}"#
    )
}

fn statuspage(indicator: &str) -> String {
    format!(
        r#"{{"page":{{"id":"x","name":"Paystack"}},"status":{{"indicator":"{indicator}","description":"d"}},
        "components":[{{"name":"API","status":"operational"}},{{"name":"Transfers","status":"partial_outage"}}],
        "incidents":[{{"name":"Delayed transfers","impact":"minor"}}],"scheduled_maintenances":[]}}"#
    )
}

/// A record of the Chrome UX Report that ends so many days ago.
fn report(days: i64, metrics: &str) -> String {
    let date = |days: i64| {
        let day = (Utc::now() - TimeDelta::days(days)).date_naive();
        format!(r#"{{"year":{},"month":{},"day":{}}}"#, day.year(), day.month(), day.day())
    };
    format!(
        r#"{{"record":{{"key":{{"formFactor":"PHONE","origin":"https://shop.example"}},"metrics":{metrics},
        "collectionPeriod":{{"firstDate":{},"lastDate":{}}}}}}}"#,
        date(days + 27),
        date(days)
    )
}

fn vitals(lcp: &str, inp: &str, cls: &str) -> String {
    let one = |name: &str, p75: &str| {
        format!(r#""{name}":{{"histogram":[{{"start":0,"end":1,"density":0.9}}],"percentiles":{{"p75":{p75}}}}}"#)
    };
    let all = [
        one("largest_contentful_paint", lcp),
        one("interaction_to_next_paint", inp),
        one("cumulative_layout_shift", cls),
    ];
    format!("{{{}}}", all.join(","))
}

#[tokio::test]
async fn what_chromes_users_see_is_held_against_googles_limits() {
    let server = Server::start(Answer::Json(404, "{}".into())).await.unwrap();
    let verdicts = |judgement: &Judgement| ["LCP", "INP", "CLS"].map(|n| judgement.finding(n).map(|f| f.verdict));
    use Verdict::{Critical, Healthy, Unknown, Warning};
    for (answer, wanted) in [
        (report(2, &vitals("2500", "200", r#""0.10""#)), [Some(Healthy); 3]),
        (report(2, &vitals("2501", "501", r#""0.26""#)), [Some(Warning), Some(Critical), Some(Critical)]),
        (report(2, &vitals("1200", "null", r#""x""#)), [Some(Healthy), Some(Unknown), Some(Unknown)]),
        (report(2, r#"{"largest_contentful_paint":{"percentiles":{"p75":900}}}"#), [Some(Healthy), None, None]),
        (report(20, &vitals("900", "90", r#""0.0""#)), [Some(Unknown); 3]),
        (r#"{"record":{}}"#.into(), [Some(Unknown); 3]),
    ] {
        server.answer("/v1/records:queryRecord", Answer::Json(200, answer.clone()));
        let (seen, judgement) = look(&all(&server.url()).swap_remove(6)).await;
        assert_eq!(verdicts(&judgement), wanted, "{answer}: {seen:?}");
    }
    let asked = server.requests().pop().unwrap();
    assert!(asked.starts_with("POST /v1/records:queryRecord "), "{asked}");
    assert!(asked.contains(r#"{"formFactor":"PHONE","origin":"https://shop.example"}"#), "{asked}");
    assert!(asked.contains("x-goog-api-key: AIza_geheimgeheim"), "not in the address: {asked}");
    for (status, answer, key, idle) in [
        (
            400,
            r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
            Some(Warning),
            false,
        ),
        (
            403,
            r#"{"error":{"code":403,"message":"Requests to this API are blocked.","status":"PERMISSION_DENIED"}}"#,
            Some(Warning),
            false,
        ),
        (
            429,
            r#"{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}"#,
            Some(Unknown),
            false,
        ),
        (404, r#"{"error":{"code":404,"message":"chrome ux report data not found","status":"NOT_FOUND"}}"#, None, true),
        // A wrong address is no small shop.
        (404, "{}", Some(Unknown), false),
    ] {
        server.answer("/v1/records:queryRecord", Answer::Json(status, answer.into()));
        let (seen, judgement) = look(&all(&server.url()).swap_remove(6)).await;
        assert_eq!(judgement.finding("key accepted").map(|f| f.verdict), key, "{answer}: {seen:?}");
        assert_eq!((judgement.is_idle(), judgement.verdict.is_healthy()), (idle, false), "{answer}: {judgement:?}");
    }
    assert!(VendorProbe::crux("c", &server.url(), "k", "https://shop.example", Some("phone")).is_err());
}

#[tokio::test]
async fn good_days() {
    let server = Server::start(Answer::Json(404, "{}".into())).await.unwrap();
    server.answer("/api/v2/summary.json", Answer::Json(200, statuspage("none")));
    server.answer("/current", Answer::Json(200, r#"{"largestatus":"up","message":"All services are online."}"#.into()));
    let balance = r#"{"object":"balance","available":[{"amount":1,"currency":"gbp"}],"livemode":true}"#;
    server.answer("/v1/balance", Answer::Json(200, balance.into()));
    server.answer("/balance", Answer::Json(200, r#"{"status":true,"message":"Balances retrieved","data":[]}"#.into()));
    let paid = r#"jsonp ({"amount":5000.0,"RRR":"310008169517","orderId":"7","message":"Approved","status":"00"})"#;
    server.answer("/echannelsvc/2547916/310008169517/", Answer::Json(200, paid.into()));
    server.answer("/api/0/projects/shop/web/issues/", Answer::Json(200, format!("[{}]", issue(200, "ongoing"))));
    server.answer("/v1/records:queryRecord", Answer::Json(200, report(2, &vitals("1200", "90", r#""0.01""#))));
    for probe in all(&server.url()) {
        let (seen, judgement) = look(&probe).await;
        assert_eq!(judgement.verdict, Verdict::Healthy, "{}: {judgement:?} {seen:?}", probe.spec().id);
        let shown = format!("{probe:?} {seen:?}");
        assert!(!shown.contains("geheim") && !shown.contains("4f500d3c"), "{shown}");
    }
    let asked = server.requests();
    assert!(asked[..6].iter().all(|r| r.starts_with("GET ")), "nothing is changed");
    // SHA-512 of reference, key and merchant: `printf 310008169517geheimgeheim2547916 | sha512sum`.
    let hash = "4f500d3c22f26ea8eff63e1295f502dc25101dd9de627dd293a5e670c0f424d4167989ab6e5c6598e3ec575d80a5814869eb17255184e26be294836f9e10f210";
    assert!(asked[4].starts_with(&format!("GET /echannelsvc/2547916/310008169517/{hash}/status.reg ")), "{}", asked[4]);
    assert!(asked[4].contains(&format!("authorization: remitaConsumerKey=2547916,remitaConsumerToken={hash}")));
    assert!(asked[2].contains("authorization: Bearer rk_live_geheimgeheim"));
}

#[tokio::test]
async fn bad_days() {
    let server = Server::start(Answer::Json(404, "{}".into())).await.unwrap();
    let one = |i: usize| all(&server.url()).swap_remove(i);
    for (indicator, verdict) in
        [("minor", Verdict::Warning), ("critical", Verdict::Warning), ("new-word", Verdict::Unknown)]
    {
        server.answer("/api/v2/summary.json", Answer::Json(200, statuspage(indicator)));
        let (seen, judgement) = look(&one(0)).await;
        assert_eq!(judgement.verdict, verdict, "{indicator}");
        assert!(seen.evidence.iter().any(|l| l.contains("Transfers")));
    }
    server
        .answer("/current", Answer::Json(200, r#"{"largestatus":"degraded","message":"Some payments fail."}"#.into()));
    assert_eq!(look(&one(1)).await.1.verdict, Verdict::Warning);
    for (status, verdict) in [(401, Some(Verdict::Critical)), (403, Some(Verdict::Unknown))] {
        // A restricted key without the right to read the balance may well take payments.
        let refused = r#"{"error":{"type":"invalid_request_error","message":"Invalid API Key provided"}}"#;
        server.answer("/v1/balance", Answer::Json(status, refused.into()));
        let (_, judgement) = look(&one(2)).await;
        assert_eq!(judgement.finding("key accepted").map(|f| f.verdict), verdict, "{status}");
    }
    // A shop that was left in test mode takes no money.
    server.answer("/v1/balance", Answer::Json(200, r#"{"object":"balance","livemode":false}"#.into()));
    assert_eq!(look(&one(2)).await.1.verdict, Verdict::Critical);
    assert_eq!(look(&one(2).in_test_mode()).await.1.verdict, Verdict::Healthy);
    server.answer("/balance", Answer::Json(200, r#"{"status":true,"data":[]}"#.into()));
    let test = VendorProbe::paystack_key("key", &server.url(), "sk_test_geheimgeheim").unwrap();
    assert_eq!(look(&test).await.1.finding("live mode").unwrap().verdict, Verdict::Critical);
    server.answer("/balance", Answer::Json(200, r#"{"status":false,"message":"Invalid key"}"#.into()));
    assert_eq!(look(&one(3)).await.1.finding("key accepted").unwrap().verdict, Verdict::Critical);
    for (answer, verdict) in [
        (r#"{"status":"022","message":"Invalid Request"}"#, Some(Verdict::Critical)),
        (r#"{"status":"00","message":"Approved","RRR":"1"}"#, Some(Verdict::Unknown)),
        (r#"{"status":"022","message":"Invalid Hash","RRR":"310008169517"}"#, Some(Verdict::Critical)),
        (r#"{"status":"021","message":"Transaction Pending","RRR":310008169517}"#, Some(Verdict::Healthy)),
        (r#"{"status":"998","message":"Unknown error"}"#, Some(Verdict::Unknown)),
    ] {
        server.answer("/echannelsvc/", Answer::Json(200, answer.into()));
        let (seen, judgement) = look(&one(4)).await;
        assert_eq!(judgement.finding("key accepted").map(|f| f.verdict), verdict, "{seen:?}");
    }
    let issues = format!("[{},{}]", issue(2, "new"), issue(500, "regressed"));
    server.answer("/api/0/", Answer::Json(200, issues));
    let (seen, judgement) = look(&one(5)).await;
    assert_eq!(
        (seen.finite("new"), seen.finite("regressed"), judgement.verdict),
        (Some(1.0), Some(1.0), Verdict::Warning)
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_never_healthy_and_ends_in_time() {
    let server = Server::start(Answer::Json(200, "{}".into())).await.unwrap();
    for answer in [
        Answer::Json(200, "{}".into()),
        Answer::Json(200, "[]x".into()),
        Answer::Json(200, r#"{"status":"none","object":7,"largestatus":true}"#.into()),
        Answer::Json(200, "<html>".into()),
        Answer::Json(500, "{}".into()),
        Answer::Json(204, String::new()),
        Answer::Garbage,
        Answer::Large(10 << 20),
        Answer::Endless,
        Answer::Loop,
        Answer::Silent,
        Answer::Hangup,
        Answer::Slow(Duration::from_secs(60), Box::new(Answer::Json(200, "{}".into()))),
    ] {
        server.answer("/", answer.clone());
        let looks = within(&server.url(), Duration::from_millis(700));
        let looks = looks.iter().map(look);
        for (seen, judgement) in futures::future::join_all(looks).await {
            assert_ne!(judgement.verdict, Verdict::Healthy, "{answer:?}: {seen:?}");
        }
    }
}
