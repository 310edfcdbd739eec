//! A throw-away Redis on a loopback port.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use tempfile::TempDir;

use crate::Error;
use crate::process::{answers, as_user};

/// A Redis server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    _directory: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    /// Starts one that asks for this password, or for none where it is empty.
    pub async fn start(password: &str) -> Result<Self, Error> {
        let program = Path::new("/usr/bin/redis-server");
        if !program.exists() {
            return Err(Error::Server("there is no Redis here: apt-get install redis-server".into()));
        }
        let directory = tempfile::Builder::new().prefix("redis").tempdir()?;
        for _ in 0..5 {
            // The port may be taken between here and the server's start: then another one is tried.
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut child = as_user(None, program)
                .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &port.to_string()])
                .args(["--requirepass", password, "--dir"])
                .arg(directory.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if answers(&mut child, port).await? {
                return Ok(Self { _directory: directory, port, child });
            }
        }
        Err(Error::Server("Redis did not start".into()))
    }

    /// Its URL, without the password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The first line that it answers to each of these commands, which are written as in `redis-cli`, without quotes.
    pub fn ask(&self, commands: &[&str]) -> Result<Vec<String>, Error> {
        let mut out = TcpStream::connect(("127.0.0.1", self.port))?;
        let mut answers = BufReader::new(out.try_clone()?);
        let mut lines = Vec::new();
        for command in commands {
            out.write_all(format!("{command}\r\n").as_bytes())?;
            let mut line = String::new();
            answers.read_line(&mut line)?;
            lines.push(line.trim_end().to_owned());
        }
        Ok(lines)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with this process anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
