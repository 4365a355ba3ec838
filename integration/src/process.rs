//! Runs a program to its end, or to the limit of all waits.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
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

/// Runs `command`, and types each answer once its question is on standard output.
pub fn converse(command: &mut Command, named: &str, answers: &[(&str, &str)]) -> Done {
    let (stdout, stderr) = (scratch(), scratch());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(stdout.try_clone().expect("a second handle"))
        .stderr(stderr.try_clone().expect("a second handle"))
        .spawn()
        .unwrap_or_else(|error| panic!("{named}: {error}; integration/run installs what is needed"));
    let mut stdin = child.stdin.take().expect("it is piped");
    for (question, answer) in answers {
        wait_for(&format!("{named} asks {question:?}"), LIMIT, || {
            let ended = child.try_wait().expect("a child can be asked").is_some();
            (ended || text(&stdout).contains(question)).then_some(())
        });
        // Whoever has ended hears nothing.
        let _ = writeln!(stdin, "{answer}");
    }
    drop(stdin);
    let status = wait_for(named, LIMIT, || child.try_wait().expect("a child can be asked"));
    Done { command: named.to_owned(), stdout: text(&stdout), stderr: text(&stderr), code: status.code() }
}

/// Runs `command`, called `named` in messages, with `input` on its standard input.
pub fn run(command: &mut Command, named: &str, input: &str) -> Done {
    let (mut stdin, stdout, stderr) = (scratch(), scratch(), scratch());
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
    Done { command: named.to_owned(), stdout: text(&stdout), stderr: text(&stderr), code: status.code() }
}

/// A command that still runs. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    named: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    /// Starts `command`, called `named` in messages, with nothing on its standard input.
    pub fn start(command: &mut Command, named: &str) -> Self {
        let (stdout, stderr) = (scratch(), scratch());
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .spawn()
            .unwrap_or_else(|error| panic!("{named}: {error}; integration/run installs what is needed"));
        Self { named: named.to_owned(), child, stdout, stderr }
    }

    /// What follows `mark` on its line, once that line was printed whole, on either output.
    #[track_caller]
    pub fn says(&mut self, mark: &str) -> String {
        wait_for(&format!("{} says {mark:?}", self.named), LIMIT, || {
            let ended = self.child.try_wait().expect("a child can be asked");
            let said = text(&self.stdout) + &text(&self.stderr);
            let found = said.split_once(mark).and_then(|(_, rest)| rest.split_once('\n'));
            assert!(found.is_some() || ended.is_none(), "{} ended: {said}", self.named);
            found.map(|(line, _)| line.trim().to_owned())
        })
    }

    /// Whether this is in what it has said so far.
    #[track_caller]
    pub fn has_said(&mut self, mark: &str) -> bool {
        let said = text(&self.stdout) + &text(&self.stderr);
        let ended = self.child.try_wait().expect("a child can be asked");
        assert!(ended.is_none(), "{} ended: {said}", self.named);
        said.contains(mark)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be asked").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Done {
        let status =
            wait_for(&self.named, 2 * LIMIT, || self.child.try_wait().expect("a child can be asked"));
        Done {
            command: self.named.clone(),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
            code: status.code(),
        }
    }

    /// Sends it a signal, as a terminal does for Ctrl-C.
    pub fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, Signal::INT).expect("a child can be told to end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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

/// Read at places of its own: the position is shared with whoever writes.
fn text(file: &File) -> String {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata().expect("a temporary file is there").len();
    let mut bytes = vec![0; usize::try_from(length).expect("it fits")];
    file.read_exact_at(&mut bytes, 0).expect("a temporary file can be read");
    String::from_utf8_lossy(&bytes).into_owned()
}
