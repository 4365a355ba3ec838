//! Go's flags on Consul's nouns: there `-name` means `--name`, as scripts for the `consul` command have it.

use std::ffi::{OsStr, OsString};

use super::CliError;

/// Nouns that are Consul's too.
const NOUNS: [&str; 5] = ["config", "intention", "peering", "service", "services"];
/// Global flags whose value stands apart, before the noun.
const WITH_VALUE: [&str; 5] = ["--socket", "--remote", "--project", "--format", "-f"];

/// The same arguments with every `-word` after one of Consul's nouns as `--word`. One letter after a dash stays a
/// short flag, a dash alone is standard input, and nothing behind `--` is a flag.
pub fn accepted(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(noun) = noun(&arguments) else { return arguments };
    for argument in &mut arguments[noun + 1..] {
        if argument == "--" {
            break;
        }
        if let Some(own) = renamed(argument) {
            *argument = own;
        } else if is_word(argument) {
            let mut long = OsString::from("-");
            long.push(&*argument);
            *argument = long;
        }
    }
    arguments
}

/// Flags of Consul's that say whom to ask and as whom.
const ELSEWHERE: [&str; 9] = [
    "--http-addr",
    "--token",
    "--token-file",
    "--ca-file",
    "--ca-path",
    "--client-cert",
    "--client-key",
    "--tls-server-name",
    "--datacenter",
];

/// The same arguments without the flags that every command of Consul's takes and that say nothing here: the namespace and
/// the partition `default`, and that an answer may be stale. Others of them are told what does the same here.
pub fn here(arguments: Vec<OsString>) -> Result<Vec<OsString>, CliError> {
    let Some(noun) = noun(&arguments) else { return Ok(arguments) };
    let mut kept = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.into_iter().enumerate();
    while let Some((at, argument)) = arguments.next() {
        let text = argument.to_string_lossy();
        if at > noun && text == "--" {
            kept.push(argument);
            break;
        }
        let (flag, value) = text.split_once('=').map_or((&*text, None), |(flag, value)| (flag, Some(value)));
        if at <= noun {
            kept.push(argument);
        } else if matches!(flag, "--namespace" | "--partition") {
            let apart = if value.is_none() { arguments.next().map(|(_, value)| value) } else { None };
            let value = value.map(OsString::from).or(apart).unwrap_or_default();
            if !["", "default"].iter().any(|known| value == *known) {
                let noun = flag.trim_start_matches('-');
                let message = format!("-{noun}: there is one {noun} here, \"default\"");
                return Err(CliError::failed(message)
                    .hint("Leave the flag out, or name that.")
                    .code("usage"));
            }
        } else if ELSEWHERE.contains(&flag) {
            let message = format!("-{} is not taken here", flag.trim_start_matches('-'));
            let hint = "--remote NAME (see `comity remote add`) or --socket PATH chooses the agent, and with it who asks.";
            return Err(CliError::failed(message).hint(hint).code("usage"));
        } else if !matches!(flag, "--stale") {
            kept.push(argument);
        }
    }
    kept.extend(arguments.map(|(_, argument)| argument));
    Ok(kept)
}

/// Formats by the names that they have here, and Consul's name for text.
const FORMATS: [&str; 7] = ["json", "pretty", "text", "table", "yaml", "csv", "compact"];

/// The same arguments with Consul's `--format pretty` as ours for text, behind one of its nouns. Another that is unknown
/// is told in its words, and ends as there.
pub fn formatted(mut arguments: Vec<OsString>) -> Result<Vec<OsString>, CliError> {
    let Some(noun) = noun(&arguments) else { return Ok(arguments) };
    let mut is_value = false;
    for argument in &mut arguments[noun + 1..] {
        let Some(text) = argument.to_str() else { continue };
        if text == "--" {
            break;
        }
        let value = if is_value { Some(text) } else { text.strip_prefix("--format=") };
        is_value = text == "--format" && !is_value;
        let Some(value) = value else { continue };
        if !FORMATS.contains(&value) {
            let message = "Invalid format, valid formats are {json|pretty}";
            return Err(CliError::failed(message)
                .hint("Besides, there are text, yaml, csv and compact.")
                .code("usage"));
        }
        if value == "pretty" {
            *argument = OsString::from(text.replace("pretty", "text"));
        }
    }
    Ok(arguments)
}

/// Verbs of LXD's whose `-f` is `--force`.
const FORCED: [&str; 4] = ["delete", "rm", "stop", "restart"];

