//! What the demo prints and runs, and how Ctrl-C ends it.

use std::fmt::Display;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// Somebody pressed Ctrl-C: everything is cleaned up, and nothing else is done.
pub(crate) struct Interrupted;

/// What a command printed, and how long it took.
pub(crate) struct Done {
    /// Its standard output.
    pub(crate) stdout: String,
    /// From its start to its end.
    pub(crate) time: Duration,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The command that runs now.
static RUNNING: Mutex<Option<Child>> = Mutex::new(None);
const POLL: Duration = Duration::from_millis(2);

/// From now on the signals that ask for the end let the demo clean up first.
pub(crate) fn catch_signals() {
    // Handlers, not a mask: programs that are started would inherit a mask.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (ready, handled) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async {
            let handler = |kind| signal(kind).expect("signals can be handled");
            let mut interrupt = handler(SignalKind::interrupt());
            let mut terminate = handler(SignalKind::terminate());
            let mut hangup = handler(SignalKind::hangup());
            ready.send(()).expect("the demo waits for this");
            loop {
                tokio::select! {
                    _ = interrupt.recv() => interrupted(),
                    _ = terminate.recv() => interrupted(),
                    _ = hangup.recv() => interrupted(),
                }
            }
        });
    });
    handled.recv().expect("signals are handled");
}

fn interrupted() {
    if INTERRUPTED.swap(true, Ordering::SeqCst) {
        say("(still cleaning up)");
        return;
    }
    say("\nInterrupted: cleaning up.");
    if let Some(child) = running().as_mut() {
        // It may have ended by itself.
        let _ = child.kill();
    }
}

/// Prints a line. That nobody reads it must not keep the demo from cleaning up.
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Prints the title of a step.
pub(crate) fn title(text: &str) {
    say(format_args!("\n{text}\n{}", "-".repeat(text.len())));
}

/// Prints something, indented, as what a command or a file says.
pub(crate) fn quote(text: &str) {
    for line in text.lines() {
        say(format_args!("  | {line}").to_string().trim_end());
    }
}

/// Prints a command, in words that a person would type.
pub(crate) fn show(command: &str) {
    say(format_args!("  $ {command}"));
}

/// Shows a command, runs it and prints what it says.
pub(crate) fn run(shown: &str, command: Command) -> Result<Done, Interrupted> {
    show(shown);
    let done = run_quietly(command)?;
    quote(&done.stdout);
    Ok(done)
}

/// Runs a command that must succeed.
pub(crate) fn run_quietly(mut command: Command) -> Result<Done, Interrupted> {
    // Files, as what a command leaves running may hold pipes open.
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    command.stdin(Stdio::null()).stdout(stdout.try_clone().expect("dup")).stderr(stderr.try_clone().expect("dup"));
    // Ctrl-C is ours.
    command.process_group(0);
    let start = Instant::now();
    {
        let mut running = running();
        check()?;
        *running = Some(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }
    let status = loop {
        // The lock is not held while sleeping, so that the signal gets through.
        let ended = running().as_mut().and_then(|child| child.try_wait().expect("wait for a child"));
        if let Some(status) = ended {
            break status;
        }
        testkit::pause(POLL);
    };
    let time = start.elapsed();
    *running() = None;
    check()?;
    let text = |file: &mut std::fs::File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("the output of a command");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let stdout = text(&mut stdout);
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{}", text(&mut stderr));
    Ok(Done { stdout, time })
}

/// Fails if the demo is to end.
pub(crate) fn check() -> Result<(), Interrupted> {
    if INTERRUPTED.load(Ordering::SeqCst) { Err(Interrupted) } else { Ok(()) }
}

fn running() -> MutexGuard<'static, Option<Child>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
