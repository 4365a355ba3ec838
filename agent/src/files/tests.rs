use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use schema::config::Inputs;

use super::*;

fn codes(diagnostics: &[Diagnostic]) -> Vec<&'static str> {
    diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

fn names(files: &[SourceFile], root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    files.iter().map(|file| file.path.strip_prefix(&root).unwrap_or(&file.path).to_owned()).collect()
}

#[test]
fn reads_a_folder_whole_sorted_and_each_file_once() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    for folder in ["b", "a", ".hidden"] {
        fs::create_dir(root.join(folder)).unwrap();
    }
    for file in ["b/2.toml", "b/1.hcl", "a/x.json", "z.hcl", ".hidden/n.hcl", ".n.hcl", "notes.md"] {
        fs::write(root.join(file), file).unwrap();
    }
    let (files, faults) = read(&[root.join("b/1.hcl"), root.clone(), root.clone()]);
    assert_eq!(faults, []);
    assert_eq!(names(&files, &root), ["b/1.hcl", "a/x.json", "b/2.toml", "z.hcl"]);
    let folders: Vec<_> = files.iter().map(|file| Path::new(&*file.folder)).collect();
    assert_eq!(folders, [root.join("b"), root.join("a"), root.join("b"), root]);
    assert_eq!(&*files[0].bytes, b"b/1.hcl");
}

#[test]
fn every_fault_is_told_and_the_rest_is_read() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir(root.join("sub")).unwrap();
    symlink("..", root.join("sub/up")).unwrap();
    symlink("nowhere", root.join("dangling.hcl")).unwrap();
    symlink("self.hcl", root.join("self.hcl")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("fifo.hcl"), rustix::fs::Mode::RWXU).unwrap();
    fs::create_dir(root.join("folder.hcl")).unwrap();
    fs::write(root.join("large.hcl"), vec![b'{'; 10 << 20]).unwrap();
    fs::write(root.join("latin.hcl"), b"\xe9").unwrap();
    fs::write(root.join("notes.md"), "").unwrap();

    let (files, faults) = read(&[root.to_owned(), root.join("absent"), root.join("notes.md")]);
    assert_eq!(names(&files, root), ["latin.hcl"]);
    let mut found = codes(&faults);
    found.sort_unstable();
    assert_eq!(
        found,
        [
            "file-too-large",
            "no-such-path",
            "no-such-path",
            "not-a-declaration",
            "symlink-loop",
            "symlink-loop",
            "unreadable"
        ]
    );
    assert!(faults.iter().all(|fault| fault.summary.contains(&*root.to_string_lossy())), "{faults:?}");
    assert!(faults.iter().any(|fault| fault.detail.contains("at most 4 MiB")));
}

#[test]
fn a_token_given_as_a_path_is_not_repeated() {
    let token = format!("eyJ{}", "aB3".repeat(90));
    let (_, faults) = read(&[token.into(), format!("eyJ{}", "aB3".repeat(30)).into()]);
    assert_eq!(codes(&faults).len(), 2);
    assert!(faults.iter().all(|fault| !fault.summary.contains("aB3")), "{faults:?}");
}

#[test]
fn an_empty_folder_is_a_fault() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(codes(&read(&[root.path().to_owned()]).1), ["no-declarations"]);
}

#[test]
fn inputs_stay_beneath_the_declaring_folder() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    fs::create_dir_all(root.join("in/sub")).unwrap();
    fs::write(root.join("secret"), "outside").unwrap();
    fs::write(root.join("in/sub/text"), "inside").unwrap();
    fs::write(root.join("in/large"), vec![b'x'; 2 << 20]).unwrap();
    fs::write(root.join("in/latin"), b"\xe9").unwrap();
    symlink("sub/text", root.join("in/link")).unwrap();
    symlink("../secret", root.join("in/out")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, root.join("in/fifo"), rustix::fs::Mode::RWXU).unwrap();
    let declaring = root.join("in/a.hcl");
    let file = |wanted: &str| DiskInputs::of_command().file(&declaring.to_string_lossy(), wanted);
    assert_eq!(file("sub/text").as_deref(), Ok("inside"));
    assert_eq!(file("./link").as_deref(), Ok("inside"));
    let absolute = root.join("secret");
    let absolute = absolute.to_string_lossy();
    for (wanted, why) in [
        ("../secret", "without \"..\""),
        ("sub/../../secret", "without \"..\""),
        (&*absolute, "without \"..\""),
        ("", "without \"..\""),
        ("out", "leads out"),
        ("absent", "does not exist"),
        ("sub", "not a regular file"),
        ("fifo", "not a regular file"),
        ("large", "larger than 1 MiB"),
        ("latin", "not UTF-8"),
    ] {
        let error = file(wanted).unwrap_err();
        assert!(error.contains(why) && !error.contains("outside"), "{wanted}: {error}");
    }
    assert!(DiskInputs::of_command().env("PATH").is_ok());
    assert!(DiskInputs::of_command().env("COMITY_NO_SUCH").unwrap_err().contains("is not set"));
    assert!(DiskInputs::of_watched_folder().env("PATH").unwrap_err().contains("watched folder"));
}

async fn told(changes: &mut tokio::sync::mpsc::Receiver<Changed>) {
    tokio::time::timeout(Duration::from_secs(20), changes.recv())
        .await
        .expect("a change within 20 s")
        .unwrap();
}

#[tokio::test]
async fn changes_are_told_also_of_a_folder_that_comes_and_goes() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("watched");
    let mut changes = watch(&folder);
    fs::create_dir(&folder).unwrap();
    told(&mut changes).await;
    fs::write(folder.join("a.hcl"), "1").unwrap();
    told(&mut changes).await;
    // A folder made later is watched too.
    fs::create_dir(folder.join("sub")).unwrap();
    told(&mut changes).await;
    fs::write(folder.join("sub/b.hcl"), "1").unwrap();
    told(&mut changes).await;
    fs::rename(&folder, root.path().join("away")).unwrap();
    told(&mut changes).await;
    fs::rename(root.path().join("away"), &folder).unwrap();
    told(&mut changes).await;
    fs::write(folder.join("sub/b.hcl"), "2").unwrap();
    told(&mut changes).await;
}

#[tokio::test]
async fn reading_is_no_change() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.hcl"), "1").unwrap();
    let mut changes = watch(root.path());
    fs::write(root.path().join("a.hcl"), "2").unwrap();
    told(&mut changes).await;
    // Let a late event of the same write pass, then read: nothing may follow.
    while tokio::time::timeout(LULL, changes.recv()).await.is_ok() {}
    let (files, _) = read(&[root.path().to_owned()]);
    assert_eq!(&*files[0].bytes, b"2");
    assert!(tokio::time::timeout(LULL, changes.recv()).await.is_err());
}

/// Longer than a burst and a look at the folder together.
const LULL: Duration = Duration::from_millis(900);
