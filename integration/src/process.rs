//! Runs a program to its end, or to the limit of all waits.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::wait::{LIMIT, wait_for};

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    pub command: String,
    pub stdout: String,
    pub stderr: String,
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
}

/// Runs `command`, called `named` in messages, with `input` on its standard input.
pub fn run(command: &mut Command, named: &str, input: &str) -> Done {
    let (mut stdin, mut stdout, mut stderr) = (scratch(), scratch(), scratch());
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).expect("a temporary file can be written");
    let mut child = command
        .stdin(if input.is_empty() { Stdio::null() } else { stdin.into() })
        .stdout(stdout.try_clone().expect("a second handle"))
        .stderr(stderr.try_clone().expect("a second handle"))
        .spawn()
        .unwrap_or_else(|error| panic!("{named}: {error}; integration/run installs what is needed"));
    let began = std::time::Instant::now();
    let status = wait_for(named, 2 * LIMIT, || {
        if began.elapsed() > LIMIT {
            let _ = child.kill();
        }
        child.try_wait().expect("a child can be asked")
    });
    Done {
        command: named.to_owned(),
        stdout: text(&mut stdout),
        stderr: text(&mut stderr),
        code: status.code(),
    }
}

impl Done {
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The command, if it ended well.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // most callers want no more than that it ended so
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// The command, if it ended with this code.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // as above
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}{}", self.command, self.stdout, self.stderr);
        self
    }

    /// Its output as one JSON document.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}{}", self.command, self.stdout, self.stderr))
    }
}

/// A file, and not a pipe: a command that prints much must not wait for a reader.
fn scratch() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
