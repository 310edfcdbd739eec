//! A server in this process that answers as it is told: what vendors send on good days and bad ones, recorded.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Error;

/// What it answers, to every path or one.
#[derive(Debug, Clone)]
pub enum Answer {
    /// This status and body, as JSON.
    Json(u16, String),
    /// This status, headers (each with its line end) and body.
    Plain(u16, String, String),
    /// The same after a while.
    Slow(Duration, Box<Answer>),
    /// Bytes that are no HTTP.
    Garbage,
    /// A body of so many bytes.
    Large(usize),
    /// A body that goes on, a byte now and then, for as long as somebody reads.
    Endless,
    /// A redirect to itself.
    Loop,
    /// Takes the request and says nothing.
    Silent,
    /// Closes the connection.
    Hangup,
}

/// The server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    answers: Vec<(String, Answer)>,
    requests: Vec<String>,
}

impl Server {
    /// Starts one that gives this answer to everything.
    pub async fn start(answer: Answer) -> Result<Self, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State { answers: vec![(String::new(), answer)], requests: Vec::new() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    // A client that goes away is no error of the server.
                    let _ = serve(stream, &state).await;
                });
            }
        });
        Ok(Self { address, state, task })
    }

    /// From now on, requests whose path begins so get this answer; the longest such beginning decides.
    pub fn answer(&self, path: &str, answer: Answer) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        state.answers.retain(|(p, _)| p != path);
        state.answers.push((path.to_owned(), answer));
    }

    /// Its address, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests that came, head and body.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(|e| e.into_inner()).requests.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut read = Vec::new();
    let mut buffer = [0u8; 4096];
    let request = loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        read.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some(head) = text.find("\r\n\r\n") {
            let length =
                text[..head].lines().find_map(|l| l.to_lowercase().strip_prefix("content-length:").map(str::to_owned));
            let length: usize = length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
            if text.len() >= head + 4 + length {
                break text;
            }
        }
    };
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    let answer = {
        let mut state = state.lock().unwrap_or_else(|e| e.into_inner());
        state.requests.push(request);
        let fitting = state.answers.iter().filter(|(p, _)| path.starts_with(p.as_str()));
        fitting.max_by_key(|(p, _)| p.len()).map(|(_, a)| a.clone())
    };
    match answer {
        Some(answer) => write(&mut stream, &path, answer).await,
        None => Ok(()),
    }
}

async fn write(stream: &mut TcpStream, path: &str, answer: Answer) -> std::io::Result<()> {
    let mut answer = answer;
    while let Answer::Slow(wait, then) = answer {
        tokio::time::sleep(wait).await;
        answer = *then;
    }
    match answer {
        Answer::Json(status, body) => {
            let head = "Content-Type: application/json\r\n".to_owned();
            stream.write_all(whole(status, &head, &body).as_bytes()).await?;
        }
        Answer::Plain(status, headers, body) => stream.write_all(whole(status, &headers, &body).as_bytes()).await?,
        Answer::Garbage => stream.write_all(&[0x16, 0x03, 0xff, 0x00, b'\n', 0x80, b'\r', b'\n', b'?']).await?,
        Answer::Large(size) => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await?;
            let piece = vec![b'x'; 65536];
            let mut left = size;
            while left > 0 {
                let n = left.min(piece.len());
                stream.write_all(&piece[..n]).await?;
                left -= n;
            }
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            loop {
                stream.write_all(b"1\r\nx\r\n").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Answer::Loop => {
            stream.write_all(whole(302, &format!("Location: {path}\r\n"), "").as_bytes()).await?;
        }
        Answer::Silent => tokio::time::sleep(Duration::from_secs(3600)).await,
        Answer::Hangup | Answer::Slow(..) => {}
    }
    stream.shutdown().await
}

fn whole(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} as told\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
