//! The agent's faces over HTTP: a status page for everybody, health for orchestrators, metrics, and a small interface with a token.
//!
//! It serves no files. Bodies, heads and connections are bounded, and so is how often one address may ask.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use health_probe::vitals::WebVitals;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Bytes of a body that are read.
const BODY: usize = 16 << 10;
/// For how long a head, and a body, are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once.
const CONNECTIONS: usize = 128;
/// Requests of one address in a window, and wrong tokens.
const REQUESTS: u32 = 120;
const WRONG: u32 = 10;
/// Beacons of one address in a window.
const BEACONS: u32 = 3_000;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses that are remembered.
const ADDRESSES: usize = 10_000;

/// What the faces show.
#[async_trait::async_trait]
pub trait Faces: Send + Sync + 'static {
    /// Whether the agent itself works.
    fn is_alive(&self) -> bool;
    /// Whether it can do its work; else why not.
    fn readiness(&self) -> Result<(), String>;
    /// The status page, as HTML.
    async fn status_page(&self) -> Result<String, String>;
    /// What was done, as HTML.
    async fn report(&self) -> Result<String, String>;
    /// Metrics in the format of OpenMetrics.
    async fn metrics(&self) -> Result<String, String>;
    /// The jobs: a JSON document.
    async fn jobs(&self) -> Result<serde_json::Value, String>;
    /// Does a job now, to its end. `None` where no job is called so.
    async fn run(&self, job: &str) -> Option<(StatusCode, serde_json::Value)>;
    /// Where beacons go.
    fn vitals(&self) -> &WebVitals;
}

/// A token, as its hash: comparing hashes of BLAKE3 takes the same time whatever is in them.
#[derive(Clone)]
pub struct Token(blake3::Hash);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// A token; one of fewer than sixteen characters would be guessed.
    ///
    /// # Errors
    /// Where it is shorter.
    pub fn new(text: &str) -> Result<Self, String> {
        match text.trim().len() {
            0..16 => Err("the token is shorter than 16 characters: make one by `openssl rand -hex 24`".into()),
            _ => Ok(Self(blake3::hash(text.trim().as_bytes()))),
        }
    }

    fn is(&self, text: &str) -> bool {
        self.0 == blake3::hash(text.as_bytes())
    }
}

struct Server {
    faces: Arc<dyn Faces>,
    token: Option<Token>,
    asked: Mutex<HashMap<IpAddr, Asked>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
struct Peer(SocketAddr);

struct Asked {
    since: Instant,
    requests: u32,
    beacons: u32,
    wrong: u32,
}

/// Serves until `stop` is over. Connections that are open then are closed.
///
/// # Errors
/// Where the address cannot be listened on any more.
pub async fn serve(
    listener: TcpListener,
    faces: Arc<dyn Faces>,
    token: Option<Token>,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let app = router(faces, token);
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            // Too many files are open: it may pass.
            Err(e) => {
                tracing::warn!(error = %e, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let app = app.clone().layer(middleware::from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(Peer(from));
            next.run(request)
        }));
        connections.spawn(async move {
            let mut http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http1_only();
            http.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(BODY).keep_alive(true);
            let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
            // A client that goes away, or never says what it wants.
            if let Err(e) = served {
                tracing::debug!(error = %e, "a connection ended");
            }
            drop(permit);
        });
    }
}

fn router(faces: Arc<dyn Faces>, token: Option<Token>) -> Router {
    let server = Arc::new(Server { faces, token, asked: Mutex::default() });
    let private = Router::new()
        .route("/report", get(report))
        .route("/api/jobs", get(jobs))
        .route("/api/jobs/{job}/run", post(run))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), with_token));
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/vitals", post(vitals))
        .merge(private)
        .fallback(|| async { text(StatusCode::NOT_FOUND, "there is nothing here") })
        .layer(middleware::from_fn_with_state(Arc::clone(&server), limited))
        .with_state(server)
}

