//! Staying with an operation until it has ended: its progress is shown, Ctrl-C cancels it, and a second Ctrl-C leaves it
//! running.

use std::time::Duration;

use schema::name::RemoteName;
use uuid::Uuid;

use crate::cli::progress::{Bar, Told};
use crate::cli::{CliError, Context, ExitCode};
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;

/// How often a running operation is asked how far it is.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked again while the agent does not answer.
const UNHEARD: u32 = 5;
/// LXD's code for "success"; codes from it on mean that an operation has ended.
const SUCCESS: u16 = 200;
/// LXD's code for "cancelled".
const CANCELLED: u16 = 401;

/// An operation and where it runs.
#[derive(Debug, Clone)]
pub struct Watched<'a> {
    pub client: &'a Client,
    /// As it was called on the command line.
    pub remote: Option<&'a RemoteName>,
    pub operation: OperationBody,
}

impl Watched<'_> {
    /// As commands name it.
    pub fn operand(&self) -> String {
        self.remote
            .map_or_else(|| self.operation.id.to_string(), |remote| format!("{remote}:{}", self.operation.id))
    }
}

/// How staying with it ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, well or not: the operation says so.
    Over(Box<OperationBody>),
    /// Cancelled, because that was asked for here.
    Cancelled,
}

/// Whether it ended well.
pub fn is_good(operation: &OperationBody) -> bool {
    operation.status_code == SUCCESS
}

/// What it failed with.
pub fn failure(operation: &OperationBody) -> String {
    match operation.err.as_str() {
        "" => format!("the operation ended as {}", operation.status),
        reason => reason.to_owned(),
    }
}

/// Waits until the first operation has ended. The others (the other end of a transfer) are cancelled along with it.
pub async fn watch(
    context: &Context,
    watched: Watched<'_>,
    others: &[(&Client, Uuid)],
    bar: &Bar,
) -> Result<Ended, CliError> {
    let mut interrupts = context.interrupts.take();
    let mut cancelling = false;
    let (client, mut operation) = (watched.client, watched.operation.clone());
    let mut unheard = 0;
    while operation.status_code < SUCCESS {
        let asked = tokio::select! {
            asked = client.wait_operation(operation.id, ASKED_EVERY) => asked,
            () = interrupts.next() => {
                if cancelling || client.cancel_operation(operation.id).await.is_err() {
                    bar.clear();
                    return Err(left(&watched));
                }
                cancelling = true;
                for (client, id) in others {
                    let _ = client.cancel_operation(*id).await;
                }
                bar.say("cancelling; Ctrl-C again leaves it running");
                continue;
            }
        };
        match asked {
            Ok(asked) => {
                (operation, unheard) = (asked, 0);
                if let (Some(told), false) = (Told::of(&operation.metadata), cancelling) {
                    bar.show(&told);
                }
            }
            // A link that comes and goes does not end what runs behind it.
            Err(
                ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Timeout { .. },
            ) if unheard < UNHEARD => {
                unheard += 1;
                tokio::time::sleep(ASKED_EVERY).await;
            }
            Err(error) => {
                bar.clear();
                let hint = format!(
                    "If the agent runs on, `comity operation show --watch {}` joins the operation again. If it ended, the same command goes on with what has arrived.",
                    watched.operand()
                );
                return Err(CliError::from(error).hint(hint));
            }
        }
    }
    let cancelled = cancelling && operation.status_code == CANCELLED;
    Ok(if cancelled { Ended::Cancelled } else { Ended::Over(Box::new(operation)) })
}

/// The same, of an operation that is alone: its failure is the command's.
pub async fn finish(
    context: &Context,
    client: &Client,
    remote: Option<&RemoteName>,
    operation: OperationBody,
) -> Result<OperationBody, CliError> {
    let bar = Bar::new(context);
    let ended = watch(context, Watched { client, remote, operation }, &[], &bar).await;
    bar.clear();
    match ended? {
        Ended::Over(operation) if is_good(&operation) => Ok(*operation),
        Ended::Over(operation) => Err(CliError::failed(failure(&operation)).code("operation-failed")),
        Ended::Cancelled => Err(cancelled()),
    }
}

pub fn cancelled() -> CliError {
    CliError {
        exit: ExitCode::Interrupted,
        ..CliError::failed("Remote operation canceled by user").code("cancelled")
    }
}

fn left(watched: &Watched<'_>) -> CliError {
    let message = "Interrupted again, leaving. The remote operation will keep running";
    let operand = watched.operand();
    let error = CliError::failed(message).code("left").hint(format!(
        "`comity operation show --watch {operand}` joins it again, `comity operation delete {operand}` cancels it."
    ));
    CliError { exit: ExitCode::Interrupted, ..error }
}
