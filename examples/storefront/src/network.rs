//! A network between a client and a server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::Error;

/// A loopback port that leads to another one; gone when dropped.
#[derive(Debug)]
pub struct Network {
    address: SocketAddr,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// Bytes to the server until a connection is cut.
    left: AtomicI64,
    every: AtomicI64,
    /// How many connections are still to be cut.
    cuts: AtomicU32,
    down: AtomicBool,
    /// Tells the connections that there are that it is down.
    fell: watch::Sender<()>,
}

impl Network {
    /// Leads to `server`.
    pub async fn to(server: SocketAddr) -> Result<Self, Error> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            left: AtomicI64::new(0),
            every: AtomicI64::new(0),
            cuts: AtomicU32::new(0),
            down: AtomicBool::new(false),
            fell: watch::Sender::new(()),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.down.load(Ordering::SeqCst) {
                    continue;
                }
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        state.carry(client, server).await;
                    }
                });
            }
        });
        Ok(Self { address, state, task })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts the connection that carries the `bytes`th byte to the server from now on, and so on after as many again, for so
    /// many `times`.
    pub fn cut_after(&self, bytes: u32, times: u32) {
        self.state.every.store(bytes.into(), Ordering::SeqCst);
        self.state.left.store(bytes.into(), Ordering::SeqCst);
        self.state.cuts.store(times, Ordering::SeqCst);
    }

    /// How many of these cuts are still to come.
    pub fn cuts_left(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Cuts all connections; new ones are cut at once.
    pub fn fall(&self) {
        self.state.down.store(true, Ordering::SeqCst);
        self.state.fell.send_replace(());
    }

    /// Everything gets through again.
    pub fn recover(&self) {
        self.state.down.store(false, Ordering::SeqCst);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    /// Carries both ways until one side ends or it is cut.
    async fn carry(&self, mut client: TcpStream, mut server: TcpStream) {
        let mut fell = self.fell.subscribe();
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let up = async {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                if self.is_cut_by(length) || to_server.write_all(&buffer[..length]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = up => {}
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            _ = fell.changed() => {}
        }
    }

    fn is_cut_by(&self, length: usize) -> bool {
        if self.cuts.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        if self.left.fetch_sub(length, Ordering::SeqCst) > length {
            return false;
        }
        self.left.store(self.every.load(Ordering::SeqCst), Ordering::SeqCst);
        self.cuts.fetch_sub(1, Ordering::SeqCst);
        true
    }
}