/// Not more often than that from one address; and no page of ours is framed, sniffed or cached.
async fn limited(
    State(server): State<Arc<Server>>,
    Extension(Peer(from)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let is_health = matches!(request.uri().path(), "/healthz" | "/readyz");
    // Behind a proxy all visitors are one address: their beacons do not use up what others may ask.
    let counted = match request.uri().path() {
        "/vitals" => server.count(from.ip(), |asked| &mut asked.beacons) > BEACONS,
        _ => server.count(from.ip(), |asked| &mut asked.requests) > REQUESTS,
    };
    let is_owner = server.token.as_ref().zip(presented(&request)).is_some_and(|(token, given)| token.is(&given));
    if counted && !is_health && !is_owner {
        return text(StatusCode::TOO_MANY_REQUESTS, "too many requests: wait a minute");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    );
    response
}

async fn with_token(
    State(server): State<Arc<Server>>,
    Extension(Peer(from)): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = &server.token else {
        return text(StatusCode::NOT_FOUND, "there is no interface: set token in [agent]");
    };
    // The right one is let in whoever guesses from the same address.
    if !presented(&request).is_some_and(|given| token.is(&given)) {
        if server.wrong(from.ip()) >= WRONG {
            return text(StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: wait a minute");
        }
        server.count(from.ip(), |asked| &mut asked.wrong);
        let mut response = text(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"caretaker\", charset=\"UTF-8\""));
        return response;
    }
    next.run(request).await
}

/// `Bearer TOKEN`, or the password of `Basic`, which browsers ask people for. Browsers send that by themselves, also where another site's
/// form leads here: so it is for looking, and changes nothing.
fn presented(request: &Request) -> Option<String> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = value.strip_prefix("Bearer ") {
        return Some(token.trim().to_owned());
    }
    if request.method() != Method::GET {
        return None;
    }
    let bytes = STANDARD.decode(value.strip_prefix("Basic ")?.trim()).ok()?;
    let (_, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some(password.to_owned())
}

impl Server {
    /// Counts one more of an address, in the window that goes on.
    fn count(&self, ip: IpAddr, of: impl Fn(&mut Asked) -> &mut u32) -> u32 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if asked.len() >= ADDRESSES && !asked.contains_key(&ip) {
            asked.retain(|_, a| now - a.since < WINDOW);
            // A flood from everywhere: all begin anew, rather than nobody being let in.
            if asked.len() >= ADDRESSES {
                asked.clear();
            }
        }
        let one = asked.entry(ip).or_insert(Asked { since: now, requests: 0, beacons: 0, wrong: 0 });
        if now - one.since >= WINDOW {
            *one = Asked { since: now, requests: 0, beacons: 0, wrong: 0 };
        }
        let count = of(one);
        *count = count.saturating_add(1);
        *count
    }

    fn wrong(&self, ip: IpAddr) -> u32 {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&ip).filter(|a| a.since.elapsed() < WINDOW).map_or(0, |a| a.wrong)
    }
}

async fn status_page(State(server): State<Arc<Server>>) -> Response {
    html(server.faces.status_page().await)
}

async fn report(State(server): State<Arc<Server>>) -> Response {
    html(server.faces.report().await)
}

async fn healthz(State(server): State<Arc<Server>>) -> Response {
    match server.faces.is_alive() {
        true => text(StatusCode::OK, "ok"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, "the schedule stands still"),
    }
}

async fn readyz(State(server): State<Arc<Server>>) -> Response {
    match server.faces.readiness() {
        Ok(()) => text(StatusCode::OK, "ready"),
        // What is the matter is the shop's own affair.
        Err(why) => {
            tracing::warn!(%why, "not ready");
            text(StatusCode::SERVICE_UNAVAILABLE, "not ready")
        }
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    match server.faces.metrics().await {
        Ok(body) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], body).into_response()
        }
        Err(why) => broken(&why),
    }
}

async fn vitals(State(server): State<Arc<Server>>, request: Request) -> Response {
    let body = match body(request).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    match server.faces.vitals().take(&body, chrono::Utc::now()) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(_) => text(StatusCode::BAD_REQUEST, "that is no beacon"),
    }
}

async fn jobs(State(server): State<Arc<Server>>) -> Response {
    match server.faces.jobs().await {
        Ok(jobs) => json(StatusCode::OK, &jobs),
        Err(why) => broken(&why),
    }
}

async fn run(State(server): State<Arc<Server>>, Path(job): Path<String>, request: Request) -> Response {
    if let Err(response) = body(request).await {
        return response;
    }
    // It goes on where the client does not wait for it.
    let faces = Arc::clone(&server.faces);
    let ran = tokio::spawn(async move { faces.run(&job).await });
    match ran.await {
        Ok(Some((status, run))) => json(status, &run),
        Ok(None) => text(StatusCode::NOT_FOUND, "no job is called so"),
        Err(e) => broken(&e.to_string()),
    }
}

async fn body(request: Request) -> Result<Bytes, Response> {
    match tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or ended early")),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

fn html(page: Result<String, String>) -> Response {
    match page {
        Ok(page) => ([(CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response(),
        Err(why) => broken(&why),
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

fn text(status: StatusCode, what: &'static str) -> Response {
    let mut response = Response::new(Body::from(format!("{what}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// What went wrong is written down, and not told to strangers.
fn broken(why: &str) -> Response {
    tracing::error!(%why, "a request could not be answered");
    text(StatusCode::INTERNAL_SERVER_ERROR, "that went wrong: see the agent's log")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn tokens_and_how_they_are_presented() {
        assert!(Token::new("short").is_err() && Token::new(&" ".repeat(40)).is_err());
        let token = Token::new("0123456789abcdef\n").unwrap();
        assert!(token.is("0123456789abcdef") && !token.is("0123456789abcdeF") && !token.is(""));
        let by = |method: Method, value: &str| {
            let mut request = Request::new(Body::empty());
            *request.method_mut() = method;
            request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
            presented(&request)
        };
        let given = |value: &str| by(Method::GET, value);
        assert_eq!(by(Method::POST, "Basic YW5uYTpzZWNyZXQ6eA=="), None, "a form of another site");
        assert_eq!(by(Method::POST, "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(given("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(given("Basic YW5uYTpzZWNyZXQ6eA==").as_deref(), Some("secret:x"));
        assert_eq!(given("Basic !!"), None);
        assert_eq!(given("abc"), None);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }
}
