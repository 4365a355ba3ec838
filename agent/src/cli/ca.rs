//! `comity ca`: the cluster's certificate authority, with flocker-ca's commands, file names and texts.
//!
//! It works on files of this machine and asks no agent, since that CA's key is the administrator's alone. The roots of the
//! mesh CA, which vouches for services, are the agent's, and the last two commands ask it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use jiff::{SignedDuration, Timestamp};

use super::{CliError, Context, ExitCode};
use crate::trust::authority::file::FileError;
use crate::trust::authority::folder::FolderError;
use crate::trust::authority::revocation::{Reason, RevocationError, Revocations};
use crate::trust::authority::subject::NameError;
use crate::trust::authority::{Algorithm, Authority, AuthorityError};

mod create;
mod mesh_root;
mod renew;
mod revoke;
mod show;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority for a cluster: `cluster.crt`, and `cluster.key` to keep secret.
    Initialize {
        /// What the cluster is called.
        name: OsString,
        /// The folder to write to [default: this one].
        #[arg(long, short, value_name = "DIR")]
        outputpath: Option<PathBuf>,
        #[command(flatten)]
        kind: KeyKind,
    },
    /// Make a certificate for the agent that clients call: `control-HOST.crt` and `.key`.
    CreateControlCertificate {
        /// The DNS name, or the address, that clients dial.
        #[arg(value_name = "HOST")]
        hostname: OsString,
        #[command(flatten)]
        paths: Paths,
        #[command(flatten)]
        kind: KeyKind,
    },
    /// Make a certificate for a machine whose agent joins the cluster: `UUID.crt` and `.key`.
    CreateNodeCertificate {
        /// Make this many.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: Option<u32>,
        #[command(flatten)]
        paths: Paths,
        #[command(flatten)]
        kind: KeyKind,
    },
    /// Make a certificate for somebody who calls the API: `USER.crt` and `.key`.
    CreateApiCertificate {
        /// What the user is called.
        #[arg(value_name = "USER")]
        username: OsString,
        #[command(flatten)]
        paths: Paths,
        #[command(flatten)]
        kind: KeyKind,
    },
    /// Show what a certificate, a key or a revocation list says, and whether the CA beside it signed it.
    Show {
        /// In PEM or DER.
        file: PathBuf,
        #[command(flatten)]
        ca: Ca,
    },
    /// Have a certificate count no more: put it on the list `ca.crl`, which is made if there is none.
    Revoke {
        /// The certificate, or its serial number in hexadecimal.
        #[arg(value_name = "FILE|SERIAL")]
        certificate: PathBuf,
        /// Why, as RFC 5280 has it: keyCompromise, superseded, cessationOfOperation, ...
        #[arg(long, default_value = "unspecified", value_name = "REASON")]
        reason: Reason,
        #[command(flatten)]
        until: Until,
        #[command(flatten)]
        ca: Ca,
    },
    /// Sign the list `ca.crl` anew, so that it speaks for longer. An empty one is a list too.
    Crl {
        #[command(flatten)]
        until: Until,
        #[command(flatten)]
        ca: Ca,
    },
    /// Make a certificate anew with the same names and key: the CA's own, or one that it issued.
    Renew {
        /// The certificate. It stays beside the new one, as `FILE.old`.
        file: PathBuf,
        /// Make a new key too.
        #[arg(long)]
        new_key: bool,
        #[command(flatten)]
        ca: Ca,
        #[command(flatten)]
        kind: KeyKind,
    },
    /// Show the roots of the mesh CA, which vouch for the certificates of a cluster's services. The agent is asked.
    MeshRoots,
    /// Have another root of the mesh CA follow the one that signs. The agent is asked.
    RotateMeshRoot(mesh_root::Rotate),
}

/// Where the CA is, and where what it issues goes.
#[derive(Debug, clap::Args)]
struct Paths {
    /// The folder of the CA [default: this one].
    #[arg(long, short, value_name = "DIR")]
    inputpath: Option<PathBuf>,
    /// The folder to write to [default: this one].
    #[arg(long, short, value_name = "DIR")]
    outputpath: Option<PathBuf>,
}

