//! New certificates: the CA's own, the agent's, nodes' and users'.
//!
//! The CA's files outlast a crash of the machine once it was said that they are there. The others are not waited for:
//! what is lost is issued again, and a thousand of them are not to take as long as a thousand writes to the disk.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::{Paths, about, name};
use crate::cli::{CliError, Format, Output};
use crate::trust::authority::file::{Kind, NewFiles, Written};
use crate::trust::authority::folder::{CaFolder, refuse_agents};
use crate::trust::authority::shown::{Beside, ShownCertificate};
use crate::trust::authority::subject::{AuthorityName, Host, Role, UserName};
use crate::trust::authority::{Algorithm, Authority, AuthorityError, Issued};
use crate::wire::token::Secret;

/// A pair that was made, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    certificate_file: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_file: Option<PathBuf>,
    #[serde(flatten)]
    certificate: ShownCertificate,
}

impl Made {
    pub(super) fn of(
        certificate_file: &Path,
        key_file: Option<&Path>,
        issued: &Issued,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Self, CliError> {
        let beside = Beside { authority: Some(authority.certificate().clone()), revocations: None };
        let certificate = ShownCertificate::of(&issued.certificate, &beside, now)
            .map_err(|error| about(certificate_file, &error))?;
        let (certificate_file, key_file) = (certificate_file.to_owned(), key_file.map(Path::to_owned));
        Ok(Self { certificate_file, key_file, certificate })
    }

    pub(super) fn is_role(&self, role: &str) -> bool {
        self.certificate.role == Some(role)
    }

    pub(super) fn valid_until(&self) -> Timestamp {
        self.certificate.not_after
    }
}

/// The two files of a pair.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pair {
    fn of(folder: Option<&Path>, stem: &str) -> Self {
        let folder = folder.filter(|path| *path != Path::new(".")).unwrap_or(Path::new(""));
        Self { certificate: folder.join(format!("{stem}.crt")), key: folder.join(format!("{stem}.key")) }
    }

    /// Makes both files, or neither; what is to be in them is made only once they can be.
    fn write(
        &self,
        issue: impl FnOnce() -> Result<Issued, AuthorityError>,
    ) -> Result<(Issued, Written), CliError> {
        let mut files = NewFiles::default();
        files.make(Kind::Certificate, &self.certificate)?;
        files.make(Kind::Key, &self.key)?;
        let issued = issue().map_err(|error| about(&self.certificate, &error))?;
        let pem = issued.pem();
        let key = issued.key.as_ref().map_or("", Secret::expose);
        let written = files.fill(&[&pem, key])?;
        Ok((issued, written))
    }
}

pub fn initialize(
    given: &OsStr,
    folder: Option<&Path>,
    algorithm: Algorithm,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let called: AuthorityName = name("name", given)?;
    refuse_agents(folder.unwrap_or(Path::new("")))?;
    let pair = Pair::of(folder, "cluster");
    let mut made = None;
    let (issued, written) = pair.write(|| {
        let (authority, issued) = Authority::create(&called, algorithm, now)?;
        made = Some(authority);
        Ok(issued)
    })?;
    written.sync()?;
    // It was made above, or nothing was.
    let Some(authority) = made else { return Ok(()) };
    let made = Made::of(&pair.certificate, Some(&pair.key), &issued, &authority, now)?;
    tell(&made, &called.as_str().to_owned(), output, || {
        format!(
            "Created {} and {}. Please keep {} secret, as anyone who can access it will be able to control your cluster.",
            pair.key.display(),
            pair.certificate.display(),
            pair.key.display()
        )
    });
    Ok(())
}

pub fn control(
    given: &OsStr,
    paths: &Paths,
    algorithm: Algorithm,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let host: Host = name("hostname", given)?;
    let authority = open(paths, now)?;
    let pair = Pair::of(paths.outputpath.as_deref(), &format!("control-{host}"));
    let (issued, _) = pair.write(|| authority.issue_control(&host, algorithm, now))?;
    let made = Made::of(&pair.certificate, Some(&pair.key), &issued, &authority, now)?;
    tell(&made, &host, output, || {
        format!(
            "Created {} and {}. Copy these files to /etc/comity on your control service machine, with cluster.crt (and never cluster.key). \
             Make sure to rename these files to control-service.crt and control-service.key and to chmod 0600 them.\n\
             The agent there uses them with: --server-cert /etc/comity/control-service.crt --server-key /etc/comity/control-service.key --cluster-ca /etc/comity/cluster.crt",
            pair.certificate.display(),
            pair.key.display()
        )
    });
    Ok(())
}

pub fn user(
    given: &OsStr,
    paths: &Paths,
    algorithm: Algorithm,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let called: UserName = name("username", given)?;
    let authority = open(paths, now)?;
    let pair = Pair::of(paths.outputpath.as_deref(), called.as_str());
    let role = Role::User(called.clone());
    let (issued, _) = pair.write(|| authority.issue_client(&role, algorithm, now))?;
    let made = Made::of(&pair.certificate, Some(&pair.key), &issued, &authority, now)?;
    tell(&made, &called, output, || {
        format!(
            "Created {certificate} and {}. You can now give them to your API enduser so they can access the control service API, with cluster.crt (and never cluster.key).\n\
             What they may do there is said by groups, for which this makes them known there: comity auth identity create tls/{called} {certificate} --group GROUP",
            pair.key.display(),
            certificate = pair.certificate.display(),
        )
    });
    Ok(())
}

/// As many as were asked for; without a number one, which is told as the one that it is.
pub fn nodes(
    count: Option<u32>,
    paths: &Paths,
    algorithm: Algorithm,
    now: Timestamp,
    output: &Output,
) -> Result<(), CliError> {
    let authority = open(paths, now)?;
    let mut all = Vec::new();
    for number in 0..count.unwrap_or(1) {
        let node = Uuid::new_v4();
        let pair = Pair::of(paths.outputpath.as_deref(), &node.to_string());
        let (issued, _) =
            pair.write(|| authority.issue_client(&Role::Node(node), algorithm, now)).map_err(|error| {
                if number == 0 {
                    return error;
                }
                let message = format!("after {number} certificates, which stay: {}", error.message);
                CliError { message, ..error }
            })?;
        let made = Made::of(&pair.certificate, Some(&pair.key), &issued, &authority, now)?;
        if count.is_none() || output.format() == Format::Text {
            let text = || {
                format!(
                    "Created {}. Copy it over to /etc/comity/node.crt on your node machine and make sure to chmod 0600 it; \
                     the same for {}, as node.key.",
                    pair.certificate.display(),
                    pair.key.display()
                )
            };
            tell(&made, &node, output, text);
        }
        all.push(made);
    }
    if count.is_some() && output.format() == Format::Json {
        output.json(&all);
    }
    Ok(())
}

/// The CA, ready to issue to a folder that may have what it issues.
fn open(paths: &Paths, now: Timestamp) -> Result<Authority, CliError> {
    let folder = CaFolder::at(paths.inputpath.as_deref().unwrap_or(Path::new("")));
    let authority = folder.open()?;
    authority.check_usable(now).map_err(|error| about(&folder.certificate(), &error))?;
    refuse_agents(paths.outputpath.as_deref().unwrap_or(Path::new("")))?;
    Ok(authority)
}

fn tell(made: &Made, name: &dyn std::fmt::Display, output: &Output, text: impl FnOnce() -> String) {
    match output.format() {
        Format::Json => output.json(made),
        Format::Text if output.quiet() => output.line(name),
        Format::Text => output.line(schema::render::visible(&text())),
    }
}