/// The same arguments with `-f` as `--force` behind a verb where LXD has it so, unless a format follows: everywhere else it
/// says how results are printed.
pub fn forced(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let Some((at, verb)) = first_word(&arguments) else { return arguments };
    if !FORCED.contains(&verb) {
        return arguments;
    }
    for flag in at + 1..arguments.len() {
        if arguments[flag] == "--" {
            break;
        }
        let is_format =
            arguments.get(flag + 1).is_some_and(|next| FORMATS.iter().any(|format| next == format));
        if arguments[flag] == "-f" && !is_format {
            arguments[flag] = OsString::from("--force");
        }
    }
    arguments
}

/// Where the noun stands, if it is one of Consul's.
fn noun(arguments: &[OsString]) -> Option<usize> {
    first_word(arguments).filter(|(_, word)| NOUNS.contains(word)).map(|(at, _)| at)
}

/// The first argument that is no flag and no flag's value.
fn first_word(arguments: &[OsString]) -> Option<(usize, &str)> {
    let mut at = 1;
    loop {
        let argument = arguments.get(at)?.to_str()?;
        if !argument.starts_with('-') {
            return Some((at, argument));
        }
        at += if WITH_VALUE.contains(&argument) { 2 } else { 1 };
    }
}

/// A flag of Consul's whose name is taken: `--socket` is the agent's, wherever it stands.
fn renamed(argument: &OsStr) -> Option<OsString> {
    let rest = argument.to_str()?.strip_prefix("-socket")?;
    (rest.is_empty() || rest.starts_with('=')).then(|| OsString::from(format!("--socket-path{rest}")))
}

/// `-name`, `-name=web`: a dash and two letters or more.
fn is_word(argument: &OsStr) -> bool {
    matches!(argument.as_encoded_bytes(), [b'-', first, _, ..] if first.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lxds_f_is_force_where_it_is_so_there() {
        let forced = |line: &str| {
            let arguments = line.split_whitespace().map(OsString::from).collect();
            forced(arguments).join(OsStr::new(" ")).into_string().unwrap()
        };
        assert_eq!(forced("comity delete -f foo:c1"), "comity delete --force foo:c1");
        assert_eq!(forced("comity -f json stop c1 -f"), "comity -f json stop c1 --force");
        assert_eq!(forced("comity delete c1 -f json"), "comity delete c1 -f json");
        assert_eq!(forced("comity list -f csv"), "comity list -f csv");
        assert_eq!(forced("comity volume delete -f"), "comity volume delete -f");
    }

    #[test]
    fn consuls_formats_are_ours_and_others_are_told_in_its_words() {
        let formatted = |line: &str| {
            let arguments = line.split_whitespace().map(OsString::from).collect();
            formatted(arguments).map(|read| read.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(
            formatted("comity peering list --format pretty").unwrap(),
            "comity peering list --format text"
        );
        assert_eq!(
            formatted("comity peering list --format=pretty").unwrap(),
            "comity peering list --format=text"
        );
        assert_eq!(formatted("comity link list --format toml").unwrap(), "comity link list --format toml");
        assert!(formatted("comity peering list --format toml").is_err());
    }

    #[test]
    fn what_means_nothing_here_is_left_out_and_the_rest_is_told() {
        let here = |line: &str| {
            let arguments = line.split_whitespace().map(OsString::from).collect();
            here(arguments).map(|read| read.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(
            here("comity config list --namespace default --stale --partition=default --kind x").unwrap(),
            "comity config list --kind x"
        );
        for bad in ["--namespace other", "--partition=a", "--http-addr x", "--token=t", "--datacenter dc1"] {
            assert!(here(&format!("comity peering list {bad}")).is_err(), "{bad}");
        }
        for other in ["comity volume list --token t", "comity intention check -- --token b"] {
            assert_eq!(here(other).unwrap(), other);
        }
    }

    fn shown(line: &str) -> String {
        let arguments = line.split_whitespace().map(OsString::from).collect();
        accepted(arguments).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn a_word_behind_one_dash_is_a_flag_of_consuls_nouns_only() {
        for (given, read) in [
            ("comity config write -cas -modify-index 3 -", "comity config write --cas --modify-index 3 -"),
            ("comity -f json config read -kind=mesh -q", "comity -f json config read --kind=mesh -q"),
            ("comity --socket s services export -name web", "comity --socket s services export --name web"),
            ("comity intention check -- -a -bc", "comity intention check -- -a -bc"),
            (
                "comity service register -socket /s -name web",
                "comity service register --socket-path /s --name web",
            ),
            ("comity service list --socket /agent", "comity service list --socket /agent"),
            ("comity volume list -fjson", "comity volume list -fjson"),
            ("comity --format", "comity --format"),
        ] {
            assert_eq!(shown(given), read);
        }
    }
}
