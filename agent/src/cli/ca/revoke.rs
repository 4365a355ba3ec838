//! The CA's list of what counts no more.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{about, list_fault, revocations};
use crate::cli::{CliError, Format, Output};
use crate::trust::authority::Authority;
use crate::trust::authority::file::{self, Kind};
use crate::trust::authority::folder::{CaFolder, beside};
use crate::trust::authority::parsed;
use crate::trust::authority::revocation::{Added, Listed, Reason, Revocations};
use crate::trust::authority::serial::Serial;

pub fn revoke(
    given: &Path,
    reason: Reason,
    valid_for: SignedDuration,
    inputpath: Option<&Path>,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let is_file = given.exists();
    let folder =
        if is_file { beside(inputpath, given) } else { CaFolder::at(inputpath.unwrap_or(Path::new(""))) };
    let _locked = folder.lock_at_work()?;
    let authority = folder.open()?;
    let (serial, subject) = if is_file { of_file(given, &authority)? } else { (of_text(given)?, None) };
    let path = folder.revocations();
    if !is_file && !is_beside(file::folder(&path), &serial) {
        output.note(format!(
            "No certificate beside the CA has the serial number {serial}: is it right? A revocation is never taken back."
        ));
    }
    let mut list = revocations(&path, &authority, now)?;
    let added = list.add(serial.clone(), reason, now);
    let called =
        subject.clone().map_or_else(|| serial.to_string(), |subject| format!("{subject} ({serial})"));
    let document = |already: bool, list: Value| json!({ "serial": serial.to_string(), "subject": subject, "already": already, "list": list });
    match added {
        // The list is as it was: there is nothing to sign.
        Added::Already(since) => match output.format() {
            Format::Json => output.json(&document(true, as_it_is(&path, &list))),
            Format::Text if output.quiet() => output.line(&serial),
            Format::Text => {
                output.line(format!("{called} has been revoked since {since:.0}; nothing was changed."));
            }
        },
        Added::New => {
            let listed = write(&path, &mut list, &authority, now, valid_for)?;
            match output.format() {
                Format::Json => output.json(&document(false, told(&path, &list, &listed))),
                Format::Text if output.quiet() => output.line(&serial),
                Format::Text => {
                    output.line(format!("Revoked {called}."));
                    output.line(sentence(&path, &list, &listed));
                }
            }
        }
    }
    Ok(())
}

/// Signs the list as it is, under a new number and for a new time.
pub fn sign(
    valid_for: SignedDuration,
    inputpath: Option<&Path>,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let folder = CaFolder::at(inputpath.unwrap_or(Path::new("")));
    let _locked = folder.lock_at_work()?;
    let authority = folder.open()?;
    let path = folder.revocations();
    let mut list = revocations(&path, &authority, now)?;
    let listed = write(&path, &mut list, &authority, now, valid_for)?;
    match output.format() {
        Format::Json => output.json(&told(&path, &list, &listed)),
        Format::Text if output.quiet() => output.line(&listed.number),
        Format::Text => output.line(sentence(&path, &list, &listed)),
    }
    Ok(())
}

/// The serial number of a certificate of this CA, and whose it is.
fn of_file(path: &Path, authority: &Authority) -> Result<(Serial, Option<String>), CliError> {
    let der = file::certificate(path)?;
    let read = parsed(&der).map_err(|error| about(path, &error))?;
    authority.check_issued(&read).map_err(|error| about(path, &error))?;
    let subject = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok((Serial::of(read.raw_serial()), subject.map(str::to_owned)))
}

/// Whether a certificate in `folder` has this serial number. Those of other folders are not looked at.
fn is_beside(folder: &Path, serial: &Serial) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let is_certificate = |path: &Path| {
        let name = path.to_string_lossy();
        name.ends_with(".crt") || name.ends_with(".crt.old")
    };
    entries.flatten().map(|entry| entry.path()).filter(|path| is_certificate(path)).any(|path| {
        // What cannot be read is not the one.
        let Ok(der) = file::certificate(&path) else { return false };
        parsed(&der).is_ok_and(|read| Serial::of(read.raw_serial()) == *serial)
    })
}

fn of_text(given: &Path) -> Result<Serial, CliError> {
    let text = given.to_string_lossy();
    text.parse().map_err(|error| {
        CliError::failed(format!("{} is no file, and no serial number either: {error}", given.display()))
            .code("ca-file")
            .hint("`comity ca show FILE` tells the serial number of a certificate.")
    })
}

fn write(
    path: &Path,
    list: &mut Revocations,
    authority: &Authority,
    now: Timestamp,
    valid_for: SignedDuration,
) -> Result<Listed, CliError> {
    let listed = list.sign(authority, now, valid_for).map_err(|error| list_fault(path, &error))?;
    file::replace(Kind::RevocationList, path, 0o644, &listed.pem)?;
    Ok(listed)
}

fn sentence(path: &Path, list: &Revocations, listed: &Listed) -> String {
    let count = match list.entries().len() {
        0 => "no certificate".to_owned(),
        1 => "1 certificate".to_owned(),
        more => format!("{more} certificates"),
    };
    format!(
        "{} names {count}, has number {} and speaks until {:.0}. Copy it to the data folder of each agent.",
        path.display(),
        listed.number,
        listed.until
    )
}

fn told(path: &Path, list: &Revocations, listed: &Listed) -> Value {
    json!({
        "file": path, "number": listed.number, "this_update": listed.at, "next_update": listed.until,
        "revoked": list.entries().len(),
    })
}

fn as_it_is(path: &Path, list: &Revocations) -> Value {
    let signed = list.signed();
    json!({
        "file": path, "number": list.number(), "this_update": signed.map(|signed| signed.at),
        "next_update": signed.and_then(|signed| signed.until), "revoked": list.entries().len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::certificate::KeyPair;

    #[test]
    fn a_serial_number_is_looked_for_among_the_certificates_beside_the_ca() {
        let folder = tempfile::tempdir().unwrap();
        let pair = KeyPair::generate("alice", &[]).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(&pair.certificate).unwrap();
        let serial = Serial::of(read.raw_serial());
        std::fs::write(folder.path().join("damaged.crt"), "no certificate").unwrap();
        assert!(!is_beside(folder.path(), &serial));
        std::fs::write(folder.path().join("alice.crt.old"), &pair.pem).unwrap();
        assert!(is_beside(folder.path(), &serial));
        assert!(!is_beside(folder.path(), &"1234".parse().unwrap()));
    }
}
