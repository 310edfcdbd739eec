//! Mail by a real server: the handshake, alerts, and the round trip of what is sent.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use health_probe::notify::{
    CommandNotifier, Notifier, SmtpNotifier, SmtpServer, SmtpTls, WebhookFormat, WebhookNotifier,
};
use health_probe::{
    Context, ErrorKind, ImapMailbox, Judgement, Maildir, Message, Observation, Probe, Receipt, RoundTripProbe,
    SmtpProbe, Starttls, TlsProbe, Verdict, judge,
};
use storefront::answers::{self, Answer};
use storefront::certificates::{Authority, Kind};
use storefront::{imap, smtp};

async fn look(probe: &impl Probe) -> (Observation, Judgement) {
    let seen = probe.observe(&Context::at(Utc::now())).await.unwrap();
    let judgement = judge(&seen, &probe.spec().policy);
    (seen, judgement)
}

/// The mail server's certificate is for shop.test, which is no name of this machine.
async fn start(authority: &Authority, kind: Kind) -> smtp::Server {
    let (certificate, key) = authority.of(kind);
    smtp::Server::start(&certificate, &key, "geheim").await.unwrap()
}

#[tokio::test]
async fn a_mail_server_is_greeted_and_what_is_sent_arrives() {
    let authority = Authority::new().unwrap();
    let mail = start(&authority, Kind::Good).await;
    // Without TLS and login, as from this machine itself.
    let server = SmtpServer::new("127.0.0.1", mail.port(), SmtpTls::None);
    let (seen, judgement) = look(&SmtpProbe::new("mail", server.clone())).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?}");
    let notifier: Arc<dyn Notifier> = Arc::new(
        SmtpNotifier::new("mail", server.clone(), "Shop <shop@shop.test>", &["inbox@shop.test".into()]).unwrap(),
    );
    let receipt = Arc::new(Maildir::new(mail.maildir()));
    let trip = RoundTripProbe::new("mail", Arc::clone(&notifier), receipt.clone(), Duration::from_secs(20));
    let (seen, judgement) = look(&trip).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?} {:?}", mail.log());
    assert!(!receipt.arrived("caretaker-", Utc::now()).await.unwrap(), "the mail was taken away");
    // What nobody takes was not sent, and what goes elsewhere does not arrive.
    let nobody = SmtpNotifier::new("mail", server, "shop@shop.test", &["x@elsewhere.test".into()]).unwrap();
    let trip = RoundTripProbe::new("mail", Arc::new(nobody), receipt, Duration::from_secs(5));
    let (seen, judgement) = look(&trip).await;
    assert_eq!(judgement.verdict, Verdict::Critical, "{seen:?}");
    let elsewhere = Arc::new(Maildir::new("/nothing/there"));
    let trip = RoundTripProbe::new("mail", notifier, elsewhere, Duration::from_millis(1500));
    let (seen, judgement) = look(&trip).await;
    assert_eq!(judgement.finding("arrived").unwrap().verdict, Verdict::Critical, "{seen:?}");
}

#[tokio::test]
async fn starttls_of_a_mail_server_has_a_certificate_to_be_judged() {
    let authority = Authority::new().unwrap();
    for (kind, verdict) in [(Kind::Good, Verdict::Healthy), (Kind::Expired, Verdict::Critical)] {
        let mail = start(&authority, kind).await;
        let probe = TlsProbe::new("mail tls", "shop.test", mail.port())
            .pinned_to(([127, 0, 0, 1], mail.port()).into())
            .after(Starttls::Smtp)
            .trusting(&authority.root())
            .unwrap();
        let (seen, judgement) = look(&probe).await;
        assert_eq!(judgement.verdict, verdict, "{kind:?}: {judgement:?} {seen:?}");
        // The certificate is for another name than 127.0.0.1: nothing is sent, and no password.
        let strict = SmtpServer::new("127.0.0.1", mail.port(), SmtpTls::Starttls)
            .trusting(&authority.root())
            .unwrap()
            .with_login("shop", "geheim")
            .unwrap();
        let (seen, judgement) = look(&SmtpProbe::new("mail", strict)).await;
        assert_eq!(judgement.verdict, Verdict::Critical, "{seen:?}");
        assert!(!mail.log().unwrap().contains("geheim"));
    }
    assert!(SmtpServer::new("h", 25, SmtpTls::None).with_login("a", "b").is_err(), "no password in the clear");
    let nobody = SmtpServer::new("127.0.0.1", 9, SmtpTls::None);
    assert_eq!(look(&SmtpProbe::new("mail", nobody)).await.1.verdict, Verdict::Critical);
}

