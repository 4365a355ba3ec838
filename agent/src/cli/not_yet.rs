//! Words of LXD's command that do nothing here yet: each says so in one line, and what there is.

use clap::Subcommand;

use super::CliError;

/// Whatever was given behind such a word.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _arguments: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    // Instances that run.
    #[command(hide = true)]
    Launch(Args),
    #[command(hide = true)]
    Exec(Args),
    #[command(hide = true)]
    Shell(Args),
    #[command(hide = true)]
    Console(Args),
    #[command(hide = true, alias = "freeze")]
    Pause(Args),
    #[command(hide = true, alias = "unfreeze")]
    Resume(Args),
    #[command(hide = true)]
    Top(Args),
    #[command(hide = true)]
    Rebuild(Args),
    // What is in them.
    #[command(hide = true)]
    File(Args),
    #[command(hide = true, alias = "images")]
    Image(Args),
    #[command(hide = true)]
    Publish(Args),
    // What they are made with.
    #[command(hide = true)]
    Profile(Args),
    #[command(hide = true)]
    Network(Args),
    // What is called otherwise here.
    #[command(hide = true)]
    Storage(Args),
    #[command(hide = true)]
    Query(Args),
    #[command(hide = true)]
    Warning(Args),
    #[command(hide = true)]
    Alias(Args),
}

impl Command {
    pub fn refused(&self) -> CliError {
        let (word, why, hint) = match self {
            Self::Launch(_) => (
                "launch",
                RUNS,
                "`comity init NAME --empty` makes one; `comity copy` and `comity import` bring one that exists.",
            ),
            Self::Exec(_) => ("exec", RUNS, ELSEWHERE),
            Self::Shell(_) => ("shell", RUNS, ELSEWHERE),
            Self::Console(_) => ("console", RUNS, ELSEWHERE),
            Self::Pause(_) => ("pause", RUNS, ELSEWHERE),
            Self::Resume(_) => ("resume", RUNS, "`comity transfer resume NAME` goes on with a transfer."),
            Self::Top(_) => ("top", RUNS, "`comity list` shows what there is."),
            Self::Rebuild(_) => ("rebuild", IMAGES, "`comity restore` puts one back as a snapshot has it."),
            Self::File(_) => (
                "file",
                "the files of an instance are not reached one by one",
                "`comity export NAME` gives all of them as one tar file; `comity volume import` and `export` take a volume's as a folder.",
            ),
            Self::Image(_) => {
                ("image", IMAGES, "`comity copy` and `comity import` bring an instance that exists.")
            }
            Self::Publish(_) => ("publish", IMAGES, "`comity export NAME` makes a tar file of an instance."),
            Self::Profile(_) => (
                "profile",
                "there is one profile here, `default`, the same in every project",
                "-c and -d of `comity init` and `comity copy` set what an instance has of its own.",
            ),
            Self::Network(_) => (
                "network",
                "there are no networks here",
                "`comity service` and `comity intention` say what is reached, and by whom.",
            ),
            Self::Storage(_) => (
                "storage",
                "pools and volumes have nouns of their own",
                "`comity pool` does what `lxc storage` does, `comity volume` what `lxc storage volume` does.",
            ),
            Self::Query(_) => (
                "query",
                "requests are not sent as they are",
                "`curl --unix-socket DATA_DIR/unix.socket http://comity/1.0` asks this machine's agent.",
            ),
            Self::Warning(_) => ("warning", "no warnings are kept", "`comity status` says what is amiss."),
            Self::Alias(_) => ("alias", "there are no aliases of commands", "A shell has them."),
        };
        CliError::failed(format!("`comity {word}` is not there yet: {why}")).code("not-yet").hint(hint)
    }
}

const RUNS: &str = "instances are kept, copied and moved here, and do not run";
const IMAGES: &str = "there are no images here";
const ELSEWHERE: &str = "With a server that runs instances, LXD's own `lxc` does it; `comity copy` and `comity move` bring an instance there.";

#[cfg(test)]
mod tests {
    use crate::cli::{Command, parse};

    #[test]
    fn words_of_lxds_are_answered_whatever_follows_them() {
        for line in [
            "launch ubuntu:22.04 c1",
            "exec c1 -- ls -l",
            "shell c1",
            "console c1 --show-log",
            "file pull c1/etc/hosts .",
            "publish c1 --alias x",
            "image list images:",
            "storage volume list default",
            "profile show default",
            "launch --help",
        ] {
            let words = ["comity"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let parsed = parse(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            let Command::NotYet(word) = parsed.command else { panic!("{line} is something else") };
            let error = word.refused();
            let begins = format!("`comity {}` is not there yet: ", line.split(' ').next().unwrap());
            assert!(error.message.starts_with(&begins) && !error.message.contains('\n'), "{}", error.message);
            assert!(error.hint.is_some(), "{line}");
        }
    }
}
