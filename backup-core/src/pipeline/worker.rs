//! A bounded set of threads for CPU work.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};

type Job = Box<dyn FnOnce() + Send>;

/// As many threads of the runtime's blocking pool as there are cores, fed by a bounded queue.
///
/// Dropping the last clone ends them as soon as they have finished the job in hand.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    queue: mpsc::Sender<Job>,
}

impl Workers {
    pub(crate) fn new(threads: usize) -> Self {
        let (queue, jobs) = mpsc::channel::<Job>(threads.max(1));
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..threads.max(1) {
            let jobs = Arc::clone(&jobs);
            tokio::task::spawn_blocking(move || {
                loop {
                    // Whoever holds the lock waits for the next job, the others wait for the lock.
                    let Ok(mut waiting) = jobs.lock() else { return };
                    let Some(job) = waiting.blocking_recv() else { return };
                    drop(waiting);
                    job();
                }
            });
        }
        Self { queue }
    }

    /// As many workers as the machine has cores.
    pub(crate) fn for_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    }

    /// Runs `work` on a worker. Dropping the future before it starts takes the job back; after that it runs to its end
    /// and its result is dropped.
    pub(crate) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let gone = || Error::new(ErrorKind::Internal, "a worker thread ended before its work was done");
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move || {
            if !answer.is_closed() {
                let _nobody_waits_any_more = answer.send(work());
            }
        });
        self.queue.send(job).await.map_err(|_| gone())?;
        result.await.map_err(|_| gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_jobs_than_threads_all_run() {
        let workers = Workers::new(2);
        let jobs = (0..50u64).map(|n| {
            let workers = workers.clone();
            async move { workers.run(move || n * n).await.unwrap() }
        });
        let squares = futures::future::join_all(jobs).await;
        assert_eq!(squares, (0..50u64).map(|n| n * n).collect::<Vec<_>>());
    }
}
