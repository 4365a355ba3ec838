//! `comity agent`: runs the agent in this process.

use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::Builder;

use crate::daemon::logging::{self, LogFormat};
use crate::daemon::options::{self, Listen, Loopback, OptionsError};
use crate::daemon::{self, DaemonError, Ended, Given};
use crate::sockets::Sockets;

use super::{CliError, ExitCode, context};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the cluster is called; needed at the first start and fixed by it.
    #[arg(long)]
    name: Option<String>,
    /// The folder for keys, store and volumes [default: /var/lib/comity].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen: IP:PORT, :PORT for every address, or none [default: :8443].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// Where others reach this agent, HOST:PORT; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    advertise: Vec<String>,
    /// Serve Consul's API (/v1) on this loopback address in the clear, to who sends a bearer token [usual: 127.0.0.1:8500].
    #[arg(long, value_name = "ADDRESS")]
    consul_http: Option<Loopback>,
    /// The certificate that clients are shown, with its chain, PEM [default: server.crt in the data folder, or else the
    /// cluster's own].
    #[arg(long, value_name = "FILE", requires = "server_key")]
    server_cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "server_cert")]
    server_key: Option<PathBuf>,
    /// The certificate of the authority that `comity ca initialize` made: its users and nodes are known by theirs.
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<PathBuf>,
    /// Read settings from a file, HCL or TOML, keyed by these flags' names (data_dir); flags go first.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep this folder of declarations applied.
    #[arg(long, value_name = "DIR")]
    watch: Option<PathBuf>,
    /// Threads that do the work [default: one for each processor].
    #[arg(long, value_name = "N")]
    worker_threads: Option<usize>,
    /// How log lines look on standard error [default: text].
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How long work under way may take to finish at the end [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = options::duration)]
    drain_timeout: Option<Duration>,
}

pub fn run(args: Args) -> Result<ExitCode, CliError> {
    let file = args.config.as_deref().map(Given::read).transpose()?.unwrap_or_default();
    let flags = Given {
        name: args.name.map(|name| context::name("--name", &name)).transpose()?,
        data_dir: args.data_dir,
        listen: args.listen,
        advertise: Some(args.advertise).filter(|given| !given.is_empty()),
        consul_http: args.consul_http,
        server_cert: args.server_cert,
        server_key: args.server_key,
        cluster_ca: args.cluster_ca,
        watch: args.watch,
        worker_threads: args.worker_threads,
        log_format: args.log_format,
        drain_timeout: args.drain_timeout,
    };
    let options = flags.over(file).finish()?;
    logging::start(options.log_format);
    // Before there are other threads.
    let sockets = Sockets::from_environment();
    keep_freed_memory();
    let runtime = runtime(options.worker_threads)
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("the runtime could not be started: {error}")))?;
    // As a task like all others: what this thread drives itself would be woken across threads.
    let ended = runtime.block_on(async { tokio::spawn(daemon::run(options, sockets)).await });
    // What the drain could not end must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(200));
    // A panic goes on here; the task is never cancelled.
    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    Ok(match ended? {
        Ended::Drained => ExitCode::Done,
        Ended::Cut => ExitCode::Failed,
    })
}

/// Freed memory that lies at the end of a heap before any is given back to the kernel.
const KEPT: usize = 8 * 1024 * 1024;

/// glibc gives memory back as soon as 128 KiB of it are free at the end of a heap, which the buffers of a bulk copy
/// are again and again: a third of its processor time then goes into taking pages back and clearing them. It sets that
/// mark by itself to twice the largest block that it mapped apart and got back, so it is shown one, which costs
/// nothing as long as nobody writes to it. Other allocators take no notice.
fn keep_freed_memory() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(KEPT / 2)));
}

/// With one thread there is nobody to share work with: this very thread does everything, and wakes no other.
fn runtime(threads: usize) -> Builder {
    if threads == 1 {
        return Builder::new_current_thread();
    }
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name("comity");
    builder
}

impl From<OptionsError> for CliError {
    fn from(error: OptionsError) -> Self {
        CliError::failed(error).code("agent-config")
    }
}

impl From<DaemonError> for CliError {
    fn from(error: DaemonError) -> Self {
        let hint = error.hint();
        let failed = CliError::failed(error).code("agent-start");
        match hint {
            Some(hint) => failed.hint(hint),
            None => failed,
        }
    }
}
