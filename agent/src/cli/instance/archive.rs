//! `comity export` and `comity import`, and the same of volumes: all of one as a tar file.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use schema::name::RemoteName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::InspectReader;

use super::super::operand::{InstanceOperand, split};
use super::super::operation::watch::finish;
use super::super::progress::Bar;
use super::super::{CliError, Context, ExitCode};
use super::found;
use super::init::made;
use crate::client::Client;
use crate::client::instance::path;
use crate::transfer::Stage;
use crate::wire::lxd::operation::OperationBody;

/// A backup that nobody fetched goes after this.
const UNFETCHED: SignedDuration = SignedDuration::from_hours(24);
/// A file name that means standard input or output.
const STANDARD: &str = "-";

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[arg(value_name = "[REMOTE:]NAME")]
    instance: String,
    /// The tar file, or `-` for standard output [default: NAME.tar.gz].
    file: Option<PathBuf>,
    /// Leave its snapshots out.
    #[arg(long, visible_alias = "container-only")]
    instance_only: bool,
    #[command(flatten)]
    how: HowArgs,
}

/// What every export takes.
#[derive(Debug, Clone, clap::Args)]
pub struct HowArgs {
    /// How the file is compressed: gzip, zstd or none [default: as its name says, or as the server has it].
    #[arg(long, value_name = "ALGORITHM")]
    compression: Option<String>,
    /// In the storage driver's own form, of which there is none here.
    #[arg(long)]
    optimized_storage: bool,
}

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The remote, with its colon; the tar file, or `-` for standard input; what the instance is called [default: as it was].
    #[arg(value_name = "[REMOTE:] FILE [NAME]", num_args = 1..=3, required = true)]
    operands: Vec<String>,
    /// The pool that it is kept in.
    #[arg(long, short, value_name = "POOL")]
    storage: Option<String>,
}

pub async fn export(args: ExportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (remote, called) = InstanceOperand::instance("NAME", &args.instance)?;
    let operand = InstanceOperand::parse("NAME", &args.instance)?;
    let client = context.client(remote.as_ref()).await?;
    found(context, &client, &operand, client.instance(called.as_str()).await).await?;
    let file = args.file.unwrap_or_else(|| PathBuf::from(format!("{called}.tar.gz")));
    let mut body = json!({ "instance_only": args.instance_only, "container_only": args.instance_only });
    args.how.put_into(&mut body, &file)?;
    fetch(context, (&client, remote.as_ref()), &path(called.as_str()), body, &file).await?;
    said(context, &format!("Exported {operand} to {}", file.display()), called.as_str(), &file);
    Ok(ExitCode::Done)
}

pub async fn import(args: ImportArgs, context: &Context) -> Result<ExitCode, CliError> {
    let mut operands = args.operands.iter().map(String::as_str);
    let first = operands.next().unwrap_or_default();
    // Both may come first; what ends with a colon is a remote.
    let (remote, file) = if first.ends_with(':') {
        let file = operands.next().ok_or_else(|| CliError::usage("Missing the file to import"))?;
        (split(first)?.0, file)
    } else {
        (None, first)
    };
    let name = operands.next().map(|text| InstanceOperand::instance("NAME", text)).transpose()?;
    let name = name.map(|(_, name)| name.to_string()).unwrap_or_default();
    let client = context.client(remote.as_ref()).await?;
    let mut headers = Vec::new();
    if !name.is_empty() {
        headers.push(("X-LXD-name", name.as_str()));
    }
    if let Some(pool) = &args.storage {
        headers.push(("X-LXD-pool", pool.as_str()));
    }
    let ended =
        bring(context, (&client, remote.as_ref()), "/1.0/instances", &headers, Path::new(file)).await?;
    let name = if name.is_empty() { made(&ended).unwrap_or_default() } else { name };
    context.output.done(format!("Imported {name}"), &name);
    Ok(ExitCode::Done)
}

impl HowArgs {
    /// What is asked of the server, by the flags and by the file's name.
    pub fn put_into(&self, body: &mut Value, file: &Path) -> Result<(), CliError> {
        if self.optimized_storage {
            return Err(CliError::failed(
                "--optimized-storage: pools of the driver dir have no form of their own",
            )
            .code("not-supported"));
        }
        body["optimized_storage"] = json!(false);
        body["compression_algorithm"] =
            json!(self.compression.as_deref().or_else(|| of_name(file)).unwrap_or_default());
        Ok(())
    }
}

/// How a file of this name is compressed.
fn of_name(file: &Path) -> Option<&'static str> {
    let name = file.file_name()?.to_str()?;
    [
        (".tar", "none"),
        (".tar.gz", "gzip"),
        (".tgz", "gzip"),
        (".tar.zst", "zstd"),
        (".tzst", "zstd"),
        (".tar.xz", "xz"),
        (".tar.bz2", "bzip2"),
    ]
    .into_iter()
    .find(|(end, _)| name.ends_with(end))
    .map(|(_, algorithm)| algorithm)
}

/// Whether a path means a tar file and not a folder.
pub fn is_file(path: &Path) -> bool {
    path == Path::new(STANDARD) || of_name(path).is_some() || path.is_file()
}

/// Says what was exported, unless the file itself went to standard output.
pub fn said(context: &Context, sentence: &str, name: &str, file: &Path) {
    if file != Path::new(STANDARD) {
        context.output.done(sentence, name);
    }
}