#[tokio::test]
async fn what_is_sent_is_seen_over_imap() {
    let authority = Authority::new().unwrap();
    let mail = start(&authority, Kind::Good).await;
    let (certificate, key) = authority.of(Kind::Good);
    let inbox = imap::Server::start(&certificate, &key, &mail.maildir(), "p\"w").await.unwrap();
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let mailbox = |password: &str| {
        ImapMailbox::new("shop.test", "inbox", password)
            .at_port(inbox.port())
            .pinned_to(at(inbox.port()))
            .trusting(&authority.root())
            .unwrap()
    };
    let server = SmtpServer::new("127.0.0.1", mail.port(), SmtpTls::None);
    let notifier: Arc<dyn Notifier> =
        Arc::new(SmtpNotifier::new("mail", server, "Shop <shop@shop.test>", &["inbox@shop.test".into()]).unwrap());
    let trip = |receipt: ImapMailbox, within: u64| {
        RoundTripProbe::new("mail", Arc::clone(&notifier), Arc::new(receipt), Duration::from_secs(within))
    };
    // What others wrote, and what others marked as deleted, stays.
    notifier.notify(&Message::test(Utc::now(), "somebody-elses")).await.unwrap();
    let (seen, judgement) = look(&trip(mailbox("p\"w"), 60)).await;
    assert_eq!(judgement.verdict, Verdict::Healthy, "{seen:?} {:?}", inbox.log());
    let left = mailbox("p\"w");
    assert!(!left.arrived("caretaker-", Utc::now()).await.unwrap(), "the mail was taken away");
    let starttls = mailbox("p\"w").at_port(inbox.starttls_port()).pinned_to(at(inbox.starttls_port()));
    assert!(starttls.with_starttls().arrived("somebody-elses", Utc::now()).await.unwrap(), "and that one alone");

    // What cannot be looked into says nothing of the mail.
    for (wrong, kind) in [
        (mailbox("wrong-geheim"), ErrorKind::Denied),
        (mailbox("p\"w").in_folder("Nowhere"), ErrorKind::Denied),
        (mailbox("p\"w").pinned_to(at(9)), ErrorKind::Unreachable),
        (ImapMailbox::new("other.test", "inbox", "x").pinned_to(at(inbox.port())), ErrorKind::Unreachable),
    ] {
        let e = wrong.arrived("token", Utc::now()).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(!format!("{e:?} {wrong:?}").contains("geheim"), "{e:?}");
        let e = trip(wrong, 5).observe(&Context::at(Utc::now())).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
    assert_eq!(left.arrived("x\" OR ALL", Utc::now()).await.unwrap_err().kind(), ErrorKind::Config);
    let hangs = answers::Server::start(Answer::Silent).await.unwrap();
    let port: u16 = hangs.url().rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap();
    let e = trip(mailbox("p\"w").pinned_to(at(port)), 1).observe(&Context::at(Utc::now())).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Timeout, "nobody could look: {e}");
}

#[tokio::test]
async fn webhooks_and_commands_deliver_or_say_why_not() {
    let message = Message::test(Utc::now(), "token-1");
    let server = answers::Server::start(Answer::Plain(200, String::new(), "ok".into())).await.unwrap();
    let secret = format!("{}/services/T0/B0/geheimgeheim", server.url());
    for (format, field) in [(WebhookFormat::Json, "\"subject\""), (WebhookFormat::Slack, "\"attachments\"")] {
        let hook = WebhookNotifier::new("hook", &secret, format).unwrap();
        hook.notify(&message).await.unwrap();
        let request = server.requests().pop().unwrap();
        assert!(
            request.starts_with("POST /services/") && request.contains(field) && request.contains("token-1"),
            "{request}"
        );
        assert!(!format!("{hook:?}").contains("geheim"));
    }
    let hook =
        WebhookNotifier::new("hook", &secret, WebhookFormat::Slack).unwrap().with_limit(Duration::from_millis(500));
    for (answer, kind) in [
        (Answer::Json(404, "no_service".into()), ErrorKind::Denied),
        (Answer::Json(503, "{}".into()), ErrorKind::Unreachable),
        (Answer::Json(429, "{}".into()), ErrorKind::Unreachable),
        (Answer::Silent, ErrorKind::Unreachable),
        (Answer::Loop, ErrorKind::Denied),
    ] {
        server.answer("/services", answer);
        let e = hook.notify(&message).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
        assert!(!format!("{e:?} {:?}", e.next_step()).contains("geheim"), "{e:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let script = format!("cat > {}; echo \"$CARETAKER_KIND\" >> {}", out.display(), out.display());
    let command = CommandNotifier::new("command", "sh", vec!["-c".into(), script]);
    command.notify(&message).await.unwrap();
    let said = std::fs::read_to_string(&out).unwrap();
    assert!(said.contains("token-1") && said.trim_end().ends_with("test"), "{said}");
    let fails = CommandNotifier::new("c", "sh", vec!["-c".into(), "echo password=geheim >&2; exit 3".into()]);
    let e = fails.notify(&message).await.unwrap_err().to_string();
    assert!(e.contains("exit status: 3") && !e.contains("geheim"), "{e}");
    let hangs = CommandNotifier::new("c", "sleep", vec!["100".into()]).with_limit(Duration::from_millis(200));
    assert!(hangs.notify(&message).await.unwrap_err().to_string().contains("killed"));
    assert!(CommandNotifier::new("c", "/no/such/program", vec![]).notify(&message).await.is_err());
}
