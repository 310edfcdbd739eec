//! Not reading while the shop needs its servers for itself.

#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) mod lag;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::Task;
use crate::progress::{Event, Progress};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long the first answer is waited for.
const FIRST: Duration = Duration::from_secs(60);

/// Says when reading should pause: where a replica lags, the load is high, or somebody put a stop file there.
#[async_trait]
pub trait Throttle: Debug + Send + Sync {
    /// Why nothing should be read right now; `None` where nothing speaks against it.
    ///
    /// Asked once before anything is read, and then every second until all is. What was decided last holds while an answer
    /// is waited for.
    ///
    /// # Errors
    /// What cannot be seen: the first time the backup fails with it, as it does without an answer within a minute; later it is a reason to pause, since servers that
    /// answer no more may well be overloaded.
    async fn pause(&self) -> Result<Option<String>>;
}

/// Where readers wait while reading pauses.
#[derive(Debug)]
pub(crate) struct Gate {
    closed: watch::Receiver<bool>,
    _task: Task<()>,
}

impl Gate {
    /// Asks until it is dropped. It never stays closed for more than `longest` altogether: a snapshot that is held open
    /// for ever is worse for the shop than one that is read.
    pub(crate) async fn new(
        throttles: Vec<Arc<dyn Throttle>>,
        longest: Duration,
        progress: Arc<dyn Progress>,
    ) -> Result<Self> {
        let first = tokio::time::timeout(FIRST, ask(&throttles)).await.map_err(|_| {
            let text = format!("whether reading has to pause was not answered within {} s", FIRST.as_secs());
            Error::new(ErrorKind::Source, text).with_retry(true).with_next_step("check the replica that is asked")
        })??;
        let (tell, closed) = watch::channel(first.is_some());
        let task = Task::spawn(async move {
            watch_over(&throttles, first, longest, &tell, progress.as_ref()).await;
            Ok(())
        });
        Ok(Self { closed, _task: task })
    }

    /// Waits until reading may go on.
    pub(crate) async fn pass(&self) {
        if *self.closed.borrow() {
            // It errs where nobody tells any more: then nothing is closed.
            let _ = self.closed.clone().wait_for(|closed| !closed).await;
        }
    }
}

/// The first reason that any of them has.
async fn ask(throttles: &[Arc<dyn Throttle>]) -> Result<Option<String>> {
    for throttle in throttles {
        if let Some(reason) = throttle.pause().await? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

async fn watch_over(
    throttles: &[Arc<dyn Throttle>],
    mut reason: Option<String>,
    longest: Duration,
    tell: &watch::Sender<bool>,
    progress: &dyn Progress,
) {
    let mut left = longest;
    let mut since: Option<Instant> = None;
    loop {
        match (&reason, since) {
            (Some(reason), None) => {
                tracing::info!(reason, "reading pauses");
                progress.on(Event::Paused { reason });
                since = Some(Instant::now());
                tell.send_replace(true);
            }
            (None, Some(began)) => {
                let paused = began.elapsed();
                left = left.saturating_sub(paused);
                progress.on(Event::Resumed { paused });
                since = None;
                tell.send_replace(false);
            }
            _ => {}
        }
        let wait = match since {
            Some(began) => EVERY.min(left.saturating_sub(began.elapsed())),
            None => EVERY,
        };
        tokio::time::sleep(wait).await;
        if let Some(began) = since.filter(|began| began.elapsed() >= left) {
            tracing::warn!(longest = ?longest, "reading paused for as long as it may; it goes on without more pauses");
            progress.on(Event::Resumed { paused: began.elapsed() });
            tell.send_replace(false);
            return;
        }
        // An answer that does not come must not keep it closed for longer than that.
        let answer = match since {
            None => ask(throttles).await,
            Some(began) => match tokio::time::timeout(left.saturating_sub(began.elapsed()), ask(throttles)).await {
                Ok(answer) => answer,
                Err(_) => continue,
            },
        };
        reason = match answer {
            Ok(reason) => reason,
            Err(e) => Some(e.to_string()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What it answers, one after the other; the last for ever.
    #[derive(Debug)]
    struct Answers(Vec<Result<Option<String>, &'static str>>, AtomicUsize);

    #[async_trait]
    impl Throttle for Answers {
        async fn pause(&self) -> Result<Option<String>> {
            let at = self.1.fetch_add(1, Ordering::SeqCst).min(self.0.len() - 1);
            self.0[at].clone().map_err(|e| Error::new(ErrorKind::Source, e))
        }
    }

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Progress for Heard {
        fn on(&self, event: Event<'_>) {
            let text = match event {
                Event::Paused { reason } => format!("paused: {reason}"),
                Event::Resumed { .. } => "resumed".into(),
                _ => return,
            };
            self.0.lock().unwrap().push(text);
        }
    }

    async fn through(answers: Vec<Result<Option<String>, &'static str>>, longest: Duration) -> Result<Vec<String>> {
        let heard = Arc::new(Heard::default());
        let throttle: Arc<dyn Throttle> = Arc::new(Answers(answers, AtomicUsize::new(0)));
        let gate = Gate::new(vec![throttle], longest, heard.clone()).await?;
        gate.pass().await;
        let heard = heard.0.lock().unwrap().clone();
        Ok(heard)
    }

    #[tokio::test]
    async fn it_closes_and_opens_again() {
        let answers = vec![Ok(Some("busy".to_owned())), Err("no answer"), Ok(None)];
        let heard = through(answers, Duration::from_secs(60)).await.unwrap();
        assert_eq!(heard, ["paused: busy", "resumed"]);
        assert_eq!(through(vec![Ok(None)], Duration::from_secs(60)).await.unwrap(), [] as [String; 0]);
    }

    #[tokio::test]
    async fn it_never_stays_closed_for_longer_than_said_and_needs_one_answer_to_begin() {
        let heard = through(vec![Ok(Some("busy".to_owned()))], Duration::from_millis(50)).await.unwrap();
        assert_eq!(heard, ["paused: busy", "resumed"]);
        let e = through(vec![Err("no right to see it")], Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(e.to_string(), "no right to see it");
    }
}
