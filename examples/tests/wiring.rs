//! What stands between a shop's own programs and the tools: scripts by node and php, maintenance mode in PHP, Next.js and nginx.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use storefront::{Size, nginx, sqlite};
use support::{code, text, tool};

const TOKEN: &str = "a-token-of-some-length";

fn wiring(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wiring").join(file)
}

/// A shop on SQLite with its repository and its configuration.
async fn shop() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    sqlite::create(&at.join("shop.db"), &Size::orders(20), 1).await.unwrap();
    let store = format!("file://{}", at.join("store").display());
    let made = Command::new(tool("backup")).args(["init", "--no-encryption", "--store", &store]).output().unwrap();
    assert_eq!(code(&made), 0, "{}", text(&made));
    let config = at.join("caretaker.toml");
    let text = format!(
        "[shop]\nname = \"Shop\"\nstate = \"{0}/state\"\n[backup]\nstores = [\"{store}\"]\n\
         [[backup.source]]\nname = \"shop\"\nurl = \"sqlite:{0}/shop.db\"\n\
         [agent]\nlisten = \"127.0.0.1:0\"\ntoken = \"{TOKEN}\"\n",
        at.display()
    );
    std::fs::write(&config, text).unwrap();
    (dir, config)
}

/// The agent on a free port, ended with the value.
struct Agent {
    child: Child,
    url: String,
    _stderr: std::thread::JoinHandle<()>,
}

