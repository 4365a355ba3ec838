//! What is said of copies that fail, and what to do then.

use super::{Asked, Doing, Noun};
use crate::cli::{CliError, Context};
use crate::client::ClientError;

/// What is so after every failure that nothing else is known of.
pub fn kept(context: &Context, asked: &Asked) -> String {
    let (command, again, [_, target]) = (context.command(), context.again(), &asked.names);
    let list = match target.split_once(':') {
        Some((remote, _)) => format!("{command} transfer list {remote}:"),
        None => format!("{command} transfer list"),
    };
    format!(
        "The target is as it was. What has arrived is kept: {again} goes on with it, `{list}` shows it, `{command} transfer cancel {target}` discards it."
    )
}

pub fn transfer_failed(context: &Context, asked: &Asked, reason: &str) -> CliError {
    let error = CliError::failed(format!("{}: {reason}", asked.failure)).code("transfer-failed");
    error.hint(advice(context, asked, reason).unwrap_or_else(|| kept(context, asked)))
}

/// An answer that was a refusal, with what helps.
pub fn explained(context: &Context, asked: &Asked, error: ClientError) -> CliError {
    if !matches!(error, ClientError::Refused { .. }) {
        return error.into();
    }
    let advised = advice(context, asked, &error.to_string());
    let told = CliError::from(error);
    let hint = told.hint.clone().or(advised);
    CliError { message: format!("{}: {}", asked.failure, told.message), hint, ..told }
}

/// What to do about reasons that are met often.
fn advice(context: &Context, asked: &Asked, reason: &str) -> Option<String> {
    let (command, [source, target]) = (context.command(), &asked.names);
    let noun = match asked.of {
        Noun::Instance => "",
        Noun::Volume => "volume ",
    };
    let at = |operand: &str| match operand.split_once(':') {
        Some((remote, _)) => format!(" {remote}:"),
        None => String::new(),
    };
    Some(match Met::of(reason)? {
        Met::Arriving => format!(
            "`{command} operation list{}` shows what runs there; give another name, or try again when it has ended.",
            at(target)
        ),
        Met::Exists if asked.doing == Doing::Move => format!(
            "A move puts nothing in place of what is there: give another name, or delete that first (`{command} {noun}delete {target}`). If an earlier move brought it there, delete the source."
        ),
        Met::Exists => format!(
            "{} brings it to the source's state; otherwise give another name.",
            context.again_with("--refresh")
        ),
        Met::Changed => format!(
            "Copy a snapshot, which does not change (`{command} {noun}snapshot {source}`), or give --allow-inconsistent to take it as it is found."
        ),
        Met::Busy => format!(
            "Try again when that has ended: `{command} operation list{}` and `{command} operation list{}` show what runs.",
            at(source),
            at(target)
        ),
        Met::NoPool => format!("`{command} pool list{}` shows the pools that there are.", at(target)),
        Met::NoProject => format!("`{command} project list{}` shows the projects that there are.", at(target)),
        Met::Unreachable => {
            "The target could not connect to the source. --mode push has the source connect, --mode relay this command.".to_owned()
        }
        Met::Full => format!(
            "Make room in the target's pool, then {} goes on: what has arrived is kept.",
            context.again()
        ),
    })
}

/// What is met often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Met {
    Arriving,
    Exists,
    Changed,
    Busy,
    NoPool,
    NoProject,
    Unreachable,
    Full,
}

impl Met {
    /// By the words of the server, ours or LXD's.
    fn of(reason: &str) -> Option<Self> {
        let reason = reason.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
        Some(if says(&["is just arriving"]) {
            Self::Arriving
        } else if says(&["already exists", "exists already"]) {
            Self::Exists
        } else if says(&["changed while", "changes while"]) {
            Self::Changed
        } else if says(&["busy", "in use by"]) {
            Self::Busy
        } else if says(&["pool not found"]) {
            Self::NoPool
        } else if says(&["project not found"]) {
            Self::NoProject
        } else if says(&UNREACHABLE) {
            Self::Unreachable
        } else if says(&[
            "no space",
            "disk is full",
            "not enough space",
            "too small",
            "is full",
            "takes nothing more in",
        ]) {
            Self::Full
        } else {
            return None;
        })
    }
}

/// Words by which servers say that they could not connect.
const UNREACHABLE: [&str; 8] = [
    "could not be reached",
    "connection refused",
    "no route to host",
    "network is unreachable",
    "i/o timeout",
    "dial tcp",
    "unable to connect",
    "failed to connect",
];

pub fn unreachable(error: &CliError) -> bool {
    let message = error.message.to_ascii_lowercase();
    error.code == "transfer-failed" && UNREACHABLE.iter().any(|word| message.contains(word))
}

/// Every address was tried, in LXD's form.
pub fn all_failed(context: &Context, asked: &Asked, mut tried: Vec<(String, CliError)>) -> CliError {
    let prefix = format!("{}: ", asked.failure);
    let bare = |message: &str| message.strip_prefix(&prefix).unwrap_or(message).to_owned();
    if tried.len() == 1
        && let Some((_, error)) = tried.pop()
    {
        return error;
    }
    let lines: Vec<String> = tried
        .iter()
        .map(|(url, error)| {
            let server = url.split("/1.0/").next().unwrap_or(url);
            format!(" - {server}: {}", bare(&error.message))
        })
        .collect();
    let failed = CliError::failed(format!("{}:\n{}", asked.failure, lines.join("\n")));
    let hint = advice(context, asked, "could not be reached").unwrap_or_else(|| kept(context, asked));
    failed.code("transfer-failed").hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::cli::Globals;

    fn context(words: &[&str]) -> Context {
        let globals = Globals {
            socket: None,
            remote: None,
            project: None,
            format: crate::cli::Encoding::Text,
            quiet: true,
        };
        Context::new(globals, words.iter().map(Into::into).collect()).unwrap()
    }

    fn asked(doing: Doing) -> Asked {
        Asked {
            source: String::new(),
            offer: Map::new(),
            target: String::new(),
            made: Map::new(),
            common: Map::new(),
            failure: "Failed storage volume creation",
            doing,
            of: Noun::Volume,
            names: ["east:default/a", "west:default/b"].map(str::to_owned),
        }
    }

    #[test]
    fn advice_is_a_command_that_can_be_given_as_it_is() {
        let words = ["comity", "volume", "copy", "east:default/a", "west:default/b"];
        let (context, copy) = (context(&words), asked(Doing::Copy));
        let line = words.join(" ");
        for (reason, expected) in [
            ("Volume by that name already exists", format!("`{line} --refresh`")),
            ("the file x changed while it was read", "`comity volume snapshot east:default/a`".to_owned()),
            ("default/b is in use by another transfer", "`comity operation list west:`".to_owned()),
            ("Storage pool not found", "`comity pool list west:`".to_owned()),
            ("dial tcp 10.0.0.1:8443: connect: no route to host", "--mode push".to_owned()),
            ("storage pool default is full", format!("`{line}` goes on")),
            ("the agent is ending", format!("`{line}` goes on")),
            ("stopped", "`comity transfer cancel west:default/b`".to_owned()),
        ] {
            let hint = transfer_failed(&context, &copy, reason).hint.unwrap();
            assert!(hint.contains(&expected), "{reason}: {hint}");
        }
        let hint = transfer_failed(&context, &asked(Doing::Move), "it already exists").hint.unwrap();
        assert!(
            !hint.contains("--refresh") && hint.contains("`comity volume delete west:default/b`"),
            "{hint}"
        );
        assert_eq!(Met::of("permission denied"), None);
    }
}
