//! Texts that a program printed once and must print again, with what differs from run to run made the same.

use std::path::{Path, PathBuf};

/// Replaces each `from` by its `to`, then everything that looks like a fingerprint, an id, a token or a date.
pub fn normal(text: &str, known: &[(&str, &str)]) -> String {
    let mut text = text.to_owned();
    for (from, to) in known.iter().filter(|(from, _)| !from.is_empty()) {
        text = text.replace(from, to);
    }
    let mut shown = String::with_capacity(text.len());
    for line in text.lines() {
        let words = line.split_inclusive([' ', '"', ',', '/']).map(|word| {
            let bare = word.trim_end_matches([' ', '"', ',', '/']);
            word.replacen(bare, volatile(bare).unwrap_or(bare), usize::from(!bare.is_empty()))
        });
        shown.extend(words);
        shown.push('\n');
    }
    shown
}

fn volatile(word: &str) -> Option<&'static str> {
    let hex = |word: &str| word.chars().all(|c| c.is_ascii_hexdigit());
    let is_uuid = word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    if is_uuid && hex(&word.replace('-', "")) {
        return Some("UUID");
    }
    if hex(word) && word.len() == 64 {
        return Some("FINGERPRINT");
    }
    if hex(word) && word.len() == 12 {
        return Some("SHORT-FPRINT");
    }
    if word.len() > 100 && word.starts_with("eyJ") {
        return Some("TOKEN");
    }
    None
}

/// Compares with `testdata/PATH`; with `COMITY_BLESS=1` writes it instead.
#[track_caller]
pub fn matches(path: &str, text: &str) {
    let path = testdata().join(path);
    if std::env::var_os("COMITY_BLESS").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{} says otherwise; COMITY_BLESS=1 rewrites it", path.display());
}

/// Where the expected texts are.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata")
}
