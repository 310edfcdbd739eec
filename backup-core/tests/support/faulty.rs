//! A store that misbehaves as networks, disks and providers do, by a seed.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::bytes::Bytes;
use backup_core::object_store::path::Path;
use backup_core::object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};

/// How often each thing goes wrong, of 1000.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// A request fails, and nothing was done.
    pub refused: u32,
    /// A request fails, and it was done.
    pub answer_lost: u32,
    /// A body ends too early.
    pub cut_short: u32,
    /// A list leaves out what was written just now.
    pub stale_list: u32,
    /// So many requests in a row fail.
    pub storm: u32,
    /// A write is confirmed and lost.
    pub lost: u32,
}

#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    rates: Rates,
    rng: Mutex<fastrand::Rng>,
    /// How many writes and deletions it takes until it is dead.
    left: AtomicI64,
    /// It is the store that dies then, and not the process that uses it.
    closes: AtomicBool,
    storm: AtomicI64,
    recent: Mutex<VecDeque<Path>>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, rates: Rates) -> Self {
        let state = State {
            rates,
            rng: Mutex::new(fastrand::Rng::with_seed(seed)),
            left: AtomicI64::new(i64::MAX),
            closes: AtomicBool::new(false),
            storm: AtomicI64::new(0),
            recent: Mutex::default(),
        };
        Self { inner, state: Arc::new(state) }
    }

    /// The process dies with the write or deletion of this number, counted from 0.
    pub fn dies_at(self, number: i64) -> Self {
        self.state.left.store(number, Ordering::SeqCst);
        self
    }

    /// The store closes with the write or deletion of this number, counted from 0: below 0 it is closed from the start.
    pub fn closes_at(self, number: i64) -> Self {
        self.state.closes.store(true, Ordering::SeqCst);
        self.dies_at(number)
    }
}

impl State {
    fn happens(&self, rate: u32) -> bool {
        rate > 0 && self.rng.lock().unwrap().u32(0..1000) < rate
    }

    fn dead(&self) -> bool {
        self.left.load(Ordering::SeqCst) < 0
    }

    /// Before any request.
    fn request(&self) -> Result<()> {
        if self.dead() && self.closes.load(Ordering::SeqCst) {
            return Err(Error::PermissionDenied { path: String::new(), source: "the store is closed".into() });
        }
        if self.dead() {
            return Err(Error::NotSupported { source: "the process is dead".into() });
        }
        if self.happens(self.rates.storm) {
            self.storm.store(3, Ordering::SeqCst);
        }
        if self.storm.fetch_sub(1, Ordering::SeqCst) > 0 || self.happens(self.rates.refused) {
            return Err(unavailable("503"));
        }
        Ok(())
    }

    /// Before any change.
    fn change(&self) -> Result<()> {
        self.request()?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        self.request()
    }
}

fn unavailable(why: &'static str) -> Error {
    Error::Generic { store: "Faulty", source: why.into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.state.change()?;
        if self.state.happens(self.state.rates.lost) && location.as_ref().starts_with("objects/") {
            return Ok(PutResult { e_tag: None, version: None, extensions: Default::default() });
        }
        let put = self.inner.put_opts(location, payload, options).await?;
        let mut recent = self.state.recent.lock().unwrap();
        recent.push_back(location.clone());
        if recent.len() > 6 {
            recent.pop_front();
        }
        drop(recent);
        if self.state.happens(self.state.rates.answer_lost) {
            return Err(unavailable("connection reset"));
        }
        Ok(put)
    }

    async fn put_multipart_opts(&self, l: &Path, o: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(l, o).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.state.request()?;
        let mut found = self.inner.get_opts(location, options).await?;
        if self.state.happens(self.state.rates.cut_short) {
            let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
            let extensions = found.extensions.clone();
            let whole = found.bytes().await?;
            let some = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
            let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(some) }).boxed());
            found = GetResult { payload, meta, range, attributes, extensions };
        }
        Ok(found)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        locations
            .and_then(move |path| {
                let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
                async move {
                    state.change()?;
                    let one = futures::stream::once(async move { Ok(path) }).boxed();
                    let mut removed = inner.delete_stream(one).try_collect::<Vec<_>>().await?;
                    if state.happens(state.rates.answer_lost) {
                        return Err(unavailable("connection reset"));
                    }
                    removed.pop().ok_or_else(|| unavailable("nothing"))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if let Err(e) = self.state.request() {
            return futures::stream::once(async { Err(e) }).boxed();
        }
        if !self.state.happens(self.state.rates.stale_list) {
            return self.inner.list(prefix);
        }
        let recent = self.state.recent.lock().unwrap().clone();
        self.inner.list(prefix).try_filter(move |m| futures::future::ready(!recent.contains(&m.location))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.state.request()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
