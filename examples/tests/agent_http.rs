//! The agent's faces: who may what, and who may not.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use storefront::chromium::{self, Screen};
use storefront::{Size, sqlite};
use support::{code, text, tool};

const TOKEN: &str = "a-token-of-some-length";
const SCREEN: Screen = Screen { width: 1280, height: 900, mobile: false, dark: false };

struct Agent {
    dir: tempfile::TempDir,
    child: Child,
    address: String,
}

impl Agent {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        sqlite::create(&at.join("shop.db"), &Size::orders(20), 1).await.unwrap();
        let store = format!("file://{}", at.join("store").display());
        let made = Command::new(tool("backup")).args(["init", "--no-encryption", "--store", &store]).output().unwrap();
        assert_eq!(code(&made), 0, "{}", text(&made));
        let config = at.join("caretaker.toml");
        let text = format!(
            "[shop]\nname = \"<b>Shop</b>\"\nstate = \"{0}/state\"\n[[probe.database]]\nid = \"database\"\nurl = \"sqlite:{0}/shop.db\"\n\
             [backup]\nstores = [\"{store}\"]\n[[backup.source]]\nname = \"shop\"\nurl = \"sqlite:{0}/shop.db\"\n\
             [agent]\nlisten = \"127.0.0.1:0\"\ntoken = \"env:CARETAKER_TOKEN\"\njitter = \"0s\"\n",
            at.display()
        );
        std::fs::write(&config, text).unwrap();
        let (child, address) = Self::run(&config);
        Self { dir, child, address }
    }

    fn run(config: &Path) -> (Child, String) {
        let mut child = Command::new(tool("agent"))
            .args(["--config", config.to_str().unwrap()])
            .env("CARETAKER_TOKEN", TOKEN)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the agent ended").unwrap();
            if let Some(url) = line.strip_prefix("listening on http://") {
                break url.to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        (child, address)
    }

    fn send(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        // It may answer, and close, before it has read all of it.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        self.send(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
    }

    fn status(&self, method: &str, path: &str, headers: &str) -> u16 {
        let answer = self.ask(method, path, headers, "");
        answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{method} {path}: {answer:?}"))
    }

    /// Until each of its jobs was done for the first time.
    fn settle(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
        while self.ask("GET", "/api/jobs", &bearer, "").contains("\"last\":null") {
            assert!(Instant::now() < until, "not all jobs were done");
            std::thread::yield_now();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_token_and_who_has_not() {
    let agent = Agent::start().await;
    for path in ["/healthz", "/readyz", "/", "/metrics"] {
        assert_eq!(agent.status("GET", path, ""), 200, "{path}");
    }
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    for (method, path) in [("GET", "/api/jobs"), ("GET", "/report"), ("POST", "/api/jobs/backup/run")] {
        assert_eq!(agent.status(method, path, ""), 401, "{path}");
        assert_eq!(agent.status(method, path, "Authorization: Bearer a-token-of-some-lengtH\r\n"), 401, "{path}");
    }
    let jobs = agent.ask("GET", "/api/jobs", &bearer, "");
    assert!(jobs.contains("\"name\":\"backup\"") && jobs.contains("daily 03:00"), "{jobs}");
    // What is not there, however it is asked for, and other methods.
    for path in [
        "/etc/passwd",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/jobs/..%2f..%2fx/run",
        "//healthz/..",
        "/api/jobs/%00/run",
    ] {
        let answer = agent.ask("GET", path, &bearer, "");
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(["400", "404", "405"].contains(&status) && !answer.contains("root:"), "{path}: {answer}");
    }
    assert_eq!(agent.status("DELETE", "/api/jobs", &bearer), 405);
    assert_eq!(agent.status("POST", "/api/jobs/nothing/run", &bearer), 404);
    // Nothing that is said holds the token or the shop's paths.
    let page = agent.ask("GET", "/", "", "");
    assert!(!page.contains(TOKEN) && !page.contains("<b>Shop") && page.contains("frame-ancestors 'none'"), "{page}");
    // Beacons: some, none, too much.
    let beacon = r#"{"name":"LCP","value":1800,"id":"v1-1","path":"/"}"#;
    assert!(agent.ask("POST", "/vitals", "", beacon).starts_with("HTTP/1.1 204"));
    assert!(agent.ask("POST", "/vitals", "", "{}").starts_with("HTTP/1.1 400"));
    assert!(agent.ask("POST", "/vitals", "", &"x".repeat(20_000)).starts_with("HTTP/1.1 413"));
    let endless = "POST /vitals HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx";
    let answer = agent.send(&format!("{endless}{}", "x".repeat(64 << 10)));
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let head = agent.send(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(64 << 10)));
    assert!(head.starts_with("HTTP/1.1 431") || head.is_empty(), "{}", &head[..head.len().min(100)]);
    assert!(agent.send("nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    // One who guesses is slowed down.
    let mut guesses = Vec::new();
    for _ in 0..15 {
        guesses.push(agent.status("GET", "/api/jobs", "Authorization: Bearer wrong\r\n"));
    }
    assert!(guesses.contains(&429), "{guesses:?}");
    assert_eq!(agent.status("GET", "/api/jobs", &bearer), 200, "the owner is let in all the same");
    // And one who asks all the time; health is answered all the same.
    let flood: Vec<u16> = (0..150).map(|_| agent.status("GET", "/", "")).collect();
    assert_eq!(flood.last(), Some(&429));
    assert_eq!(agent.status("GET", "/healthz", ""), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_says_nothing_keeps_nobody_waiting() {
    let agent = Agent::start().await;
    // As many as there is room for, and each says half a line.
    let mut slow: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(&agent.address).unwrap()).collect();
    for stream in &mut slow {
        stream.write_all(b"GET / HT").unwrap();
    }
    assert_eq!(agent.status("GET", "/healthz", ""), 200);
    // They are let go.
    for stream in &mut slow {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    assert_eq!(agent.status("GET", "/healthz", ""), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_open_in_a_browser_and_a_stop_is_graceful() {
    let mut agent = Agent::start().await;
    agent.settle();
    let page = chromium::open(&format!("http://{}/", agent.address), SCREEN).unwrap();
    assert!(page.complaints.is_empty(), "{page:?}");
    let bearer = format!("Authorization: Bearer {TOKEN}\r\n");
    let report = agent.ask("GET", "/report", &bearer, "");
    let body = report.split("\r\n\r\n").nth(1).unwrap();
    assert!(body.contains("backup") && body.contains("taken: shop") && body.contains("&lt;b&gt;Shop"), "{body}");
    let file = agent.dir.path().join("report.html");
    std::fs::write(&file, body).unwrap();
    let seen = chromium::open(&format!("file://{}", file.display()), SCREEN).unwrap();
    assert!(seen.complaints.is_empty(), "{seen:?}");
    let metrics = agent.ask("GET", "/metrics", "", "");
    assert!(
        metrics.contains("caretaker_job_failed{job=\"backup\"} 0") && metrics.trim_end().ends_with("# EOF"),
        "{metrics}"
    );
    // A job by hand, and then the end.
    let ran = agent.ask("POST", "/api/jobs/backup/run", &bearer, "");
    assert!(ran.starts_with("HTTP/1.1 200") && ran.contains("\"end\":\"well\""), "{ran}");
    let schema: serde_json::Value = serde_json::from_str(include_str!("../schemas/agent.schema.json")).unwrap();
    for (kind, answer) in [("ran", ran), ("jobs", agent.ask("GET", "/api/jobs", &bearer, ""))] {
        let document = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        support::fits(&document, &schema["$defs"][kind], &schema, kind);
    }
    assert!(Command::new("kill").arg(agent.child.id().to_string()).status().unwrap().success());
    assert_eq!(agent.child.wait().unwrap().code(), Some(0));
}
