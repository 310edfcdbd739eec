//! An S3 server in this process, on a loopback port of its own, over a temporary directory.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::Error;

/// The access key of every server.
pub const ACCESS_KEY: &str = "CARETAKERTEST";
/// The secret key of every server.
pub const SECRET_KEY: &str = "only-for-tests";
/// The bucket that every server has.
pub const BUCKET: &str = "backups";

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    endpoint: String,
    directory: TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl S3Server {
    /// Starts one, with one empty bucket.
    pub async fn start() -> Result<Self, Error> {
        let directory = tempfile::tempdir()?;
        std::fs::create_dir(directory.path().join(BUCKET))?;
        let files = FileSystem::new(directory.path()).map_err(|e| Error::Server(format!("S3: {e:?}")))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = Exclusive { service: service.build(), root: directory.path().to_owned(), keys: Arc::default() };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { return };
                let service = service.clone();
                tokio::spawn(async move {
                    let answer = hyper::service::service_fn(move |request| {
                        let service = service.clone();
                        async move { Ok::<_, Infallible>(service.answer(request).await) }
                    });
                    // A client that hangs up is its own affair.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await;
                });
            }
        });
        Ok(Self { endpoint, directory, task })
    }

    /// Its URL, such as `http://127.0.0.1:40123`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The directory that its bucket's objects lie in.
    pub fn bucket_directory(&self) -> std::path::PathBuf {
        self.directory.path().join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Lets one create-only put for a key in at a time: the file store behind looks first and writes then, so that of
/// several racing puts more than one would win.
#[derive(Clone)]
struct Exclusive {
    service: S3Service,
    root: std::path::PathBuf,
    keys: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Exclusive {
    async fn answer(&self, request: http::Request<Incoming>) -> s3s::HttpResponse {
        // As in a real one, a bucket has to be made before it is used.
        let bucket = request.uri().path().split('/').nth(1).unwrap_or("");
        if !bucket.is_empty() && !self.root.join(bucket).is_dir() {
            let text = "<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>";
            let mut answer = s3s::HttpResponse::new(s3s::Body::from(text.to_owned()));
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            return answer;
        }
        let create_only = request.headers().contains_key(http::header::IF_NONE_MATCH);
        let key = request.uri().path().to_owned();
        let lock = create_only.then(|| {
            let mut keys = self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            Arc::clone(keys.entry(key).or_default())
        });
        let guard = match lock {
            Some(lock) => Some(lock.lock_owned().await),
            None => None,
        };
        let answer = self.service.call(request.map(s3s::Body::from)).await;
        drop(guard);
        match answer {
            Ok(answer) => answer,
            Err(e) => {
                let mut answer = s3s::HttpResponse::new(s3s::Body::from(format!("{e:?}")));
                *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
                answer
            }
        }
    }
}