/// The CA that a file is looked at with.
#[derive(Debug, clap::Args)]
struct Ca {
    /// The folder of the CA [default: the file's own, or this one].
    #[arg(long, short, value_name = "DIR")]
    inputpath: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct KeyKind {
    /// Make an RSA key of 4096 bits, as flocker-ca did, instead of ECDSA P-384.
    #[arg(long)]
    rsa: bool,
}

impl KeyKind {
    fn algorithm(&self) -> Algorithm {
        if self.rsa { Algorithm::Rsa } else { Algorithm::EcdsaP384 }
    }
}

#[derive(Debug, clap::Args)]
struct Until {
    /// How many days the list speaks: agents take no older one.
    #[arg(long, default_value_t = 30, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
}

impl Until {
    fn long(&self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.days)
    }
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let now = Timestamp::now();
    let output = &context.output;
    match args.command {
        Command::Initialize { name, outputpath, kind } => {
            create::initialize(&name, outputpath.as_deref(), kind.algorithm(), now, output)?;
        }
        Command::CreateControlCertificate { hostname, paths, kind } => {
            create::control(&hostname, &paths, kind.algorithm(), now, output)?;
        }
        Command::CreateNodeCertificate { count, paths, kind } => {
            create::nodes(count, &paths, kind.algorithm(), now, output)?;
        }
        Command::CreateApiCertificate { username, paths, kind } => {
            create::user(&username, &paths, kind.algorithm(), now, output)?;
        }
        Command::Show { file, ca } => show::run(&file, ca.inputpath.as_deref(), now, output)?,
        Command::Revoke { certificate, reason, until, ca } => {
            revoke::revoke(&certificate, reason, until.long(), ca.inputpath.as_deref(), now, output)?;
        }
        Command::Crl { until, ca } => revoke::sign(until.long(), ca.inputpath.as_deref(), now, output)?,
        Command::Renew { file, new_key, ca, kind } => {
            if kind.rsa && !new_key {
                return Err(CliError::usage("--rsa is for a new key: give --new-key with it"));
            }
            let new_key = new_key.then(|| kind.algorithm());
            renew::run(&file, new_key, ca.inputpath.as_deref(), now, output)?;
        }
        Command::MeshRoots => return mesh_root::list(context).await,
        Command::RotateMeshRoot(args) => return mesh_root::rotate(args, context).await,
    }
    Ok(ExitCode::Done)
}

/// A name given on the command line.
fn name<T: std::str::FromStr<Err = NameError>>(called: &str, given: &OsStr) -> Result<T, CliError> {
    let text = given.to_str().ok_or_else(|| {
        CliError::failed(format!("Invalid {called}: Could not be converted to UTF-8")).code("bad-name")
    })?;
    text.parse().map_err(|error| CliError::failed(format!("Invalid {called}: {error}")).code("bad-name"))
}

/// The list of a CA, whose file may not be there yet. Only this CA may have signed it.
fn revocations(path: &Path, authority: &Authority, now: Timestamp) -> Result<Revocations, CliError> {
    use crate::trust::authority::file;
    match file::revocation_list(path)? {
        Some(der) => Revocations::of(authority, &der, now).map_err(|error| list_fault(path, &error)),
        None => Ok(Revocations::default()),
    }
}

/// What is wrong with the list in a file, or with the CA beside it.
fn list_fault(path: &Path, error: &RevocationError) -> CliError {
    if let RevocationError::Authority(error) = error {
        return about(&path.with_file_name("cluster.crt"), error);
    }
    let failed = CliError::failed(format!("{}: {error}", path.display())).code("ca-list");
    match error {
        RevocationError::Foreign => failed.hint("Nothing was changed. It belongs to another CA, perhaps to one that was called the same: is it in the right folder?"),
        RevocationError::Unreadable => failed.hint("Nothing was changed. Take the list back from a backup, or from an agent that has it: a new one would forget what was revoked."),
        _ => failed,
    }
}

/// What is wrong with a certificate: the CA's own, or another that was given.
fn about(path: &Path, error: &AuthorityError) -> CliError {
    let path = path.display();
    let failed = CliError::failed(format!("{path}: {error}")).code("ca");
    match error {
        AuthorityError::Expired(_) => failed.hint(format!(
            "`comity ca renew {path}` makes it anew with the same key: what it issued stays good where the new one is put."
        )),
        AuthorityError::Version => {
            failed.hint(format!("`comity ca renew {path}` makes it anew with the same key, as version 3."))
        }
        AuthorityError::NotYet { .. } => failed.hint("Is this machine's clock right?"),
        AuthorityError::NoAuthority => {
            failed.hint("`comity ca initialize NAME` makes a CA, in a folder of its own; --inputpath names the folder of one.")
        }
        AuthorityError::Foreign => failed.hint("--inputpath names the folder of the CA that did."),
        AuthorityError::Own => failed.hint(
            "Where this CA is not to be trusted any more, take its certificate away: from agents and from clients.",
        ),
        _ => failed,
    }
}

impl From<FileError> for CliError {
    fn from(error: FileError) -> Self {
        let hint = error.hint();
        let failed = CliError::failed(error).code("ca-file");
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}

impl From<FolderError> for CliError {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::File(error) => error.into(),
            FolderError::Authority { path, source } => about(&path, &source),
            FolderError::OfAnAgent(_) => CliError::failed(error).code("ca-folder").hint(
                "Keep the CA on a machine of the administrator's, in a folder of its own, and copy to the agent only what it needs: its own certificate and key, and cluster.crt.",
            ),
            FolderError::Lock { .. } => CliError::failed(error).code("ca-folder"),
        }
    }
}
