//! A throw-away name server (dnsmasq) on a loopback port.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::Error;
use crate::process::{answers, as_user};

/// A name server; it ends with this value.
#[derive(Debug)]
pub struct Server {
    port: u16,
    child: Child,
}

impl Server {
    /// Starts one with these records, as options of dnsmasq: `--host-record=shop.test,192.0.2.7`.
    pub async fn start(records: &[&str]) -> Result<Self, Error> {
        let program = Path::new("/usr/sbin/dnsmasq");
        if !program.exists() {
            return Err(Error::Server("there is no name server here: apt-get install dnsmasq-base".into()));
        }
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            let mut child = as_user(None, program)
                .args([
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--no-resolv",
                    "--no-hosts",
                    "--bind-interfaces",
                ])
                .args(["--listen-address=127.0.0.1", "--user=root", "--pid-file=", &format!("--port={port}")])
                .args(records)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            if answers(&mut child, port).await? {
                return Ok(Self { port, child });
            }
        }
        Err(Error::Server("dnsmasq did not start".into()))
    }

    /// Where it listens, over UDP and TCP.
    pub fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It ends with this process anyway.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
