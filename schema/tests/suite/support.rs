//! What the tests of this crate share: the test data, as the agent would read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::config::SourceFile;

pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata")
}

/// A file of the given text.
pub fn source(path: &str, text: &str) -> SourceFile {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    SourceFile { path: Arc::from(path), folder: Arc::from(folder), bytes: text.as_bytes().into() }
}

/// The declaration files beneath `folder`, sorted, named relative to it.
pub fn files_beneath(folder: &Path) -> Vec<SourceFile> {
    let mut files = Vec::new();
    collect(folder, folder, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<SourceFile>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path
            .extension()
            .is_some_and(|extension| ["hcl", "toml", "json"].iter().any(|known| extension == *known))
            && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("expected"))
        {
            let bytes = fs::read(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            let folder = name.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned());
            files.push(SourceFile { path: name.into(), folder: folder.into(), bytes: bytes.into() });
        }
    }
}
