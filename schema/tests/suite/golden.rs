//! Golden texts: each folder of `testdata/diagnostics` is a run of `validate`, beside what it prints.
//! `COMITY_BLESS=1 cargo test -p schema` writes them anew.

use std::fs;
use std::path::Path;

use schema::config::{NoInputs, dangling, load};
use schema::diagnostic::Diagnostic;
use schema::render::Colour;
use schema::render::diagnostic::{json, text};

use crate::support::{files_beneath, testdata};

#[test]
fn diagnostics_read_as_recorded() {
    let mut cases: Vec<_> =
        fs::read_dir(testdata().join("diagnostics")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    let changed: Vec<String> = cases.iter().filter_map(|case| check(case)).collect();
    assert!(changed.is_empty(), "{}", changed.join("\n"));
}

fn check(case: &Path) -> Option<String> {
    let loaded = load(&files_beneath(case), &NoInputs);
    let mut diagnostics: Vec<Diagnostic> = loaded.diagnostics.clone();
    diagnostics.extend(dangling(&loaded, |_| None));
    let shown = text(&diagnostics, &loaded.sources, Colour::Never);
    let value = format!("{:#}\n", json(&diagnostics, &loaded.sources));
    let texts = [("expected.txt", shown, true), ("expected.json", value, false)];
    let differs = texts.into_iter().filter_map(|(name, now, always)| {
        let path = case.join(name);
        // The text is recorded for every case, the JSON where a file of it is there.
        if !always && !path.exists() {
            return None;
        }
        if std::env::var_os("COMITY_BLESS").is_some() {
            fs::write(&path, &now).unwrap();
        }
        let recorded = fs::read_to_string(&path).unwrap_or_default();
        (recorded != now).then(|| format!("{} is now\n{now}", path.display()))
    });
    let differs: Vec<String> = differs.collect();
    (!differs.is_empty()).then(|| differs.join("\n"))
}
