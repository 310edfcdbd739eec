//! All entries of a capture, several at once.

use std::collections::HashSet;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use crate::error::{Error, ErrorKind, Result};
use crate::source::{Capture, Entry};

/// Gives each entry of a capture to `work`, up to `side_by_side` of them at once; what it made of them, in the capture's
/// order. The capture is given back to be finished.
pub(crate) async fn drain<T, F>(
    capture: Box<dyn Capture>,
    side_by_side: usize,
    work: impl Fn(Entry) -> F,
) -> Result<(Box<dyn Capture>, Vec<T>)>
where
    F: Future<Output = Result<T>>,
{
    type Next = (Box<dyn Capture>, Result<Option<Entry>>);
    // The future that asks for the next entry is kept until it answers: a capture need not be cancel safe.
    fn ask(mut capture: Box<dyn Capture>) -> BoxFuture<'static, Next> {
        Box::pin(async move {
            let entry = capture.next().await;
            (capture, entry)
        })
    }
    let mut names = HashSet::new();
    let mut done: Vec<(usize, T)> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut asked = Some(ask(capture));
    let mut number = 0;
    let mut ended = None;
    while ended.is_none() || !running.is_empty() {
        tokio::select! {
            (capture, entry) = async { match asked.as_mut() { Some(f) => f.await, None => std::future::pending().await } },
                if asked.is_some() && running.len() < side_by_side.max(1) =>
            {
                asked = None;
                match entry? {
                    None => ended = Some(capture),
                    Some(entry) => {
                        if !names.insert(entry.name.clone()) {
                            return Err(Error::new(ErrorKind::Source, format!("the source gave two entries the name {:?}", entry.name)));
                        }
                        let at = number;
                        number += 1;
                        let work = work(entry);
                        running.push(async move { (at, work.await) });
                        asked = Some(ask(capture));
                    }
                }
            }
            Some((at, outcome)) = running.next(), if !running.is_empty() => match outcome {
                Ok(outcome) => done.push((at, outcome)),
                Err(e) => {
                    // A source that failed knows better than its entry why.
                    drop(running);
                    return Err(match ended {
                        Some(capture) if e.kind() == ErrorKind::Source => capture.finish().await.err().unwrap_or(e),
                        _ => e,
                    });
                }
            },
        }
    }
    done.sort_unstable_by_key(|(at, _)| *at);
    let capture = ended.ok_or_else(|| Error::new(ErrorKind::Internal, "a capture never ended"))?;
    Ok((capture, done.into_iter().map(|(_, outcome)| outcome).collect()))
}
