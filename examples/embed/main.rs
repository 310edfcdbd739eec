//! A shop's own service that embeds all four crates: backups of its database and of Redis, a look at both, maintenance, and the checklist.
//!
//! `embed DATABASE REDIS STORE PICTURES`: a SQLite file, an address of Redis, a folder for backups, a folder with `pictures/` and `thumbnails/`.
//! It listens on a free port of this machine, and says which.
//!
//! ```text
//! GET  /health     what the probes see; 503 where something is critical
//! POST /backup     both sources, verified; what was taken
//! POST /drill      the newest backup of Redis, restored beside it and compared
//! GET  /inspect    what should be mended in the database
//! POST /thumbnails the maintenance task
//! GET  /checklist  the shop's items, as Markdown
//! ```

mod queue_probe;
mod redis_source;
mod returns_check;
mod thumbnails_task;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Router, body::Body};
use backup_core::{DrillOptions, Keys, Repository, Selector, Source, SqliteSource, Store, VerifyLevel, VerifyOptions};
use checklist::report::{Format, Report};
use checklist::{Auditor, Context, Standing};
use chrono::Utc;
use health_probe::{DatabaseProbe, Monitor, Verdict, Watch};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the service holds: opened once, shared by all requests.
struct Shop {
    database: PathBuf,
    redis: String,
    pictures: PathBuf,
    repository: Repository,
    engine: Box<dyn db_maint::Engine>,
    monitor: Monitor,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [database, redis, store, pictures] = arguments.as_slice() else {
        return Err("embed DATABASE REDIS STORE PICTURES".into());
    };
    // A real service has its keys from where its secrets are; here they are as new as the repository.
    let repository = Repository::init(Store::folder(store)?, &mut Keys::generate()?, &[]).await?;
    let url = format!("sqlite:{database}");
    let minute = Duration::from_secs(60);
    let monitor = Monitor::new(vec![
        Watch::new(DatabaseProbe::new("database", &url)?, minute),
        Watch::new(queue_probe::QueueProbe::new(redis, "shop:mails")?, minute),
    ])?;
    let shop = Arc::new(Shop {
        database: database.into(),
        redis: redis.clone(),
        pictures: pictures.into(),
        repository,
        engine: db_maint::open(&url)?,
        monitor,
    });
    let app = Router::new()
        .route("/health", get(health))
        .route("/backup", post(backup))
        .route("/drill", post(drill))
        .route("/inspect", get(inspect))
        .route("/thumbnails", post(thumbnails))
        .route("/checklist", get(audit))
        .with_state(shop);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    caretaker_examples::cli::say(&format!("listening on {}", listener.local_addr()?));
    loop {
        let (stream, _) = listener.accept().await?;
        let app = app.clone();
        tokio::spawn(async move {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http1_only();
            // A client that goes away is no trouble of the service.
            let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)).await;
        });
    }
}

/// An error, with what to do about it.
struct Failed(Failure);

impl<E: Into<Failure>> From<E> for Failed {
    fn from(e: E) -> Self {
        Self(e.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(format!("{}\n", self.0)));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }
}

async fn health(State(shop): State<Arc<Shop>>) -> (StatusCode, String) {
    let looks = shop.monitor.look_once().await;
    let lines: String = looks
        .iter()
        .map(|l| format!("{}: {}: {}\n", l.title, l.judgement.verdict.word(), l.judgement.reason()))
        .collect();
    // What could not be seen is not healthy.
    let is_up = looks.iter().all(|l| matches!(l.judgement.verdict, Verdict::Healthy | Verdict::Warning));
    (if is_up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
}

async fn backup(State(shop): State<Arc<Shop>>) -> Result<String, Failed> {
    let sources: [Box<dyn Source>; 2] = [
        Box::new(SqliteSource::new(&shop.database).named("shop")),
        Box::new(redis_source::Keys::new(&shop.redis, "shop:")?),
    ];
    let mut said = String::new();
    for source in &sources {
        let snapshot = shop.repository.backup(source.as_ref(), Default::default()).await?;
        let report = shop
            .repository
            .verify(Some(std::slice::from_ref(&snapshot.id)), VerifyOptions::new(VerifyLevel::Content))
            .await?;
        said += &format!(
            "{}: {} rows, {}\n",
            source.name(),
            snapshot.manifest.totals.rows,
            if report.is_sound() { "verified" } else { "NOT sound" }
        );
    }
    Ok(said)
}

async fn drill(State(shop): State<Arc<Shop>>) -> Result<String, Failed> {
    let catalog = shop.repository.catalog().await?;
    let snapshot = catalog.select(&Selector::Latest, Some("redis"))?;
    // The other database of the same server: its keys are nobody's.
    let scratch = redis_source::Keys::new(&shop.redis.replace("/0", "/1"), "shop:")?;
    let report = shop.repository.drill(snapshot, &scratch, DrillOptions::default()).await?;
    Ok(format!("{}\n", if report.passed() { "restored, equal" } else { "DIFFERENT" }))
}

async fn inspect(State(shop): State<Arc<Shop>>) -> Result<String, Failed> {
    let inspection = shop.engine.inspect(&db_maint::InspectOptions::default()).await?;
    Ok(inspection.findings().map(|f| format!("{}: {}\n", f.object, f.summary)).collect())
}

async fn thumbnails(State(shop): State<Arc<Shop>>) -> Result<String, Failed> {
    let (pictures, thumbnails) = (shop.pictures.join("pictures"), shop.pictures.join("thumbnails"));
    let run = thumbnails_task::remove_orphaned(shop.engine.as_ref(), &pictures, &thumbnails, Utc::now()).await?;
    Ok(run.map_or_else(|| "another server does it\n".to_owned(), |run| format!("{:?}: {}\n", run.end, run.note)))
}

async fn audit(State(shop): State<Arc<Shop>>) -> Result<String, Failed> {
    let waiting = shop.pictures.join("returns");
    let count = move || std::fs::read_to_string(&waiting).ok()?.trim().parse().ok();
    let auditor = Auditor::new(vec![returns_check::item()]).with_check(returns_check::ReturnsCheck::new(count));
    let (now, standing) = (Utc::now(), Standing::default());
    let audit = auditor.run("the shop", &Context::at(now), &standing).await;
    Ok(Report::new(&audit, &checklist::ledger::Entries::default(), now).render(Format::Markdown)?)
}