/// Has a backup made of what is at `of`, fetches it into `file` and has it deleted again.
pub async fn fetch(
    context: &Context,
    (client, remote): (&Client, Option<&RemoteName>),
    of: &str,
    mut body: Value,
    file: &Path,
) -> Result<(), CliError> {
    // A name of our own: what else is there is not ours to fetch or delete.
    let name = format!("export-{}", uuid::Uuid::new_v4().simple());
    let expires_at = Timestamp::now().checked_add(UNFETCHED).ok();
    body["name"] = json!(name);
    body["expires_at"] = json!(expires_at);
    let replaces = file != Path::new(STANDARD) && file.exists();
    let begun = client.begin_backup(of, &body).await?;
    let backup = format!("{of}/backups/{name}");
    let fetched = async {
        finish(context, client, remote, begun).await?;
        let (body, length) = client.backup_file(&backup).await?;
        let bar = Bar::new(context);
        let written = context.interrupts.take().unless(write(body, length, file, &bar)).await;
        bar.clear();
        written.unwrap_or_else(|| Err(interrupted(file)))
    };
    let fetched = fetched.await;
    if let Ok(crate::client::operation::Begun::Running(begun)) = client.delete_at(&backup).await {
        let _ = finish(context, client, remote, *begun).await;
    }
    if replaces && fetched.is_ok() {
        context.output.note(format!("{} was there already, and was replaced.", file.display()));
    }
    fetched
}

/// Nothing half is left behind.
fn interrupted(file: &Path) -> CliError {
    if file != Path::new(STANDARD) {
        let _ = std::fs::remove_file(partial(file));
    }
    let message = format!("Interrupted before all of {} was written: it is not there", file.display());
    CliError { exit: ExitCode::Interrupted, ..CliError::failed(message).code("interrupted") }
}

/// Beside its place until it is whole: nobody takes half of one for all of it.
fn partial(file: &Path) -> PathBuf {
    let mut partial = file.as_os_str().to_owned();
    partial.push(".partial");
    PathBuf::from(partial)
}

/// Standard input or output, as a file of its own.
fn standard_file(stream: impl AsFd) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(stream.as_fd().try_clone_to_owned()?.into()))
}

async fn write(
    mut body: crate::client::Body,
    length: Option<u64>,
    file: &Path,
    bar: &Bar,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::failed(format!("{} could not be written: {error}", file.display())).code("file")
    };
    let standard = file == Path::new(STANDARD);
    let partial = partial(file);
    let mut out: Box<dyn AsyncWrite + Unpin> = if standard {
        Box::new(standard_file(std::io::stdout()).map_err(failed)?)
    } else {
        Box::new(tokio::fs::File::create(&partial).await.map_err(failed)?)
    };
    let copied = async {
        let (mut done, mut count) = (0, bar.counter(Stage::Receiving, length));
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|error| {
                CliError::failed(format!("the connection failed before all of it was here: {error}"))
                    .code("broken-connection")
            })?;
            let Ok(data) = data.into_data() else { continue };
            out.write_all(&data).await.map_err(failed)?;
            done += data.len() as u64;
            count(data.len() as u64);
        }
        if length.is_some_and(|length| length != done) {
            return Err(
                CliError::failed("the connection ended before all of it was here").code("broken-connection")
            );
        }
        out.flush().await.map_err(failed)
    };
    let copied = copied.await;
    if standard {
        return copied;
    }
    match copied {
        Ok(()) => {
            let synced = tokio::fs::File::open(&partial).await.map_err(failed)?;
            synced.sync_all().await.map_err(failed)?;
            tokio::fs::rename(&partial, file).await.map_err(failed)
        }
        Err(error) => {
            let _ = tokio::fs::remove_file(&partial).await;
            Err(error)
        }
    }
}

/// Sends a tar file, of which the collection at `path` makes something new.
pub async fn bring(
    context: &Context,
    (client, remote): (&Client, Option<&RemoteName>),
    path: &str,
    headers: &[(&str, &str)],
    file: &Path,
) -> Result<OperationBody, CliError> {
    let bar = Bar::new(context);
    let (input, length): (Box<dyn AsyncRead + Send + Unpin>, _) = if file == Path::new(STANDARD) {
        let failed = |error| CliError::failed(format!("standard input could not be read: {error}"));
        (Box::new(standard_file(std::io::stdin()).map_err(failed)?), None)
    } else {
        let failed = |error: std::io::Error| {
            CliError::failed(format!("{} could not be read: {error}", file.display())).code("file")
        };
        let opened = tokio::fs::File::open(file).await.map_err(failed)?;
        let meta = opened.metadata().await.map_err(failed)?;
        if meta.is_dir() {
            return Err(CliError::failed(format!("{} is a folder and no tar file", file.display()))
                .code("file")
                .hint("`comity volume import` takes a folder, into a volume."));
        }
        let length = meta.len();
        (Box::new(opened), Some(length))
    };
    let mut count = bar.counter(Stage::Sending, length);
    let input = InspectReader::new(input, move |read| count(read.len() as u64));
    let begun = client.import_file(path, headers, input).await;
    bar.clear();
    let begun = begun.map_err(|error| {
        let error = CliError::from(error);
        let (command, file) = (context.command(), file.display());
        if error.message.contains("a storage volume and no instance") {
            error.hint(format!("`{command} volume import [REMOTE:]POOL/NAME {file}` makes a volume of it."))
        } else if error.message.contains("an instance and no volume") {
            error.hint(format!("`{command} import [REMOTE:] {file}` makes an instance of it."))
        } else {
            error
        }
    })?;
    finish(context, client, remote, begun).await
}
