//! The control socket: one JSON object a line, each answered by one: `{"ok":true,…}` or `{"ok":false,"error":"…"}`.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fuser::Errno;
use nix::errno::Errno as Number;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::mounts::Mounts;
use crate::switches::Failure;

#[derive(Debug, Deserialize)]
#[serde(tag = "cmd", rename_all = "snake_case", deny_unknown_fields)]
enum Command {
    /// Answers, and does nothing.
    Ping {},
    /// A new revision without this layer.
    Hide {
        layer: String,
    },
    /// A new revision with this layer.
    Show {
        layer: String,
    },
    /// A new revision, in which the layer's content, and so its catalog hash, is another.
    Republish {
        layer: String,
    },
    /// A new revision: what was added to the directory served becomes visible at once.
    Revision {},
    /// `EIO`, another name, or `none`: for catalogs that were not loaded before, or with `loaded` for these too.
    Fail {
        errno: String,
        layer: Option<String>,
        #[serde(default)]
        loaded: bool,
    },
    /// No request is taken until `unhang`.
    Hang {},
    Unhang {},
    /// Each request takes so much longer; 0 ends it.
    Slow {
        ms: u64,
    },
    /// How many requests arrived since the last reset.
    Stats {
        #[serde(default)]
        reset: bool,
    },
    /// Lazily: what is in use lives on.
    Unmount {},
    /// Mounts again.
    Remount {},
    /// Unmounts and ends.
    Quit {},
}

/// Binds the socket, over a stale one.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

pub(crate) fn serve(listener: &UnixListener, mounts: &Arc<Mounts>) -> io::Result<()> {
    for stream in listener.incoming() {
        let (stream, mounts) = (stream?, Arc::clone(mounts));
        thread::spawn(move || converse(&stream, &mounts));
    }
    Ok(())
}

fn converse(stream: &UnixStream, mounts: &Mounts) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        let answer = match serde_json::from_str(&line) {
            Ok(Command::Quit {}) => {
                writeln!(&mut &*stream, "{}", json!({ "ok": true }))?;
                mounts.quit();
            }
            Ok(command) => execute(command, mounts).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let answer = match answer {
            Ok(mut answer) => {
                answer["ok"] = true.into();
                answer
            }
            Err(error) => json!({ "ok": false, "error": error }),
        };
        writeln!(&mut &*stream, "{answer}")?;
    }
    Ok(())
}

fn execute(command: Command, mounts: &Mounts) -> io::Result<Value> {
    let switches = &mounts.shared().switches;
    let revision = |layer: Option<&str>| json!({ "revision": mounts.new_revision(layer) });
    match command {
        Command::Hide { layer } => {
            switches.hide(&layer, true);
            return Ok(revision(Some(&layer)));
        }
        Command::Show { layer } => {
            switches.hide(&layer, false);
            return Ok(revision(Some(&layer)));
        }
        Command::Republish { layer } => {
            switches.republish(&layer);
            return Ok(revision(Some(&layer)));
        }
        Command::Revision {} => return Ok(revision(None)),
        Command::Stats { reset } => return Ok(json!({ "counts": switches.counts(reset) })),
        Command::Fail { errno, layer, loaded } => {
            let errno = number(&errno)?;
            switches.fail(errno.map(|errno| Failure { errno, layer, loaded }));
        }
        Command::Hang {} => mounts.hang()?,
        Command::Unhang {} => mounts.unhang(),
        Command::Slow { ms } => switches.set_slow(Duration::from_millis(ms)),
        Command::Unmount {} => mounts.unmount()?,
        Command::Remount {} => mounts.mount()?,
        Command::Ping {} | Command::Quit {} => {}
    }
    Ok(json!({}))
}

fn number(name: &str) -> io::Result<Option<Errno>> {
    let number = match name {
        "none" => return Ok(None),
        "EIO" => Number::EIO,
        "ENOTCONN" => Number::ENOTCONN,
        "ESTALE" => Number::ESTALE,
        "EACCES" => Number::EACCES,
        "ENOENT" => Number::ENOENT,
        "EINTR" => Number::EINTR,
        "ENOMEM" => Number::ENOMEM,
        _ => return Err(io::Error::other(format!("unknown errno {name}"))),
    };
    Ok(Some(Errno::from_i32(number as i32)))
}
