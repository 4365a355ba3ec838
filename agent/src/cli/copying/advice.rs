//! What is said of copies that fail, and what to do then.

use http::StatusCode;
use schema::name::RemoteName;

use super::{Asked, Doing, Noun, Side, origin};
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

/// Which end of a copy answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Target,
}

/// An answer that was a refusal, with what helps.
pub fn explained(
    context: &Context,
    asked: &Asked,
    (end, side): (End, &Side<'_>),
    error: ClientError,
) -> CliError {
    let ClientError::Refused { status, message, .. } = &error else { return error.into() };
    // Neither says more to whoever may not know more.
    let unseen = *status == StatusCode::NOT_FOUND && message.eq_ignore_ascii_case("not found");
    if *status == StatusCode::FORBIDDEN || unseen {
        let server = origin::server(side).unwrap_or_else(|| side.client.agent());
        let message = format!("{}: {server} refuses it: {message}", asked.failure);
        return CliError::from(error).hint(rights(context, asked, (end, side.remote), unseen)).said(message);
    }
    let advised = advice(context, asked, &error.to_string());
    let told = CliError::from(error);
    let hint = told.hint.clone().or(advised);
    CliError { message: format!("{}: {}", asked.failure, told.message), hint, ..told }
}

/// Which right is missing, as far as it is known here, and how it is given.
fn rights(
    context: &Context,
    asked: &Asked,
    (end, remote): (End, Option<&RemoteName>),
    unseen: bool,
) -> String {
    let (name, path) = match end {
        End::Source => (&asked.names[0], &asked.source),
        End::Target => (&asked.names[1], &asked.target),
    };
    let name = name.split_once(':').map_or(name.as_str(), |(_, name)| name);
    let project = path.split_once("project=").map_or("default", |(_, project)| project);
    let of_volume = |entitlement: &str| {
        let (pool, volume) = name.split_once('/').unwrap_or_default();
        let volume = volume.split('/').next().unwrap_or_default();
        format!("storage_volume {volume} {entitlement} project={project} type=custom pool={pool}")
    };
    let of_instance = |entitlement: &str| {
        let name = name.split('/').next().unwrap_or_default();
        format!("instance {name} {entitlement} project={project}")
    };
    let needed = match (asked.of, end, asked.doing) {
        (_, End::Target, _) if unseen => format!("project {project} can_view"),
        (Noun::Volume, End::Source, _) => of_volume("can_manage_backups"),
        (Noun::Instance, End::Source, _) => of_instance("can_manage_backups"),
        (Noun::Volume, End::Target, Doing::Refresh) => of_volume("can_edit"),
        (Noun::Instance, End::Target, Doing::Refresh) => of_instance("can_edit"),
        (Noun::Volume, End::Target, _) => format!("project {project} can_create_storage_volumes"),
        (Noun::Instance, End::Target, _) => format!("project {project} can_create_instances"),
    };
    let besides = match (end, asked.doing) {
        (End::Source, Doing::Move) => " A move takes can_delete as well, which is given in the same way.",
        (End::Target, Doing::Refresh) => " Where the target is not there yet, the right is to create it.",
        _ => "",
    };
    let group = remote.map_or_else(|| "GROUP".to_owned(), |remote| format!("{remote}:GROUP"));
    format!(
        "An administrator there lets a group do it that you are in: `{} auth group permission add {group} {needed}`.{besides}",
        context.command()
    )
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
    let is_declared = asked.common.contains_key("transfer");
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
        Met::Changed if is_declared => format!(
            "Take a snapshot, which does not change (`{command} {noun}snapshot {source} NAME`), and declare `snapshot = \"NAME\"`, or declare `allow_inconsistent = true` to take it as it is found."
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
        Met::Unreachable if is_declared => {
            "The target could not connect to the source. --connect push has the source connect, --connect relay this command; `connect = \"push\"` declares it.".to_owned()
        }
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
        let mut declared = asked(Doing::Refresh);
        declared.common.insert("transfer".to_owned(), serde_json::json!("orders"));
        let hint = transfer_failed(&context, &declared, "x changed while it was read").hint.unwrap();
        assert!(hint.contains("`allow_inconsistent = true`") && !hint.contains("--allow"), "{hint}");
        let hint = transfer_failed(&context, &asked(Doing::Move), "it already exists").hint.unwrap();
        assert!(
            !hint.contains("--refresh") && hint.contains("`comity volume delete west:default/b`"),
            "{hint}"
        );
        assert_eq!(Met::of("permission denied"), None);
    }

    #[test]
    fn a_right_that_is_missing_is_named_with_the_command_that_gives_it() {
        let words = ["comity", "volume", "copy", "east:default/a", "west:default/b"];
        let (context, east) = (context(&words), "east".parse().unwrap());
        let told = |doing, end, unseen| rights(&context, &asked(doing), (end, Some(&east)), unseen);
        let hint = told(Doing::Copy, End::Source, false);
        let given = "`comity auth group permission add east:GROUP storage_volume a can_manage_backups project=default type=custom pool=default`";
        assert!(hint.contains(given), "{hint}");
        let hint = told(Doing::Move, End::Target, false);
        assert!(hint.contains("east:GROUP project default can_create_storage_volumes`"), "{hint}");
        let hint = told(Doing::Move, End::Target, true);
        assert!(hint.contains("east:GROUP project default can_view`"), "{hint}");
        let hint = told(Doing::Refresh, End::Target, false);
        assert!(hint.contains("storage_volume b can_edit project=default"), "{hint}");
    }
}
