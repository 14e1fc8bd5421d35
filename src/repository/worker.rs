//! A thread for calls that may never return.
//!
//! Calls into a repository are made here, one after the other. While one hangs, every caller is told so at once,
//! and no further thread gets stuck.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use NoAnswer::{Late, Stuck};

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// The repository made no progress for this long.
    Stuck(Duration),
    /// It makes progress, but the answer was not there after this long.
    Late(Duration),
}

type Job = Box<dyn FnOnce(&Progress) + Send>;

/// How the jobs get on.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Steps>>);

#[derive(Debug, Clone, Copy, Default)]
struct Steps {
    /// When the last one of the job that is running was done; `None` while there is no job.
    last: Option<Instant>,
    done: u64,
}

impl Progress {
    /// Says that a step of the job is done.
    pub(super) fn step(&self) {
        self.set(Some(Instant::now()));
    }

    /// Says that a job begins, which is no step of it.
    fn begin(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last = Some(Instant::now());
    }

    fn set(&self, at: Option<Instant>) {
        let mut steps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *steps = Steps { last: at, done: steps.done + 1 };
    }

    fn steps(&self) -> Steps {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For how long the running job has not got on.
    fn stalled(&self) -> Option<Duration> {
        self.steps().last.map(|at| at.elapsed())
    }
}

/// The thread of one repository. It ends when this is dropped, unless it hangs.
pub(super) struct Worker {
    jobs: Mutex<Sender<Job>>,
    progress: Progress,
}

impl Worker {
    pub(super) fn start(repository: &str) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let progress = Progress::default();
        let shown = progress.clone();
        thread::Builder::new().name(format!("repo {repository}")).spawn(move || {
            for job in queue {
                shown.begin();
                // A bug must not make the repository look hung for ever. A waiting caller learns of it from the lost answer.
                if catch_unwind(AssertUnwindSafe(|| job(&shown))).is_err() {
                    tracing::error!("a request to a repository panicked; please report this");
                }
                shown.set(None);
            }
        })?;
        Ok(Self { jobs: Mutex::new(jobs), progress })
    }

    /// Runs the job on the thread and waits for its result. Fails if no step completes within the limit, or at `deadline`;
    /// a single step always has its whole limit.
    ///
    /// `limit` is asked for when a step takes longer than `soon`.
    pub(super) fn call<T: Send + 'static>(
        &self,
        soon: Duration,
        limit: impl FnOnce() -> Duration,
        deadline: Instant,
        job: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (mut limit_of, mut limit) = (Some(limit), soon);
        if let Some(stalled) = self.progress.stalled().filter(|stalled| *stalled >= soon) {
            limit = limit_of.take().map_or(limit, |limit| limit());
            if stalled >= limit {
                return Err(Stuck(stalled));
            }
        }
        let (answer, result) = mpsc::sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let skip = given_up.clone();
        let (started, before) = (Instant::now(), self.progress.steps().done);
        let job: Job = Box::new(move |progress| {
            if !skip.load(Ordering::Relaxed) {
                // The caller may have stopped waiting; then nobody needs the result.
                let _ = answer.send(job(progress));
            }
        });
        if self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job).is_err() {
            return Err(Stuck(Duration::ZERO));
        }
        loop {
            let steps = self.progress.steps();
            let stalled = steps.last.unwrap_or(started).elapsed();
            let for_step = limit.saturating_sub(stalled);
            let end = deadline.max(started + limit);
            let for_all = end.saturating_duration_since(Instant::now());
            let gets_on = steps.done != before;
            let left = if gets_on { for_step.min(for_all) } else { for_step };
            if left.is_zero() {
                if let Some(longer) = limit_of.take() {
                    limit = longer();
                    continue;
                }
                given_up.store(true, Ordering::Relaxed);
                return Err(if for_step.is_zero() {
                    Stuck(stalled.max(started.elapsed()))
                } else {
                    Late(started.elapsed())
                });
            }
            match result.recv_timeout(left) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {}
                // The job panicked.
                Err(RecvTimeoutError::Disconnected) => return Err(Stuck(started.elapsed())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    /// Longer than any of these jobs takes.
    const LONG: Duration = Duration::from_secs(10);

    fn later() -> Instant {
        Instant::now() + LONG
    }

    #[test]
    fn a_hung_job_is_reported_and_later_ones_are_answered_at_once() {
        let worker = Worker::start("test").unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let first = worker.call(LIMIT / 2, || LIMIT, later(), move |_| hang.recv());
        assert!(matches!(first, Err(Stuck(time)) if time >= LIMIT));
        let begin = Instant::now();
        assert!(worker.call(LIMIT / 2, || LIMIT, later(), |_| ()).is_err());
        assert!(begin.elapsed() < LIMIT / 2, "answered without waiting");
        release.send(()).unwrap();
        while worker.progress.stalled().is_some() {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(worker.call(LIMIT / 2, || LIMIT, later(), |_| 7), Ok(7), "works again");
    }

    #[test]
    fn a_job_that_panics_does_not_take_the_thread_with_it() {
        let worker = Worker::start("test").unwrap();
        let lost: Result<(), _> = worker.call(LONG, || LONG, later(), |_| panic!("on purpose"));
        assert!(lost.is_err());
        assert_eq!(worker.call(LONG, || LONG, later(), |_| 7), Ok(7));
    }

    #[test]
    fn a_slow_job_may_take_longer_than_one_step() {
        let worker = Worker::start("test").unwrap();
        let slow = worker.call(
            LIMIT / 2,
            || LIMIT,
            later(),
            |progress| {
                for _ in 0..4 {
                    thread::sleep(LIMIT / 2);
                    progress.step();
                }
            },
        );
        assert_eq!(slow, Ok(()));
    }

    #[test]
    fn the_limit_is_asked_for_when_it_matters() {
        let worker = Worker::start("test").unwrap();
        assert_eq!(worker.call(LONG, || unreachable!("it is quick"), later(), |_| 7), Ok(7));
        let slow = |_: &Progress| thread::sleep(LIMIT * 2);
        assert_eq!(worker.call(LIMIT / 2, || LONG, later(), slow), Ok(()));
        assert!(worker.call(LIMIT / 2, || LIMIT, later(), slow).is_err());
        assert_eq!(worker.call(LIMIT / 2, || LONG, later(), |_| 7), Ok(7), "the one before is waited for");
    }

    #[test]
    fn a_slow_job_is_not_waited_for_after_the_deadline() {
        let worker = Worker::start("test").unwrap();
        let slow = worker.call(
            LONG / 8,
            || LONG / 4,
            Instant::now() + LONG / 3,
            |progress| {
                for _ in 0..1000 {
                    thread::sleep(LIMIT / 10);
                    progress.step();
                }
            },
        );
        assert!(matches!(slow, Err(Late(time)) if time < LONG), "{slow:?}");
    }

    #[test]
    fn a_job_that_nobody_waits_for_any_more_is_not_run() {
        let worker = Worker::start("test").unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let ran = Arc::new(AtomicBool::new(false));
        let seen = ran.clone();
        thread::scope(|scope| {
            scope.spawn(|| worker.call(LIMIT / 2, || LIMIT, later(), move |_| hang.recv()));
            while worker.progress.stalled().is_none() {
                thread::yield_now();
            }
            assert!(worker.call(LIMIT / 2, || LIMIT, later(), move |_| seen.store(true, Ordering::Relaxed)).is_err());
        });
        release.send(()).unwrap();
        while worker.call(LIMIT / 2, || LIMIT, later(), |_| ()).is_err() {}
        assert!(!ran.load(Ordering::Relaxed));
    }
}
