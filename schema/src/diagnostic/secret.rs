//! What must never be shown: texts that look like a token or a key.
//!
//! A token pasted where a name belongs is the common accident. A message cannot know what a text is, so it judges
//! by the look: a PEM block, or a long unbroken run of base64 or hex. Runs are masked byte for byte, so that the
//! places in a masked text are the places in the original.

use std::borrow::Cow;
use std::ops::Range;

/// Runs longer than this are secrets if they mix letters and digits, as every real token does.
const LONGEST_MIXED: usize = 40;
/// Runs longer than this are secrets whatever they are made of: no name is that long.
const LONGEST_ANY: usize = crate::name::MAX_NAME;
/// Longest text that a message repeats.
const LONGEST_QUOTE: usize = 80;

/// What JSON in base64 begins with, and so each of our tokens.
const TOKEN_BEGIN: &str = "eyJ";
const SHORTEST_TOKEN: usize = 60;

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";

/// True if `text` holds what looks like a token or a key.
pub fn looks_secret(text: &str) -> bool {
    text.contains(PEM_BEGIN) || runs(text).next().is_some()
}

/// `text` with every byte of what looks secret replaced by `*`, same length.
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut out: Option<Vec<u8>> = None;
    for range in pem_blocks(text).chain(runs(text)) {
        let bytes = out.get_or_insert_with(|| text.as_bytes().to_vec());
        for byte in &mut bytes[range] {
            if !matches!(byte, b'\n' | b'\r') {
                *byte = b'*';
            }
        }
    }
    match out.map(String::from_utf8) {
        None => Cow::Borrowed(text),
        Some(Ok(masked)) => Cow::Owned(masked),
        // A PEM block's range begins and ends at ASCII, so what is left is whole characters: not reached, and
        // showing nothing would be right if it were.
        Some(Err(_)) => Cow::Borrowed(""),
    }
}

/// `text` in quotes as a message may show it: never a secret, never long.
pub fn quoted(text: &str) -> String {
    if looks_secret(text) {
        return "(hidden: it looks like a token or a key)".to_owned();
    }
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// `text` without the trust tokens in it, whatever is around them: for messages that repeat a path, which is no secret
/// however long it is, unless a token was pasted in its place.
pub fn without_tokens(text: &str) -> Cow<'_, str> {
    let token = |at: usize| {
        let length = text[at..].bytes().take_while(|byte| is_token_byte(*byte)).count();
        (length >= SHORTEST_TOKEN).then_some(length)
    };
    let mut shown = String::new();
    let mut rest = 0;
    while let Some((at, length)) =
        text[rest..].match_indices(TOKEN_BEGIN).find_map(|(at, _)| Some((rest + at, token(rest + at)?)))
    {
        shown.push_str(&text[rest..at]);
        shown.push_str("(hidden: it looks like a token)");
        rest = at + length;
    }
    if rest == 0 { Cow::Borrowed(text) } else { Cow::Owned(shown + &text[rest..]) }
}

/// Long unbroken runs of the letters that tokens are written in.
fn runs(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            if !is_token_byte(bytes[at]) {
                at += 1;
                continue;
            }
            let start = at;
            let (mut letters, mut digits) = (false, false);
            while at < bytes.len() && is_token_byte(bytes[at]) {
                letters |= bytes[at].is_ascii_alphabetic();
                digits |= bytes[at].is_ascii_digit();
                at += 1;
            }
            let length = at - start;
            if (length > LONGEST_MIXED && letters && digits) || (length > LONGEST_ANY && (letters || digits))
            {
                return Some(start..at);
            }
        }
        None
    })
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'_' | b'-')
}

/// What stands between the lines of a PEM block; to the end, where it is cut off.
fn pem_blocks(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.find(PEM_BEGIN)?;
        let body = start + PEM_BEGIN.len();
        let end = text[body..].find(PEM_END).map_or(text.len(), |offset| body + offset);
        at = end;
        Some(body..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_keys_are_secret_and_names_are_not() {
        let token = "eyJzZXJ2ZXJfbmFtZSI6ImVhc3QiLCJmaW5nZXJwcmludCI6IjEyMzQ1Njc4OTAifQ==";
        assert!(looks_secret(token));
        assert!(looks_secret(&"0123456789abcdef".repeat(4)));
        assert!(looks_secret("-----BEGIN PRIVATE KEY-----\nMIG2\n"));
        assert!(looks_secret(&"x".repeat(400)));
        assert!(!looks_secret("a-rather-long-service-name-for-the-orders-backend"));
        assert!(!looks_secret(&"# ".repeat(40)));
        assert!(!looks_secret(&"-".repeat(90)));
        assert!(!quoted(token).contains("eyJ"));
    }

    #[test]
    fn paths_are_shown_and_tokens_in_their_place_are_not() {
        let token = format!("eyJ{}", "aB3".repeat(40));
        let path = "/srv/0123456789abcdef0123456789abcdef0123456789abcdef/eyJ/é.hcl";
        assert_eq!(without_tokens(path), path);
        let shown = without_tokens(&format!("./{token} or é{token}!")).into_owned();
        assert_eq!(shown, "./(hidden: it looks like a token) or é(hidden: it looks like a token)!");
    }

    #[test]
    fn masks_in_place() {
        let text = "name = \"0123456789abcdef0123456789abcdef0123456789abcdef\" é";
        let hidden = masked(text);
        assert_eq!(hidden.len(), text.len());
        assert!(hidden.starts_with("name = \"***") && hidden.ends_with("*\" é"), "{hidden}");
        let pem = "a\n-----BEGIN KEY-----\nc2hvcnQ\n-----END KEY-----\nb";
        assert!(!masked(pem).contains("c2hvcnQ"));
        assert_eq!(masked(pem).lines().count(), pem.lines().count());
    }
}
