//! The service that embeds all four crates, with what is its own, on a real Redis.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use storefront::{Size, redis, sqlite};
use support::tool;

struct Service(Child, String);

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.1).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("shop.db");
    sqlite::create(&db, &Size::orders(20), 1).await.unwrap();
    let server = redis::Server::start("").await.unwrap();
    let set = server.ask(&[
        "SET shop:greeting hello",
        "HSET shop:cart:1 sku-1 2 sku-2 1",
        "RPUSH shop:mails a b c",
        "SADD shop:tags x y z",
        "ZADD shop:top 1.5 lamp 3 chair",
        "SET shop:session abc",
        "PEXPIREAT shop:session 4102444800000",
        "SET other:key nothing",
    ]);
    assert!(set.unwrap().iter().all(|line| !line.starts_with('-')));
    for folder in ["pictures", "thumbnails"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("thumbnails/gone.jpg"), "x").unwrap();
    let mut child = Command::new(tool("embed"))
        .arg(&db)
        .arg(server.url())
        .args([dir.path().join("store"), dir.path().to_owned()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let service = Service(child, line.trim().strip_prefix("listening on ").unwrap().to_owned());

    let (status, said) = service.ask("GET", "/health");
    assert!(status == 200 && said.contains("mails that wait: healthy"), "{status} {said}");
    let (status, said) = service.ask("POST", "/backup");
    assert_eq!(status, 200, "{said}");
    assert!(said.contains("redis: 6 rows, verified"), "{said}");
    assert_eq!(service.ask("POST", "/drill"), (200, "restored, equal\n".into()));
    let left = server.ask(&["SELECT 1", "DBSIZE", "SELECT 0", "GET other:key"]).unwrap();
    assert_eq!(left[1], ":0", "the scratch place is empty again");

    // A mail queue that grows is seen; a server that is gone is not healthy.
    for n in 0..20 {
        let many: Vec<String> = (0..50).map(|i| format!("m{n}-{i}")).collect();
        server.ask(&[&format!("RPUSH shop:mails {}", many.join(" "))]).unwrap();
    }
    let (status, said) = service.ask("GET", "/health");
    assert!(status == 503 && said.contains("mails that wait: CRITICAL"), "{status} {said}");

    // A disk that is not mounted is no reason to remove everything.
    let (_, said) = service.ask("POST", "/thumbnails");
    assert!(said.contains("Failed") && dir.path().join("thumbnails/gone.jpg").exists(), "{said}");
    std::fs::write(dir.path().join("pictures/here.jpg"), "x").unwrap();
    let (_, said) = service.ask("POST", "/thumbnails");
    assert_eq!(said, "Well: 1 thumbnails removed\n");

    let (status, said) = service.ask("GET", "/inspect");
    assert_eq!(status, 200, "{said}");
    let (_, said) = service.ask("GET", "/checklist");
    assert!(said.contains("**UNKNOWN** Returns are answered"), "{said}");
    std::fs::write(dir.path().join("returns"), "0").unwrap();
    assert!(service.ask("GET", "/checklist").1.contains("**PASS** Returns are answered"));
    drop(server);
    let (status, said) = service.ask("GET", "/health");
    assert!(status == 503 && said.contains("mails that wait: UNKNOWN"), "{status} {said}");
}
