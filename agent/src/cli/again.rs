//! A command line in a message, so that it can be given again as it is.

use std::ffi::OsString;

/// What a longer word holds may be a secret, and is not for a terminal's history.
const LONGEST: usize = 80;
/// Flags whose values may be anybody's business but a log's.
const UNSHOWN: [&str; 4] = ["-c", "--config", "-d", "--device"];

/// The command in backquotes, with flags that it does not have yet; or "the same command", where it is not to be shown.
pub fn shown(given: &[OsString], more: &[&str]) -> String {
    let words: Option<Vec<&str>> = given.iter().skip(1).map(|word| word.to_str()).collect();
    let is_shown = |word: &&str| {
        word.len() <= LONGEST
            && !word.contains(char::is_control)
            && !UNSHOWN.iter().any(|flag| word == flag || word.starts_with(&format!("{flag}=")))
            // `-cKEY=VALUE`
            && !word.starts_with("-c")
            && !word.starts_with("-d")
    };
    let Some(words) = words.filter(|words| words.iter().all(is_shown)) else {
        return match more {
            [] => "the same command".to_owned(),
            more => format!("the same command with {}", more.join(" ")),
        };
    };
    let more = more.iter().filter(|flag| !words.contains(flag)).copied();
    let words: Vec<String> =
        std::iter::once("comity").chain(words.iter().copied()).chain(more).map(quoted).collect();
    format!("`{}`", words.join(" "))
}

/// A word as a shell takes it for one.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str], more: &[&str]) -> String {
        shown(&words.iter().map(OsString::from).collect::<Vec<_>>(), more)
    }

    #[test]
    fn a_command_is_told_so_that_it_can_be_given_again() {
        let copy = ["/usr/bin/comity", "volume", "copy", "east:default/a b", "west:default/a"];
        assert_eq!(line(&copy, &[]), "`comity volume copy 'east:default/a b' west:default/a`");
        assert_eq!(
            line(&["comity", "copy", "a:c1", "b:", "--refresh"], &["--refresh"]),
            "`comity copy a:c1 b: --refresh`"
        );
        // What is set may be a secret.
        for secret in [&["-c", "user.key=x"][..], &["--config=a=b"], &["-cuser.key=x"], &["-d", "root,a=b"]] {
            assert_eq!(line(&[&copy[..], secret].concat(), &[]), "the same command");
        }
        assert_eq!(line(&[&"x".repeat(81)], &["--refresh"]), "`comity --refresh`");
        assert_eq!(line(&["comity", &"x".repeat(81)], &["--refresh"]), "the same command with --refresh");
    }
}
