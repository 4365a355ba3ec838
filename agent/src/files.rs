//! Declaration folders: reading them whole, noticing that they changed.
//!
//! What cannot be read is a diagnostic beside all others, never a reason to stop: one run reports every fault.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use schema::config::SourceFile;
use schema::diagnostic::{Diagnostic, secret};
use walkdir::{DirEntry, WalkDir};

mod inputs;
mod watch;

pub use inputs::DiskInputs;
pub use watch::{Changed, watch};

/// Largest declaration file, bytes.
pub const MAX_FILE: u64 = 4 << 20;
/// Most bytes of declarations in one run.
pub const MAX_TOTAL: usize = 64 << 20;
/// Most files and folders looked at beneath one path.
const MAX_ENTRIES: usize = 100_000;
/// Deepest folder looked into.
pub const MAX_DEPTH: usize = 32;
/// What a folder is read for.
const EXTENSIONS: [&str; 3] = ["hcl", "toml", "json"];

/// Every declaration file named by `paths` or beneath them, each once, in order; and what could not be read.
/// Names that begin with a dot are passed over, unless given.
pub fn read(paths: &[PathBuf]) -> (Vec<SourceFile>, Vec<Diagnostic>) {
    let mut reading = Reading::default();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => reading.folder(path),
            Ok(_) if is_declaration(path) => reading.file(path, None),
            Ok(_) => reading.fault(
                Diagnostic::error(
                    "not-a-declaration",
                    format!("{} is no declaration file", given(path)),
                    None,
                )
                .detail("Give a folder, or a file whose name ends in .hcl, .toml or .json."),
            ),
            Err(error) => reading.fault(unreadable(path, &error)),
        }
    }
    (reading.files, reading.diagnostics)
}

#[derive(Default)]
struct Reading {
    files: Vec<SourceFile>,
    diagnostics: Vec<Diagnostic>,
    seen: HashSet<PathBuf>,
    total: usize,
}

impl Reading {
    fn fault(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn folder(&mut self, root: &Path) {
        let canonical = match root.canonicalize() {
            Ok(canonical) => canonical,
            Err(error) => return self.fault(unreadable(root, &error)),
        };
        let faults = self.diagnostics.len();
        let mut found = false;
        let walk = WalkDir::new(root).follow_links(true).max_depth(MAX_DEPTH).sort_by_file_name();
        let shown = |entry: &DirEntry| entry.depth() == 0 || !is_hidden(entry);
        for (count, entry) in walk.into_iter().filter_entry(shown).enumerate() {
            if count >= MAX_ENTRIES {
                return self.fault(
                    Diagnostic::error(
                        "too-many-files",
                        format!("{} holds more than {MAX_ENTRIES} files and folders", root.display()),
                        None,
                    )
                    .detail("Give the folder that holds the declarations alone."),
                );
            }
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {
                    if entry.depth() == MAX_DEPTH {
                        self.fault(
                            Diagnostic::error(
                                "too-deep",
                                format!("{} is nested too deeply", entry.path().display()),
                                None,
                            )
                            .detail(format!("Folders are read {MAX_DEPTH} levels deep.")),
                        );
                    }
                }
                Ok(entry) if !is_declaration(entry.path()) => {}
                Ok(entry) => {
                    found = true;
                    let folder = entry.path().parent().and_then(|folder| folder.strip_prefix(root).ok());
                    let folder = folder.map_or_else(|| canonical.clone(), |inside| canonical.join(inside));
                    self.file(entry.path(), Some(&folder));
                }
                Err(error) => self.walk_fault(root, &error),
            }
        }
        if !found && self.diagnostics.len() == faults {
            self.fault(
                Diagnostic::error(
                    "no-declarations",
                    format!("{} holds no declaration files", root.display()),
                    None,
                )
                .detail("A folder is read for *.hcl, *.toml and *.json, in it and beneath it."),
            );
        }
    }

    fn walk_fault(&mut self, root: &Path, error: &walkdir::Error) {
        let path = error.path().unwrap_or(root);
        if let Some(ancestor) = error.loop_ancestor() {
            return self.fault(
                Diagnostic::error(
                    "symlink-loop",
                    format!("{} is a symlink to a folder that holds it", path.display()),
                    None,
                )
                .detail(format!("It leads back to {}. Remove the symlink.", ancestor.display())),
            );
        }
        match error.io_error() {
            Some(source) => self.fault(unreadable(path, source)),
            None => self.fault(unreadable(path, &io::Error::other("it cannot be looked into"))),
        }
    }

    fn file(&mut self, path: &Path, folder: Option<&Path>) {
        let canonical = match path.canonicalize() {
            Ok(canonical) => canonical,
            Err(error) => return self.fault(unreadable(path, &error)),
        };
        let folder = folder.map(Path::to_owned).or_else(|| canonical.parent().map(Path::to_owned));
        let folder = folder.unwrap_or_default();
        if !self.seen.insert(canonical) {
            return;
        }
        let bytes = match contents(path) {
            Ok(bytes) => bytes,
            Err(error) => return self.fault(unreadable(path, &error)),
        };
        if bytes.len() as u64 > MAX_FILE {
            return self.fault(
                Diagnostic::error("file-too-large", format!("{} is too large", path.display()), None)
                    .detail(format!("A declaration file has at most {} MiB. Split it.", MAX_FILE >> 20)),
            );
        }
        self.total += bytes.len();
        if self.total > MAX_TOTAL {
            // Said once, where the limit is passed.
            if self.total - bytes.len() <= MAX_TOTAL {
                self.fault(
                    Diagnostic::error(
                        "too-much",
                        format!("the files up to {} are too large together", path.display()),
                        None,
                    )
                    .detail(format!("One run reads at most {} MiB. Give fewer folders.", MAX_TOTAL >> 20)),
                );
            }
            return;
        }
        self.files.push(SourceFile {
            path: shown(path).into(),
            folder: folder.to_string_lossy().into(),
            bytes: bytes.into(),
        });
    }
}

/// As messages name a path: without the `./` that a folder given as `.` puts before everything.
fn shown(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).to_string_lossy().into_owned()
}

/// A path that nothing was read from, without a token pasted in its place.
fn given(path: &Path) -> String {
    secret::without_tokens(&path.to_string_lossy()).into_owned()
}

/// At most one byte more than [`MAX_FILE`], so that too much can be told.
pub fn contents(path: &Path) -> io::Result<Vec<u8>> {
    // NONBLOCK, so that a FIFO of that name does not make us wait for a writer; what it is, is asked of the open file.
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let expected = usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(expected + 1);
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_declaration(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|e| EXTENSIONS.contains(&e))
}

/// Whether a folder's entry is passed over.
pub fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().first() == Some(&b'.')
}

fn unreadable(path: &Path, error: &io::Error) -> Diagnostic {
    let (code, what, advice) = match error.kind() {
        io::ErrorKind::NotFound => ("no-such-path", "does not exist", "Check the spelling of the path."),
        io::ErrorKind::PermissionDenied => (
            "unreadable",
            "may not be read by this user",
            "Change its permissions, or run as a user who may read it.",
        ),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            ("symlink-loop", "is a symlink that leads to itself", "Remove the symlink.")
        }
        _ => ("unreadable", "cannot be read", ""),
    };
    let diagnostic = Diagnostic::error(code, format!("{} {what}", given(path)), None);
    if advice.is_empty() {
        diagnostic.detail(format!("The reason: {error}."))
    } else {
        diagnostic.detail(advice)
    }
}

#[cfg(test)]
mod tests;
