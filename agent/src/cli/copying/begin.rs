//! The beginning of a copy, until the operation is known that an interrupt would cancel.

use std::pin::Pin;
use std::time::Duration;

use uuid::Uuid;

use super::Side;
use crate::cli::{CliError, Context, ExitCode};
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;

/// How long it may take to say that something is not needed any more.
const FAREWELL: Duration = Duration::from_secs(5);

/// Has something begun. A call that is under way when an interrupt comes is not given up, since nobody would know what it
/// began: that is cancelled once it is known.
pub fn begin(
    context: &Context,
    at: &Side<'_>,
    call: impl Future<Output = Result<OperationBody, ClientError>>,
) -> impl Future<Output = Result<Result<OperationBody, ClientError>, CliError>> {
    // Calls are large, and so would be everything that begins one.
    let call = Box::pin(call);
    async move { begun(context, at, call).await }
}

async fn begun(
    context: &Context,
    at: &Side<'_>,
    mut call: Pin<Box<impl Future<Output = Result<OperationBody, ClientError>>>>,
) -> Result<Result<OperationBody, ClientError>, CliError> {
    let mut interrupts = context.interrupts.take();
    if let Some(begun) = interrupts.unless(&mut call).await {
        return Ok(begun);
    }
    if let Some(begun) = interrupts.unless(call).await {
        if let Ok(operation) = begun {
            forget(at.client, operation.id).await;
        }
        return Err(early());
    }
    let list = match at.remote {
        Some(remote) => format!("operation list {remote}:"),
        None => "operation list".to_owned(),
    };
    let message = format!("Interrupted again, leaving. {} has not said whether it began", at.client.agent());
    let hint = format!("`{} {list}` shows what runs there.", context.command());
    Err(interrupted(CliError::failed(message).code("interrupted").hint(hint)))
}

/// Cancels what nobody needs any more, as far as that can be said.
pub async fn forget(client: &Client, operation: Uuid) {
    let _ = tokio::time::timeout(FAREWELL, client.cancel_operation(operation)).await;
}

/// An interrupt came before anything was copied.
pub fn early() -> CliError {
    let message = "Interrupted before anything was copied: nothing was begun, or it is cancelled";
    interrupted(CliError::failed(message).code("interrupted"))
}

fn interrupted(error: CliError) -> CliError {
    CliError { exit: ExitCode::Interrupted, ..error }
}
