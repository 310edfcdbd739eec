//! A headless Chromium that opens one page and says what happened, by the DevTools protocol over two pipes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Error;

/// What a browser saw of a page.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Errors and warnings of the console, and exceptions.
    pub complaints: Vec<String>,
    /// Everything that was asked for, the page itself first.
    pub requests: Vec<String>,
    /// The visible text.
    pub text: String,
    /// Whether the page is wider than the screen.
    pub overflows: bool,
    /// A picture, as PNG.
    pub screenshot: Vec<u8>,
}

/// How wide the screen is, and whether it is dark.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// A phone.
    pub mobile: bool,
    /// Dark colours.
    pub dark: bool,
}

/// Opens a page. Blocking.
pub fn open(url: &str, screen: Screen) -> Result<Seen, Error> {
    let program = ["/usr/bin/chromium", "/usr/bin/chromium-headless-shell"].into_iter().find(|p| Path::new(p).exists());
    let program = program.ok_or_else(|| Error::Server("there is no Chromium here: apt-get install chromium".into()))?;
    let directory = tempfile::tempdir()?;
    let (to, from) = (directory.path().join("to"), directory.path().join("from"));
    for pipe in [&to, &from] {
        if !Command::new("mkfifo").arg(pipe).status()?.success() {
            return Err(Error::Server("mkfifo failed".into()));
        }
    }
    let script = format!(
        "exec setpriv --pdeathsig=KILL {program} --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
         --disable-background-networking --disable-component-update --disable-extensions --remote-debugging-pipe \
         --user-data-dir={0}/profile about:blank 3<{0}/to 4>{0}/from",
        directory.path().display()
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .env("HOME", directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let outcome = Browser::new(&to, &from).and_then(|mut browser| browser.visit(url, screen));
    // It ends with this process anyway.
    let _ = child.kill();
    let _ = child.wait();
    outcome
}

struct Browser {
    to: File,
    from: Receiver<Value>,
    next: u64,
    events: Vec<Value>,
    until: Instant,
}

impl Browser {
    fn new(to: &Path, from: &Path) -> Result<Self, Error> {
        let to = std::fs::OpenOptions::new().write(true).open(to)?;
        let pipe = BufReader::new(File::open(from)?);
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in pipe.split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        Ok(Self { to, from: receiver, next: 0, events: Vec::new(), until: Instant::now() + Duration::from_secs(60) })
    }

    fn receive(&mut self, wait: Duration) -> Result<Option<Value>, Error> {
        if Instant::now() > self.until {
            return Err(Error::Server("Chromium took too long".into()));
        }
        match self.from.recv_timeout(wait) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Error::Server("Chromium ended".into())),
        }
    }

    fn ask(&mut self, session: Option<&str>, method: &str, params: Value) -> Result<Value, Error> {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(message.to_string().as_bytes())?;
        self.to.write_all(&[0])?;
        loop {
            let Some(answer) = self.receive(Duration::from_secs(1))? else { continue };
            if answer["id"] == json!(self.next) {
                return match answer.get("error") {
                    Some(error) => Err(Error::Server(format!("Chromium: {method}: {error}"))),
                    None => Ok(answer["result"].clone()),
                };
            }
            self.events.push(answer);
        }
    }

    fn visit(&mut self, url: &str, screen: Screen) -> Result<Seen, Error> {
        let target = self.ask(None, "Target.createTarget", json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = self.ask(None, "Target.attachToTarget", attach)?;
        let session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        let s = Some(session.as_str());
        for domain in ["Page.enable", "Runtime.enable", "Network.enable", "Log.enable"] {
            self.ask(s, domain, json!({}))?;
        }
        let Screen { width, height, mobile, dark } = screen;
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile });
        self.ask(s, "Emulation.setDeviceMetricsOverride", metrics)?;
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.ask(s, "Emulation.setEmulatedMedia", media)?;
        self.events.clear();
        self.ask(s, "Page.navigate", json!({ "url": url }))?;
        while !self.events.iter().any(|e| e["method"] == "Page.loadEventFired") {
            if let Some(event) = self.receive(Duration::from_secs(1))? {
                self.events.push(event);
            }
        }
        let mut evaluate = |expression: &str| {
            let value = self.ask(s, "Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }))?;
            Ok::<Value, Error>(value["result"]["value"].clone())
        };
        let text = evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned();
        let overflows = evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")?;
        let picture =
            self.ask(s, "Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": true }))?;
        let screenshot = decode(picture["data"].as_str().unwrap_or_default());
        let (mut complaints, mut requests) = (Vec::new(), Vec::new());
        for event in &self.events {
            let params = &event["params"];
            match event["method"].as_str().unwrap_or_default() {
                "Runtime.consoleAPICalled" if params["type"] != "log" => complaints.push(params.to_string()),
                "Runtime.exceptionThrown" => complaints.push(params.to_string()),
                "Log.entryAdded" => complaints.push(params["entry"].to_string()),
                "Network.requestWillBeSent" => {
                    requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
                }
                _ => {}
            }
        }
        Ok(Seen { complaints, requests, text, overflows: overflows == json!(true), screenshot })
    }
}

/// Base64.
fn decode(text: &str) -> Vec<u8> {
    let (mut out, mut bits, mut n) = (Vec::new(), 0u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        bits = bits << 6 | u32::from(value);
        n += 6;
        if n >= 8 {
            n -= 8;
            out.push((bits >> n) as u8);
        }
    }
    out
}
