//! What a file of the CA says.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rcgen::PublicKeyData as _;
use serde::Serialize;

use super::{about, list_fault};
use crate::cli::link::aligned;
use crate::cli::{CliError, Format, Output, Table};
use crate::trust::authority::file::{self, Item, Kind};
use crate::trust::authority::folder::beside;
use crate::trust::authority::parsed;
use crate::trust::authority::revocation::Revocations;
use crate::trust::authority::shown::{Beside, ShownCertificate, ShownKey, ShownList, ShownRevoked};

/// A file, for programs.
#[derive(Debug, Serialize)]
struct Shown {
    file: PathBuf,
    /// The certificate of the CA that it was looked at with.
    ca: Option<PathBuf>,
    items: Vec<ShownItem>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum ShownItem {
    Certificate(Box<ShownCertificate>),
    PrivateKey(ShownKey),
    RevocationList(ShownList),
}

pub fn run(path: &Path, inputpath: Option<&Path>, now: Timestamp, output: &Output) -> Result<(), CliError> {
    // A list may be long; what it is is known only once it was read.
    let expected = match path.extension() {
        Some(extension) if extension == "crl" => Kind::RevocationList,
        Some(extension) if extension == "key" => Kind::Key,
        _ => Kind::Certificate,
    };
    let (items, mode) = file::read(path, expected)?;
    let (ca, with) = looked_at_with(path, inputpath)?;
    let mut shown = Shown { file: path.to_owned(), ca, items: Vec::new() };
    for item in &items {
        shown.items.push(match item {
            Item::Certificate(der) => {
                let mut one = ShownCertificate::of(der, &with, now).map_err(|error| about(path, &error))?;
                // Only the first of a chain has a key beside it.
                if shown.items.is_empty() {
                    one.problems.extend(mismatch(der, &path.with_extension("key")));
                }
                ShownItem::Certificate(Box::new(one))
            }
            Item::Key(key) => {
                let mut one = ShownKey::of(key, mode).map_err(|error| about(path, &error))?;
                let certificate = path.with_extension("crt");
                if let Ok(der) = file::certificate(&certificate) {
                    one.problems.extend(mismatch(&der, path));
                }
                ShownItem::PrivateKey(one)
            }
            Item::RevocationList(der) => ShownItem::RevocationList(
                ShownList::of(der, &with, now).map_err(|error| list_fault(path, &error))?,
            ),
        });
    }
    match output.format() {
        Format::Json => output.json(&shown),
        Format::Text => {
            for (number, item) in shown.items.iter().enumerate() {
                if number > 0 {
                    output.line("");
                }
                text(item, shown.ca.as_deref(), output);
            }
        }
    }
    Ok(())
}

/// The CA beside a file. One that was named must be there; one that happens to be there may be anything.
fn looked_at_with(path: &Path, inputpath: Option<&Path>) -> Result<(Option<PathBuf>, Beside), CliError> {
    let folder = beside(inputpath, path);
    let certificate = folder.certificate();
    let authority = match file::certificate(&certificate) {
        Ok(der) if parsed(&der).is_ok_and(|read| read.is_ca()) => Some(der),
        Err(error) if inputpath.is_some() => return Err(error.into()),
        Ok(_) | Err(_) => None,
    };
    let revocations = match file::revocation_list(&folder.revocations()) {
        Ok(Some(der)) => Revocations::read(&der).ok(),
        // It is said of the list itself, when that is shown.
        Ok(None) | Err(_) => None,
    };
    Ok((authority.as_ref().map(|_| certificate), Beside { authority, revocations }))
}

/// That the key beside a certificate is another's.
fn mismatch(certificate: &[u8], key: &Path) -> Option<String> {
    let (items, _) = file::read(key, Kind::Key).ok()?;
    let key_of = items.iter().find_map(|item| match item {
        Item::Key(key) => rcgen::KeyPair::try_from(key).ok(),
        _ => None,
    })?;
    let read = parsed(certificate).ok()?;
    let belongs = read.public_key().raw == key_of.subject_public_key_info();
    let name = fs::canonicalize(key).unwrap_or_else(|_| key.to_owned());
    let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    (!belongs).then(|| format!("the key in {name} and the certificate beside it do not belong together"))
}

fn text(item: &ShownItem, ca: Option<&Path>, output: &Output) {
    let signed = |signed: Option<bool>| match (signed, ca) {
        (Some(true), Some(ca)) => format!("yes ({})", ca.display()),
        (Some(false), Some(ca)) => format!("NO ({})", ca.display()),
        _ => "unknown: there is no CA beside it".to_owned(),
    };
    match item {
        ShownItem::Certificate(one) => output.text(aligned(vec![
            ("Kind", "certificate".to_owned()),
            ("Role", one.role.unwrap_or("none of a cluster's").to_owned()),
            ("Name", one.name.clone().unwrap_or_default()),
            ("Cluster", one.cluster.clone().unwrap_or_default()),
            ("Subject", one.subject.clone()),
            ("Names", one.names.join(", ")),
            ("Usages", one.usages.join(", ")),
            ("Key", one.algorithm.clone()),
            ("Valid from", one.not_before.to_string()),
            ("Valid until", one.not_after.to_string()),
            ("Fingerprint", one.fingerprint.clone()),
            ("Serial", one.serial.clone()),
            ("Issuer", one.issuer.clone()),
            ("Signed by the CA", signed(one.signed_by_ca)),
            ("Revoked", one.revoked.as_ref().map(|_| "YES".to_owned()).unwrap_or_default()),
            ("Note", one.problems.join("; ")),
        ])),
        ShownItem::PrivateKey(one) => output.text(aligned(vec![
            ("Kind", "private key".to_owned()),
            ("Key", one.algorithm.clone()),
            ("Public key", one.public_key.clone()),
            ("Mode", one.mode.clone()),
            ("Note", one.problems.join("; ")),
        ])),
        ShownItem::RevocationList(one) => {
            let time = |time: Option<Timestamp>| time.map(|time| time.to_string()).unwrap_or_default();
            output.text(aligned(vec![
                ("Kind", "revocation list".to_owned()),
                ("Number", one.number.clone()),
                ("Signed at", time(one.this_update)),
                ("Speaks until", time(one.next_update)),
                ("Issuer", one.issuer.clone()),
                ("Signed by the CA", signed(one.signed_by_ca)),
                ("Note", one.problems.join("; ")),
            ]));
            output.table(&entries(&one.revoked));
        }
    }
}

fn entries(revoked: &[ShownRevoked]) -> Table {
    let mut table = Table::new(["SERIAL", "REVOKED AT", "REASON"]);
    for one in revoked {
        table.row([one.serial.clone(), one.at.to_string(), one.reason.clone()]);
    }
    table
}
