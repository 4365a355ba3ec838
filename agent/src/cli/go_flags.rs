//! Go's flags on Consul's nouns: there `-name` means `--name`, as scripts for the `consul` command have it.

use std::ffi::{OsStr, OsString};

use super::CliError;

/// Nouns that are Consul's too.
const NOUNS: [&str; 5] = ["config", "intention", "peering", "service", "services"];
/// Global flags whose value stands apart, before the noun.
const WITH_VALUE: [&str; 4] = ["--socket", "--remote", "--format", "-f"];

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

/// Formats by the names that they have here, and Consul's name for text.
const FORMATS: [&str; 6] = ["json", "pretty", "text", "yaml", "csv", "compact"];

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

/// Where the noun stands, if it is one of Consul's.
fn noun(arguments: &[OsString]) -> Option<usize> {
    let mut at = 1;
    loop {
        let argument = arguments.get(at)?.to_str()?;
        if !argument.starts_with('-') {
            return NOUNS.contains(&argument).then_some(at);
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
