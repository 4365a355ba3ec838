//! Certificates made anew: the same names, another serial number and time.
//!
//! The one before is kept as `FILE.old`, because it stays valid: whoever wants it to count no more must be able to
//! name it. It is never written over, so a second renewal asks for the first one's to be put away.

use std::path::Path;

use jiff::Timestamp;

use super::create::Made;
use super::{about, revocations};
use crate::cli::{CliError, Format, Output};
use crate::trust::authority::file::{self, FileError, Kind, old};
use crate::trust::authority::folder::beside;
use crate::trust::authority::serial::Serial;
use crate::trust::authority::{Algorithm, Authority, Issued, parsed};

pub fn run(
    path: &Path,
    new_key: Option<Algorithm>,
    inputpath: Option<&Path>,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let folder = beside(inputpath, path);
    let _locked = folder.lock_at_work()?;
    let authority = folder.open()?;
    let before = file::certificate(path)?;
    let key_path = path.with_extension("key");
    let is_own = &before == authority.certificate();
    let issued = if is_own {
        if new_key.is_some() {
            return Err(CliError::failed("a CA with a new key is another CA, of which nothing that this one issued is taken")
                .code("ca")
                .hint("`comity ca initialize NAME` makes one, in another folder; then make every certificate anew there."));
        }
        authority.renew_own(now).map_err(|error| about(path, &error))?
    } else {
        authority.check_usable(now).map_err(|error| about(&folder.certificate(), &error))?;
        let list = revocations(&folder.revocations(), &authority, now)?;
        let read = parsed(&before).map_err(|error| about(path, &error))?;
        authority.check_issued(&read).map_err(|error| about(path, &error))?;
        if let Some(revoked) = list.find(&Serial::of(read.raw_serial())) {
            return Err(CliError::failed(format!(
                "{} was revoked at {:.0} ({})",
                path.display(),
                revoked.at,
                revoked.reason
            ))
            .code("ca")
            .hint(
                "Whoever is to be trusted again gets a new certificate: `comity ca create-…-certificate`.",
            ));
        }
        authority.renew(&before, new_key, now).map_err(|error| about(path, &error))?
    };
    write(path, &key_path, &issued).map_err(|error| not_kept(error, is_own))?;
    let key_file = issued.key.is_some().then_some(key_path.as_path());
    let made = Made::of(path, key_file, &issued, &authority, now)?;
    match output.format() {
        Format::Json => output.json(&made),
        Format::Text if output.quiet() => {}
        Format::Text => tell(path, is_own, &authority, &made, output),
    }
    Ok(())
}

/// The key first: a certificate with the key before it is seen to be one (`ca show`), and `FILE.old` has the rest.
fn write(path: &Path, key_path: &Path, issued: &Issued) -> Result<(), FileError> {
    let pem = issued.pem();
    let certificate = (Kind::Certificate, path, pem.as_str());
    match &issued.key {
        Some(key) => file::supersede(&[(Kind::Key, key_path, key.expose()), certificate])?,
        None => file::supersede(&[certificate])?,
    }
    Ok(())
}

/// A CA does not revoke itself: its own certificate before is only put away.
fn not_kept(error: FileError, is_own: bool) -> CliError {
    let is_kept = matches!(error, FileError::Kept(_));
    let failed = CliError::from(error);
    if !(is_own && is_kept) {
        return failed;
    }
    failed.hint("Nothing was changed. Move it away once every agent and client has the one that came after it, or keep it under another name.")
}

fn tell(path: &Path, is_own: bool, authority: &Authority, made: &Made, output: &Output) {
    let (shown, old, until) = (path.display(), old(path), made.valid_until());
    if is_own {
        output.line(format!(
            "Renewed the CA {:?}: {shown} is valid until {until:.0}. Put it in the place of the old one on every agent and client; \
             what the CA issued stays good. The old one is {}.",
            authority.name(),
            old.display()
        ));
    } else {
        output.line(format!(
            "Renewed {shown}: it is valid until {until:.0}. The one before is {old}, and counts until its own end, or until \
             `comity ca revoke {old}`.",
            old = old.display()
        ));
        if made.is_role("control") {
            output.line("The agent reads its certificate at its next start: put this one where --server-cert is, and restart it.");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_of_the_last_renewal_is_revoked_or_put_away_by_what_it_is() {
        let hint = |path: &str, is_own| not_kept(FileError::Kept(path.into()), is_own).hint.unwrap();
        let own = hint("cluster.crt.old", true);
        assert!(own.contains("Move it away") && !own.contains("revoke"), "{own}");
        assert!(hint("alice.crt.old", false).contains("`comity ca revoke alice.crt.old`"));
        assert!(hint("out/alice.key.old", false).contains("`comity ca revoke out/alice.crt.old`"));
    }
}