impl Agent {
    fn start(config: &Path) -> Self {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new(tool("agent"))
            .args(["--config", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the agent ended").unwrap();
            if let Some(url) = line.strip_prefix("listening on ") {
                break url.to_owned();
            }
        };
        // Read on, or it would wait for somebody to.
        let stderr = std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, _stderr: stderr }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(kind: &str, environment: &[(&str, &str)]) -> Output {
    let (program, file) = match kind {
        "node" => ("node", "scripts/backup-database.js"),
        _ => ("php", "scripts/backup_db.php"),
    };
    let mut command = Command::new(program);
    command.arg(wiring(file)).env_remove("CARETAKER_URL").envs(environment.iter().copied());
    command.output().unwrap()
}

fn executable(path: &Path, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_of_node_and_php_back_up_and_say_when_they_could_not() {
    let (dir, config) = shop().await;
    let (program, config_at) = (tool("agent"), config.to_str().unwrap().to_owned());
    let by_tool = [("CARETAKER_AGENT", program.to_str().unwrap()), ("CARETAKER_CONFIG", &*config_at)];
    let snapshots = || {
        let store = format!("file://{}", dir.path().join("store").display());
        let listed = Command::new(tool("backup")).args(["list", "--json", "--store", &store]).output().unwrap();
        let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
        listed["snapshots"].as_array().unwrap().len()
    };
    for kind in ["node", "php"] {
        let before = snapshots();
        let done = script(kind, &by_tool);
        assert_eq!(code(&done), 0, "{kind}: {}", text(&done));
        assert!(text(&done).starts_with("backup: well: taken: shop "), "{kind}: {}", text(&done));
        assert_eq!(snapshots(), before + 1);

        // What goes wrong is the script's exit code, with the reason.
        std::fs::rename(dir.path().join("store"), dir.path().join("away")).unwrap();
        let failed = script(kind, &by_tool);
        assert_eq!(code(&failed), 3, "{kind}: {}", text(&failed));
        assert!(
            text(&failed).contains("backup: failed: ") && text(&failed).contains("store"),
            "{kind}: {}",
            text(&failed)
        );
        std::fs::rename(dir.path().join("away"), dir.path().join("store")).unwrap();
        let wrong = script(kind, &[by_tool[0], ("CARETAKER_CONFIG", "/no/such.toml")]);
        assert_eq!(code(&wrong), 2, "{kind}: {}", text(&wrong));
        let missing = script(kind, &[("CARETAKER_AGENT", "/no/such/agent")]);
        assert_ne!(code(&missing), 0, "{kind}: {}", text(&missing));
        // A tool that says nothing, and one that is killed after it said that all is well.
        let silent = executable(&dir.path().join("silent"), "#!/bin/sh\nexit 0\n");
        assert_eq!(code(&script(kind, &[("CARETAKER_AGENT", &silent)])), 3, "{kind}");
        let killed = "#!/bin/sh\necho '{\"end\":\"well\",\"note\":\"x\"}'\nkill -9 $$\n";
        let killed = executable(&dir.path().join("killed"), killed);
        let killed = script(kind, &[("CARETAKER_AGENT", &killed)]);
        assert_eq!(code(&killed), 3, "{kind}: {}", text(&killed));
    }
    // The same by the agent.
    let agent = Agent::start(&config);
    for kind in ["node", "php"] {
        let ask = |token: &str, url: &str| script(kind, &[("CARETAKER_URL", url), ("CARETAKER_TOKEN", token)]);
        let before = snapshots();
        // Its own run of the same job may be in hand: then it says so.
        let until = Instant::now() + Duration::from_secs(60);
        let done = loop {
            let done = ask(TOKEN, &agent.url);
            if !text(&done).contains("runs just now") || Instant::now() > until {
                break done;
            }
        };
        assert_eq!(code(&done), 0, "{kind}: {}", text(&done));
        assert!(snapshots() > before, "{kind}");
        let wrong = ask("a-token-that-is-wrong", &agent.url);
        assert_eq!(code(&wrong), 2, "{kind}: {}", text(&wrong));
        assert!(!text(&wrong).contains("a-token-that-is-wrong"));
        let nobody = ask(TOKEN, "http://127.0.0.1:1");
        assert_eq!(code(&nobody), 3, "{kind}: {}", text(&nobody));
    }
}

fn mode(arguments: &[&str]) {
    let done = Command::new(tool("maintain")).arg("mode").args(arguments).output().unwrap();
    assert!(code(&done) <= 1, "{}", text(&done));
}

/// PHP's own server, with the snippet before each page.
#[test]
fn a_php_shop_closes_opens_and_lets_the_bearer_of_the_token_in() {
    let dir = tempfile::tempdir().unwrap();
    let (flag, token) = (dir.path().join("closed"), dir.path().join("token"));
    std::fs::write(&token, "the bearer's secret\n").unwrap();
    let page = format!("<?php require '{}'; echo 'the shop';\n", wiring("php/maintenance.php").display());
    std::fs::write(dir.path().join("index.php"), page).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let child = Command::new("php")
        .args(["-S", &format!("127.0.0.1:{port}"), "-t", dir.path().to_str().unwrap()])
        .env("CARETAKER_FLAG_FILE", &flag)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Mutex::new(child);
    let _ended = scopeguard(&server);
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "php does not listen");
    }
    let get = |path: &str| get(port, path, "");
    let open = |answer: String| assert!(answer.ends_with("the shop"), "{answer:?}");
    open(get("/"));
    let flag_at = flag.to_str().unwrap();
    mode(&[
        "on",
        "--flag-file",
        flag_at,
        "--for",
        "30m",
        "--reason",
        "<b>new</b> shelves",
        "--bypass-token-file",
        token.to_str().unwrap(),
    ]);
    let closed = get("/");
    assert!(closed.starts_with("HTTP/1.1 503") || closed.starts_with("HTTP/1.0 503"), "{closed}");
    assert!(closed.contains("&lt;b&gt;new&lt;/b&gt; shelves") && closed.contains("Retry-After: 1"), "{closed}");
    assert!(get("/?bypass=wrong").contains(" 503 "));
    let led = get("/?bypass=the%20bearer%27s%20secret&page=2");
    assert!(
        led.contains(" 302 ") && led.contains("Location: /?page=2\r\n") && led.contains("caretaker_bypass="),
        "{led}"
    );
    open(get("/health?x=1"));
    let cookie = "Cookie: caretaker_bypass=the%20bearer%27s%20secret\r\n";
    open(self::get(port, "/", cookie));
    // Its time over, it opens by itself; one that was made by hand closes it.
    std::fs::write(&flag, r#"{"reason":"x","until":"2020-01-01T00:00:00Z","bypass_sha256":null}"#).unwrap();
    open(get("/"));
    std::fs::write(&flag, "").unwrap();
    assert!(get("/").contains(" 503 "));
    mode(&["off", "--flag-file", flag_at]);
    open(get("/"));
}

/// Ends a program with the scope.
fn scopeguard(child: &Mutex<Child>) -> impl Drop + '_ {
    struct End<'a>(&'a Mutex<Child>);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            if let Ok(mut child) = self.0.lock() {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
    End(child)
}

fn get(port: u16, path: &str, headers: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    // In one piece: PHP's own server does not wait for the rest of a head.
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// The middleware by node, whose Request and Response are those of Next.js' runtime.
#[test]
fn a_next_shop_closes_opens_and_lets_the_bearer_of_the_token_in() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(wiring("nextjs/middleware.js"), dir.path().join("middleware.mjs")).unwrap();
    let (env, token) = (dir.path().join(".env"), dir.path().join("token"));
    std::fs::write(&env, "DATABASE_URL=postgres://x\n").unwrap();
    std::fs::write(&token, "secret token\n").unwrap();
    let probe = r#"
        import { readFileSync } from 'node:fs';
        for (const line of readFileSync('.env', 'utf8').split('\n')) {
          const [, name, value] = /^([A-Z0-9_]+)=(.*)$/.exec(line) ?? [];
          if (name) process.env[name] = value.replace(/^"(.*)"$/, '$1');
        }
        globalThis.crypto ??= (await import('node:crypto')).webcrypto;
        const { default: middleware } = await import('./middleware.mjs');
        const ask = async (url, headers = {}) => {
          const answer = await middleware(new Request(url, { headers }));
          return answer ? [answer.status, answer.headers.get('retry-after') !== null, answer.headers.get('set-cookie') !== null, await answer.text()] : null;
        };
        console.log(JSON.stringify([
          await ask('https://shop.example/'),
          await ask('https://shop.example/?bypass=wrong'),
          await ask('https://shop.example/cart?bypass=secret%20token'),
          await ask('https://shop.example/', { cookie: 'a=b; caretaker_bypass=secret%20token' }),
        ]));
    "#;
    std::fs::write(dir.path().join("probe.mjs"), probe).unwrap();
    let ask = || -> serde_json::Value {
        let output = Command::new("node").arg("probe.mjs").current_dir(dir.path()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
    };
    assert_eq!(ask(), serde_json::json!([null, null, null, null]), "open");
    let env_at = env.to_str().unwrap();
    mode(&[
        "on",
        "--env-file",
        env_at,
        "--for",
        "30m",
        "--reason",
        "new <i>shelves</i>",
        "--bypass-token-file",
        token.to_str().unwrap(),
    ]);
    let closed = ask();
    assert_eq!((closed[0][0].as_u64(), &closed[0][1]), (Some(503), &true.into()), "{closed}");
    assert!(closed[0][3].as_str().unwrap().contains("new &#60;i&#62;shelves"), "{closed}");
    assert_eq!(closed[1][0], 503);
    assert_eq!((&closed[2][0], &closed[2][2]), (&302.into(), &true.into()), "{closed}");
    assert_eq!(closed[3], serde_json::Value::Null);
    let text = std::fs::read_to_string(&env).unwrap();
    let over: String = text
        .lines()
        .map(|l| {
            if l.starts_with("MAINTENANCE_UNTIL") {
                "MAINTENANCE_UNTIL=2020-01-01T00:00:00Z\n".to_owned()
            } else {
                format!("{l}\n")
            }
        })
        .collect();
    std::fs::write(&env, over).unwrap();
    assert_eq!(ask()[0], serde_json::Value::Null, "its time over, it opens by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_nginx_shop_closes_and_opens() {
    let snippet = std::fs::read_to_string(wiring("nginx/maintenance.conf"))
        .unwrap()
        .replace("/var/www/shop/closed", "{here}/closed");
    let site = format!("server {{ listen 127.0.0.1:{{port}};\n{snippet}\nlocation / {{ return 200 'the shop'; }} }}");
    let server = nginx::Server::start(&site).await.unwrap();
    let flag = server.directory().join("closed");
    let get = || get(server.port(), "/", "");
    assert!(get().ends_with("the shop"));
    mode(&["on", "--flag-file", flag.to_str().unwrap()]);
    let closed = get();
    assert!(
        closed.starts_with("HTTP/1.1 503") && closed.contains("Retry-After: 600") && closed.contains("Back soon"),
        "{closed}"
    );
    assert!(self::get(server.port(), "/api/health", "").ends_with("the shop"), "health stays up");
    mode(&["off", "--flag-file", flag.to_str().unwrap()]);
    assert!(get().ends_with("the shop"));
}

/// Lines of cron and units call tools that there are, with flags that they have.
#[test]
fn what_is_written_for_others_names_what_there_is() {
    let mut called = 0;
    for file in
        ["crontab", "systemd/caretaker-agent.service", "systemd/caretaker-nightly.service", "kubernetes/nightly.yaml"]
    {
        let text =
            std::fs::read_to_string(wiring(file)).unwrap().replace("[\"nightly\", \"", "/usr/local/bin/nightly ");
        for call in text.lines().filter_map(|line| line.split_once("/usr/local/bin/")).map(|(_, call)| call) {
            let (name, flags) = call.split_once(' ').unwrap();
            let help = support::text(&Command::new(tool(name)).arg("--help").output().unwrap());
            for flag in flags.split([' ', '"', ',']).filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{file}: {name} has no {flag}");
                called += 1;
            }
        }
    }
    assert!(called > 6, "{called}");
}

/// Both samples, as they stand, and what is said of slips in them.
#[test]
fn the_samples_make_sense_and_slips_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str, secrets: bool, url: &str| {
        let file = dir.path().join("caretaker.toml");
        let text = text.replace("/var/lib/caretaker\"", &format!("{}/state\"", dir.path().display()));
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(tool("agent"));
        command.args(["--check-config", "--config", file.to_str().unwrap()]).env_clear();
        if secrets {
            let names = [
                "CARETAKER_TOKEN",
                "HEARTBEAT_URL",
                "PAYSTACK_SECRET_KEY",
                "REMITA_API_KEY",
                "SENTRY_TOKEN",
                "CRUX_API_KEY",
                "PROBE_MAIL_PASSWORD",
                "SLACK_WEBHOOK_URL",
                "SMTP_PASSWORD",
                "STRIPE_RESTRICTED_KEY",
            ];
            command.envs(names.map(|n| (n, "https://hooks.example/0123456789abcdef"))).env("DATABASE_URL", url);
        }
        command.output().unwrap()
    };
    let samples = [
        ("caretaker.toml", "postgres://shop:geheim@localhost/shop"),
        ("caretaker-php.toml", "mysql://shop:geheim@localhost/shop"),
    ];
    for (name, url) in samples {
        let text_of = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        let good = check(&text_of, true, url);
        assert_eq!(code(&good), 0, "{name}: {}", text(&good));
        assert!(text(&good).contains("backup") && text(&good).contains("tier orders"), "{name}: {}", text(&good));
        let missing = check(&text_of, false, url);
        assert_eq!(code(&missing), 2, "{name}: {}", text(&missing));
        assert!(text(&missing).contains("is not set"), "{name}: {}", text(&missing));
        for (slip, instead, said) in [
            ("rpo = \"26h\"", "rpo = \"26 hours\"", "26 hours"),
            ("[[backup.tier]]", "[[backup.tiers]]", "tiers"),
            ("name = \"orders\"\nsource = \"shop\"", "name = \"orders\"\nsource = \"shoop\"", "shoop"),
            ("token = \"env:CARETAKER_TOKEN\"", "token = \"short\"", "16 characters"),
            (
                "[agent]",
                "[agent]\njobs.nothing = \"daily 03:00\"\n",
                if name.contains("php") { "nothing" } else { "jobs" },
            ),
        ] {
            let wrong = check(&text_of.replacen(slip, instead, 1), true, url);
            assert_eq!(code(&wrong), 2, "{name}: {instead}: {}", text(&wrong));
            assert!(text(&wrong).contains(said), "{name}: {instead}: {}", text(&wrong));
            assert!(!text(&wrong).contains("geheim"), "{}", text(&wrong));
        }
    }
}
