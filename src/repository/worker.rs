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

/// The progress of the jobs.
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

    /// For how long the running job has made no progress.
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
        let wait = Wait { started, before, deadline };
        loop {
            let left = match wait.left(Instant::now(), self.progress.steps(), limit) {
                Ok(left) => left,
                Err(no_answer) => {
                    if let Some(longer) = limit_of.take() {
                        limit = longer();
                        continue;
                    }
                    given_up.store(true, Ordering::Relaxed);
                    return Err(no_answer);
                }
            };
            match result.recv_timeout(left) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) => {}
                // The job panicked.
                Err(RecvTimeoutError::Disconnected) => return Err(Stuck(started.elapsed())),
            }
        }
    }
}

/// How long a caller waits.
struct Wait {
    started: Instant,
    /// The steps that were done when it began.
    before: u64,
    deadline: Instant,
}

impl Wait {
    /// How long it may wait from `now` on before it has to look again, or why it gives up. `limit` is for a step.
    fn left(&self, now: Instant, steps: Steps, limit: Duration) -> Result<Duration, NoAnswer> {
        let waited = now.saturating_duration_since(self.started);
        let stalled = now.saturating_duration_since(steps.last.unwrap_or(self.started));
        let for_step = limit.saturating_sub(stalled);
        if for_step.is_zero() {
            return Err(Stuck(stalled.max(waited)));
        }
        if steps.done == self.before {
            return Ok(for_step);
        }
        let end = self.deadline.max(self.started + limit);
        let for_all = end.saturating_duration_since(now);
        if for_all.is_zero() { Err(Late(waited)) } else { Ok(for_step.min(for_all)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a job that hangs is given. No test depends on what happens within it.
    const LIMIT: Duration = Duration::from_millis(100);

    /// Longer than any of these jobs takes.
    const LONG: Duration = Duration::from_secs(60);

    fn later() -> Instant {
        Instant::now() + LONG
    }

    const fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    /// With a clock of its own: a caller that began at 0 s, with 2 s for a step and 10 s for all.
    #[test]
    fn a_caller_waits_as_long_as_steps_are_done_and_not_after_the_deadline() {
        let zero = Instant::now();
        let wait = Wait { started: zero, before: 5, deadline: zero + seconds(10) };
        // Now, when the last step was done, the steps done, and what comes of it.
        for (now, last, done, expected) in [
            (0, None, 5, Ok(seconds(2))),
            (1, None, 5, Ok(seconds(1))),
            (2, None, 5, Err(Stuck(seconds(2)))),
            // The one before takes longer than a step may.
            (1, Some(1), 5, Ok(seconds(2))),
            (3, Some(1), 5, Err(Stuck(seconds(3)))),
            // It makes progress.
            (3, Some(2), 6, Ok(seconds(1))),
            (8, Some(8), 9, Ok(seconds(2))),
            (9, Some(9), 9, Ok(seconds(1))),
            (10, Some(10), 9, Err(Late(seconds(10)))),
            // It hung before the deadline.
            (10, Some(8), 9, Err(Stuck(seconds(10)))),
            // Only those that wait for others' steps have no deadline.
            (10, Some(10), 5, Ok(seconds(2))),
        ] {
            let steps = Steps { last: last.map(|last| zero + seconds(last)), done };
            assert_eq!(wait.left(zero + seconds(now), steps, seconds(2)), expected, "at {now} s, {steps:?}");
        }
        // One step may take its time, whatever the deadline.
        let wait = Wait { started: zero, before: 5, deadline: zero };
        let steps = Steps { last: Some(zero + seconds(1)), done: 6 };
        assert_eq!(wait.left(zero + seconds(1), steps, seconds(2)), Ok(seconds(1)));
    }

    #[test]
    fn a_hung_job_is_reported_and_so_are_later_ones() {
        let worker = Worker::start("test").unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let first = worker.call(LIMIT / 2, || LIMIT, later(), move |_| hang.recv());
        assert!(matches!(first, Err(Stuck(time)) if time >= LIMIT));
        assert!(worker.call(LIMIT / 2, || LIMIT, later(), |_| ()).is_err());
        release.send(()).unwrap();
        while worker.progress.stalled().is_some() {
            thread::yield_now();
        }
        assert_eq!(worker.call(LONG, || LONG, later(), |_| 7), Ok(7), "works again");
    }

    #[test]
    fn a_job_that_panics_does_not_take_the_thread_with_it() {
        let worker = Worker::start("test").unwrap();
        let lost: Result<(), _> = worker.call(LONG, || LONG, later(), |_| panic!("on purpose"));
        assert!(lost.is_err());
        assert_eq!(worker.call(LONG, || LONG, later(), |_| 7), Ok(7));
    }

    #[test]
    fn the_limit_is_asked_for_when_it_matters() {
        let worker = Worker::start("test").unwrap();
        assert_eq!(worker.call(LONG, || unreachable!("it is quick"), later(), |_| 7), Ok(7));
        let (release, hang) = mpsc::channel::<()>();
        let hang = Arc::new(Mutex::new(hang));
        let waits = || {
            let hang = hang.clone();
            move |_: &Progress| hang.lock().unwrap().recv().unwrap()
        };
        let longer = || {
            release.send(()).unwrap();
            LONG
        };
        assert_eq!(worker.call(LIMIT / 2, longer, later(), waits()), Ok(()), "it is waited for");
        assert!(worker.call(LIMIT / 2, || LIMIT, later(), waits()).is_err());
        assert_eq!(worker.call(LIMIT / 2, longer, later(), |_| 7), Ok(7), "the one before is waited for");
    }

    #[test]
    fn a_job_that_does_steps_for_ever_is_not_waited_for() {
        let worker = Worker::start("test").unwrap();
        let (release, hang) = mpsc::channel::<()>();
        let slow = worker.call(
            LIMIT / 2,
            || LIMIT,
            Instant::now(),
            move |progress| {
                while hang.recv_timeout(Duration::from_millis(1)).is_err() {
                    progress.step();
                }
            },
        );
        assert!(slow.is_err(), "{slow:?}");
        release.send(()).unwrap();
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
