//! Who may write to a watched folder: whoever may, commands the agent. So it must be the agent's user, or root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use walkdir::WalkDir;

use crate::files;
use crate::wire::control::WatchFault;

/// What beneath `folder`, itself included, others than `uid` and root may write; the first such thing, as a fault.
pub fn check(folder: &Path, uid: u32) -> Result<(), WatchFault> {
    // What cannot be looked at cannot be read either, which is told when it is read.
    let walk = WalkDir::new(folder).follow_links(true).max_depth(files::MAX_DEPTH).into_iter();
    // As for reading: what begins with a dot is not looked into.
    let walk = walk.filter_entry(|entry| entry.depth() == 0 || !files::is_hidden(entry));
    for entry in walk.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let path = entry.path().display();
        if !(metadata.uid() == 0 || metadata.uid() == uid) {
            return Err(fault(format!(
                "{path} belongs to user id {}, who could command the agent by it. Give it to the agent's user: chown {uid} {path}",
                metadata.uid()
            )));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(fault(format!(
                "{path} may be written by others than its owner, who could command the agent by it. Take that away: chmod go-w {path}"
            )));
        }
    }
    Ok(())
}

fn fault(message: String) -> WatchFault {
    WatchFault { at: None, message }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_others_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a.hcl");
        fs::write(&inside, "").unwrap();
        // Whatever the umask.
        fs::set_permissions(&inside, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(check(folder.path(), uid), Ok(()));
        for (path, mode) in [(inside.as_path(), 0o664), (folder.path(), 0o777)] {
            let before = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            let fault = check(folder.path(), uid).unwrap_err();
            assert!(fault.message.contains("chmod go-w"), "{}", fault.message);
            fs::set_permissions(path, before).unwrap();
        }
        if uid != 0 {
            assert!(check(folder.path(), uid + 1).unwrap_err().message.contains("chown"));
        }
    }
}
