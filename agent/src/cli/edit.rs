//! What is edited as YAML: on standard input where that is no terminal, in the operator's editor where it is.

use std::io::{IsTerminal as _, Read as _};
use std::sync::mpsc;
use std::time::Duration;

use schema::diagnostic::nearest::nearest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CliError, Context, yaml};

/// How long something on standard input is waited for by commands that do not need it: a script may have left a pipe
/// there that nobody ever writes to.
const FIRST_BYTE: Duration = Duration::from_millis(500);
/// Largest document that is read.
const MAX_TEXT: u64 = 1024 * 1024;
/// Editors in the order in which they are asked for, as LXD has it.
const EDITORS: [&str; 2] = ["VISUAL", "EDITOR"];

/// What stands on standard input, if something does and it is no terminal.
pub fn piped() -> Result<Option<String>, CliError> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(None);
    }
    let (begun, first) = mpsc::channel();
    let (done, all) = mpsc::channel();
    // Left behind if nothing comes: it ends with the process.
    std::thread::spawn(move || {
        let mut text = vec![0];
        let read = stdin.read(&mut text).and_then(|read| {
            text.truncate(read);
            let _ = begun.send(());
            if read == 0 { Ok(0) } else { stdin.take(MAX_TEXT).read_to_end(&mut text) }
        });
        let _ = done.send(read.map(|_| text));
    });
    if first.recv_timeout(FIRST_BYTE) == Err(mpsc::RecvTimeoutError::Timeout) {
        return Ok(None);
    }
    let failed = |error| CliError::failed(format!("standard input could not be read: {error}"));
    let text =
        all.recv().map_err(|_| CliError::failed("standard input could not be read"))?.map_err(failed)?;
    let text = String::from_utf8(text).map_err(|_| CliError::failed("standard input is not UTF-8"))?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}

/// The document that `current` is changed to: from standard input, or from an editor that begins with it. A key that
/// neither `current` has nor `shown`, what `show` prints besides, is refused: passed over, it would leave out, and so unset,
/// what it was to set.
pub fn changed<T: DeserializeOwned>(
    context: &Context,
    current: &impl Serialize,
    shown: &[&str],
    explained: &str,
) -> Result<T, CliError> {
    let before = serde_json::to_value(current).unwrap_or_default();
    let known: Vec<&str> = before
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys().map(String::as_str))
        .chain(shown.iter().copied())
        .collect();
    if !std::io::stdin().is_terminal() {
        let text = piped()?.ok_or_else(|| {
            CliError::failed("there is no document on standard input")
                .hint("Give one, or edit on a terminal.")
        })?;
        return read(&text, &known);
    }
    let mut text = format!("{explained}\n{}", yaml::text(current));
    loop {
        text = edited(&text)?;
        match read(&text, &known) {
            Ok(value) => return Ok(value),
            Err(error) => {
                context.output.note(format!(
                    "{}\nPress enter to open the editor again, or Ctrl-C to leave it.",
                    error.message
                ));
                context.output.ask("")?;
            }
        }
    }
}

/// Reads a document with none but known keys.
fn read<T: DeserializeOwned>(text: &str, known: &[&str]) -> Result<T, CliError> {
    let document: Value = yaml::read(text)?;
    let mut keys = document.as_object().into_iter().flat_map(serde_json::Map::keys);
    if let Some(key) = keys.find(|key| !known.contains(&key.as_str())) {
        // Something pasted in the wrong place is not repeated.
        let key: String = key.chars().take(64).collect();
        let near = nearest(&key, known.iter().copied());
        let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
        return Err(CliError::failed(format!("unknown key {key:?}{near}"))
            .code("bad-yaml")
            .hint(format!("Nothing was changed. The keys are {}.", known.join(", "))));
    }
    yaml::read(text)
}

/// What an editor made of `text`.
fn edited(text: &str) -> Result<String, CliError> {
    let failed = |what: &str, error: std::io::Error| CliError::failed(format!("{what}: {error}"));
    let file = tempfile::Builder::new().prefix("comity-").suffix(".yaml").tempfile();
    let file = file.map_err(|error| failed("no temporary file could be made", error))?;
    std::fs::write(file.path(), text)
        .map_err(|error| failed("the temporary file could not be written", error))?;
    let chosen = EDITORS.iter().find_map(std::env::var_os).filter(|editor| !editor.is_empty());
    let editor = chosen.unwrap_or_else(|| "vi".into());
    // An editor may come with arguments of its own, so a shell reads it, as it does for every other program.
    let status = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{} \"$0\"", editor.to_string_lossy()))
        .arg(file.path())
        .status()
        .map_err(|error| failed("the editor could not be started", error))?;
    if !status.success() {
        return Err(CliError::failed(format!("the editor ended with {status}; nothing was changed"))
            .hint("VISUAL or EDITOR names another one."));
    }
    std::fs::read_to_string(file.path())
        .map_err(|error| failed("the temporary file could not be read", error))
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    #[test]
    fn a_misspelt_key_is_refused_with_the_one_that_was_meant() {
        let known = ["config", "description", "name"];
        let error = read::<Map<String, Value>>("confg:\n  size: 1GiB\n", &known).unwrap_err();
        assert_eq!(error.message, "unknown key \"confg\", did you mean \"config\"?");
        assert!(error.hint.unwrap().starts_with("Nothing was changed."));
        let written = read::<Map<String, Value>>("config:\n  sise: 1GiB\nname: x\n", &known).unwrap();
        assert_eq!(written.len(), 2);
    }
}
