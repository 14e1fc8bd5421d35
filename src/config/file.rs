//! The configuration file.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::error::Error;
use super::settings::{
    Config, DEFAULT_ADDRESS, DEFAULT_REPOSITORY, DEFAULT_ROOT, Kind, LogFormat, LogLevel, Repository, Timeouts, Verify,
};

/// The longest time limit.
const MAX_LIMIT: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    address: Option<Spanned<PathBuf>>,
    root: Option<Spanned<PathBuf>>,
    #[serde(default)]
    log_level: LogLevel,
    #[serde(default)]
    log_format: LogFormat,
    repository: Option<Spanned<String>>,
    absolute_mountpoint: Option<Spanned<PathBuf>>,
    #[serde(default)]
    repositories: Vec<Entry>,
    #[serde(default)]
    timeouts: TimeoutsTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    name: Spanned<String>,
    path: Spanned<PathBuf>,
    kind: Kind,
    #[serde(default)]
    verify: Verify,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct TimeoutsTable {
    probe: Option<Spanned<Seconds>>,
    first_mount: Option<Spanned<Seconds>>,
    markers: Option<Spanned<Seconds>>,
}

/// A time like `2s` or `500ms`.
#[derive(Deserialize)]
#[serde(transparent)]
struct Seconds(#[serde(with = "humantime_serde")] Duration);

pub(super) fn parse(path: &Path, text: &str) -> Result<Config, Error> {
    let file: File =
        toml::from_str(text).map_err(|source| Error::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let at = |span: Range<usize>, problem: String| {
        let line = 1 + text.as_bytes()[..span.start.min(text.len())].iter().filter(|b| **b == b'\n').count();
        Error::Value { path: path.to_owned(), line, problem }
    };
    let checked = |value: Spanned<PathBuf>| match check_path(value.get_ref()) {
        Ok(()) => Ok(value.into_inner()),
        Err(problem) => Err(at(value.span(), problem)),
    };
    let limit = |value: Option<Spanned<Seconds>>, default: Duration| match value {
        None => Ok(default),
        Some(value) if value.get_ref().0.is_zero() => {
            Err(at(value.span(), "a time limit of 0 would fail every request; write a time like \"2s\"".to_owned()))
        }
        Some(value) if value.get_ref().0 > MAX_LIMIT => Err(at(
            value.span(),
            "time limits must be at most 1h: containerd blocks meanwhile; write a time like \"2s\"".to_owned(),
        )),
        Some(value) => Ok(value.into_inner().0),
    };
    let defaults = Timeouts::default();
    let timeouts = Timeouts {
        probe: limit(file.timeouts.probe, defaults.probe)?,
        first_mount: limit(file.timeouts.first_mount, defaults.first_mount)?,
        markers: limit(file.timeouts.markers, defaults.markers)?,
    };
    let repositories = match (file.repositories, file.repository, file.absolute_mountpoint) {
        (entries, None, None) if !entries.is_empty() => {
            check_names(&entries).map_err(|(span, problem)| at(span, problem))?;
            let repository = |entry: Entry| {
                let Entry { name, path, kind, verify } = entry;
                Ok(Repository { name: name.into_inner(), path: checked(path)?, kind, verify })
            };
            entries.into_iter().map(repository).collect::<Result<_, Error>>()?
        }
        (entries, name, mountpoint) => {
            if !entries.is_empty() {
                let span = name.map(|n| n.span()).or(mountpoint.map(|m| m.span())).unwrap_or_default();
                let problem =
                    "repository and absolute-mountpoint cannot be used beside [[repositories]]: make it an entry there";
                return Err(at(span, problem.to_owned()));
            }
            if let Some(name) = name.as_ref().filter(|name| !is_repository_name(name.get_ref())) {
                let problem = format!(
                    "{:?} is not the name of a CernVM-FS repository, like {DEFAULT_REPOSITORY:?}",
                    name.get_ref()
                );
                return Err(at(name.span(), problem));
            }
            let name = name.map_or(DEFAULT_REPOSITORY.to_owned(), Spanned::into_inner);
            // As in the Go daemon an empty mountpoint is none.
            let path = match mountpoint.filter(|path| !path.get_ref().as_os_str().is_empty()) {
                Some(path) => checked(path)?,
                None => Path::new("/cvmfs").join(&name),
            };
            vec![Repository { name, path, kind: Kind::Cvmfs, verify: Verify::default() }]
        }
    };
    Ok(Config {
        address: file.address.map_or(Ok(PathBuf::from(DEFAULT_ADDRESS)), checked)?,
        root: file.root.map_or(Ok(PathBuf::from(DEFAULT_ROOT)), checked)?,
        log_level: file.log_level,
        log_format: file.log_format,
        timeouts,
        repositories,
    })
}

fn is_repository_name(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn check_names(entries: &[Entry]) -> Result<(), (Range<usize>, String)> {
    let mut paths = HashMap::new();
    for (index, Entry { name, path, .. }) in entries.iter().enumerate() {
        if name.get_ref().is_empty() {
            return Err((name.span(), "a repository needs a name".to_owned()));
        }
        if entries[..index].iter().any(|other| other.name.get_ref() == name.get_ref()) {
            return Err((
                name.span(),
                format!("there are two repositories of the name {:?}: rename one", name.get_ref()),
            ));
        }
        if let Some(other) = paths.insert(path.get_ref(), name.get_ref()) {
            let problem = format!("{} is the path of the repository {other:?} already", path.get_ref().display());
            return Err((path.span(), problem));
        }
    }
    Ok(())
}

/// Whether a path can be used: it becomes part of options of overlayfs, in which `:` and `,` separate and `\` escapes.
pub(super) fn check_path(path: &Path) -> Result<(), String> {
    let Some(text) = path.to_str() else {
        return Err(format!("{path:?} is not UTF-8, as containerd's messages are"));
    };
    if !path.is_absolute() {
        return Err(format!("{text:?} is a relative path: write the path from / on"));
    }
    if path.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(format!("{text:?} contains \"..\": write the path without"));
    }
    match text.chars().find(|c| matches!(c, ':' | ',' | '\\') || c.is_control()) {
        Some(c) => {
            Err(format!("{text:?} contains {c:?}, which overlayfs' options cannot express: use another directory"))
        }
        None => Ok(()),
    }
}
