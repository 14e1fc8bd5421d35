//! A thread for calls that may never return.
//!
//! Calls into a repository are made here, one after the other. While one hangs, everybody who asks is told so at once,
//! and no further thread gets stuck.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The repository did not get on for this long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stuck(pub Duration);

type Job = Box<dyn FnOnce(&Progress) + Send>;

/// When the job that is running last got on; `None` while there is none.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    /// Says that a step of the job is done.
    pub(super) fn step(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// For how long the running job has not got on.
    fn stalled(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
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
                shown.step();
                // A bug must not make the repository look hung for ever. Whoever waits is told by the lost answer.
                if catch_unwind(AssertUnwindSafe(|| job(&shown))).is_err() {
                    tracing::error!("a request to a repository panicked; please report this");
                }
                shown.set(None);
            }
        })?;
        Ok(Self { jobs: Mutex::new(jobs), progress })
    }

    /// Runs the job on the thread and waits for its result, as long as the thread gets on: at most a limit for a step,
    /// and all in all until `deadline`, but for one step in any case.
    ///
    /// `limit` is asked for when a step takes longer than `soon`.
    pub(super) fn call<T: Send + 'static>(
        &self,
        soon: Duration,
        limit: impl FnOnce() -> Duration,
        deadline: Instant,
        job: impl FnOnce(&Progress) -> T + Send + 'static,
    ) -> Result<T, Stuck> {
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
        let started = Instant::now();
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
            let stalled = self.progress.stalled().unwrap_or_default();
            let end = deadline.max(started + limit);
            let left = end.saturating_duration_since(Instant::now()).min(limit.saturating_sub(stalled));
            if left.is_zero() {
                if let Some(longer) = limit_of.take() {
                    limit = longer();
                    continue;
                }
                given_up.store(true, Ordering::Relaxed);
                return Err(Stuck(stalled.max(started.elapsed())));
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

    fn later() -> Instant {
        Instant::now() + LIMIT * 100
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
        let lost: Result<(), _> = worker.call(LIMIT * 100 / 2, || LIMIT * 100, later(), |_| panic!("on purpose"));
        assert!(lost.is_err());
        assert_eq!(worker.call(LIMIT * 100 / 2, || LIMIT * 100, later(), |_| 7), Ok(7));
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
        assert_eq!(worker.call(LIMIT * 100, || unreachable!("it is quick"), later(), |_| 7), Ok(7));
        let slow = |_: &Progress| thread::sleep(LIMIT * 2);
        assert_eq!(worker.call(LIMIT / 2, || LIMIT * 100, later(), slow), Ok(()));
        assert!(worker.call(LIMIT / 2, || LIMIT, later(), slow).is_err());
        assert_eq!(worker.call(LIMIT / 2, || LIMIT * 100, later(), |_| 7), Ok(7), "the one before is waited for");
    }

    #[test]
    fn a_slow_job_is_not_waited_for_after_the_deadline() {
        let worker = Worker::start("test").unwrap();
        let slow = worker.call(
            LIMIT / 2,
            || LIMIT,
            Instant::now() + LIMIT * 2,
            |progress| {
                for _ in 0..40 {
                    thread::sleep(LIMIT / 2);
                    progress.step();
                }
            },
        );
        assert!(matches!(slow, Err(Stuck(time)) if time < LIMIT * 15), "{slow:?}");
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
