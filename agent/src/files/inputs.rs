//! What declarations may ask of the world: environment variables, and files beneath their own folder.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use schema::config::Inputs;

/// Largest file that `file("…")` gives, bytes.
const MAX_INPUT: u64 = 1 << 20;

/// Whether `env("…")` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    Given,
    Refused,
}

/// Inputs from this machine.
#[derive(Debug, Clone, Copy)]
pub struct DiskInputs {
    environment: Environment,
}

impl DiskInputs {
    /// For a command: the environment is that of who runs it.
    pub fn of_command() -> Self {
        Self { environment: Environment::Given }
    }

    /// For a folder that an agent watches: the agent's environment is not the business of who writes there.
    pub fn of_watched_folder() -> Self {
        Self { environment: Environment::Refused }
    }
}

impl Inputs for DiskInputs {
    fn env(&self, name: &str) -> Result<String, String> {
        match self.environment {
            Environment::Refused => {
                Err("environment variables are not read in a watched folder; use file(…)".to_owned())
            }
            Environment::Given => std::env::var(name).map_err(|error| match error {
                std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
                std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
            }),
        }
    }

    fn file(&self, declaring_path: &str, wanted: &str) -> Result<String, String> {
        let wanted_path = Path::new(wanted);
        let beneath = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if wanted.is_empty() || !wanted_path.components().all(beneath) {
            return Err("the path must lead beneath the declaring file's folder, without \"..\"".to_owned());
        }
        let folder = match Path::new(declaring_path).parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let read = || -> Result<String, String> {
            let why = |error: rustix::io::Errno| match error {
                rustix::io::Errno::NOENT => "it does not exist".to_owned(),
                rustix::io::Errno::XDEV => "a symlink leads out of the declaring file's folder".to_owned(),
                other => std::io::Error::from(other).to_string(),
            };
            let folder =
                openat(CWD, folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(why)?;
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // The kernel holds the path beneath the folder, symlinks and races included.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            let file: File =
                openat2(&folder, wanted_path, flags, Mode::empty(), resolve).map_err(why)?.into();
            if !file.metadata().map_err(|error| error.to_string())?.is_file() {
                return Err("it is not a regular file".to_owned());
            }
            let mut bytes = Vec::new();
            file.take(MAX_INPUT + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            if bytes.len() as u64 > MAX_INPUT {
                return Err(format!("it is larger than {} MiB", MAX_INPUT >> 20));
            }
            String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())
        };
        read().map_err(|why| format!("{wanted:?} cannot be read: {why}"))
    }
}
