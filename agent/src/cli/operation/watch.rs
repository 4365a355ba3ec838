//! Staying with an operation until it has ended: its progress is shown, Ctrl-C cancels it, and a second Ctrl-C leaves
//! without waiting for what becomes of that. Who only looks on at what another command began leaves it as it is.

use std::time::Duration;

use schema::name::RemoteName;
use serde_json::Value;
use uuid::Uuid;

use crate::cli::interrupt::Taken;
use crate::cli::progress::{Bar, Told};
use crate::cli::{CliError, Context, ExitCode};
use crate::client::server::Events;
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;

/// How long one call waits for the end. The server tells by itself how far it is.
const WAITED_FOR: Duration = Duration::from_secs(20);
/// The same where it does not, and somebody watches.
const ASKED_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked again while the agent does not answer, and after how long.
const UNHEARD: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);
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
    pub alone: Alone,
}

/// What becomes of an operation when this command leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alone {
    GoesOn,
    /// Its data goes through this command.
    Ends,
    /// Another command began it: an interrupt ends the looking on, and nothing else.
    Another,
}

/// How staying with it ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, well or not: the operation says so.
    Over(Box<OperationBody>),
    /// Cancelled, because that was asked for here.
    Cancelled,
}

/// What was done about an interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interrupt {
    None,
    /// The server was asked to cancel it, and does.
    Cancelling,
    /// It was asked, and does not.
    Refused,
    /// It was asked, and did not answer.
    Unheard,
}

/// As commands name an operation.
pub fn operand(remote: Option<&RemoteName>, id: Uuid) -> String {
    remote.map_or_else(|| id.to_string(), |remote| format!("{remote}:{id}"))
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
    let mut interrupt = Interrupt::None;
    let (client, id, mut operation) = (watched.client, watched.operation.id, watched.operation.clone());
    // Who may not listen, and whoever it is that has no events, is asked.
    let mut news = None;
    if bar.is_watched() {
        news = Box::pin(client.events(&["operation".to_owned()])).await.ok();
    }
    let mut unheard = 0;
    while operation.status_code < SUCCESS {
        show(bar, interrupt, &operation.metadata);
        let limit = if bar.is_watched() && news.is_none() { ASKED_EVERY } else { WAITED_FOR };
        let mut asked = Box::pin(client.wait_operation(id, limit));
        let asked = loop {
            tokio::select! {
                asked = &mut asked => break asked,
                told = told_of(&mut news, id) => match told {
                    Some(metadata) => show(bar, interrupt, &metadata),
                    None => news = None,
                },
                () = interrupts.next() => {
                    if interrupt != Interrupt::None || watched.alone == Alone::Another {
                        bar.clear();
                        return Err(left(context, &watched, interrupt));
                    }
                    interrupt = cancel(context, &watched, &mut interrupts, bar).await;
                    if interrupt == Interrupt::Unheard {
                        bar.clear();
                        return Err(left(context, &watched, interrupt));
                    }
                    for (client, other) in others {
                        let _ = interrupts.unless(client.cancel_operation(*other)).await;
                    }
                }
            }
        };
        match asked {
            Ok(asked) => (operation, unheard) = (asked, 0),
            // A link that comes and goes does not end what runs behind it.
            Err(
                ClientError::Unreachable { .. } | ClientError::Broken { .. } | ClientError::Timeout { .. },
            ) if unheard < UNHEARD => {
                unheard += 1;
                if interrupts.unless(tokio::time::sleep(PAUSE)).await.is_none() {
                    bar.clear();
                    return Err(left(context, &watched, Interrupt::Unheard));
                }
            }
            Err(error) => {
                bar.clear();
                return Err(lost(context, &watched, error));
            }
        }
    }
    let cancelled = interrupt == Interrupt::Cancelling && operation.status_code == CANCELLED;
    Ok(if cancelled { Ended::Cancelled } else { Ended::Over(Box::new(operation)) })
}

/// What the server tells next of the operation; `None`, once it tells no more.
async fn told_of(news: &mut Option<Events>, id: Uuid) -> Option<Value> {
    let Some(events) = news else { return std::future::pending().await };
    loop {
        let mut event = events.next().await?;
        let is_it = event.pointer("/metadata/id").and_then(Value::as_str) == Some(&id.to_string());
        if is_it && let Some(metadata) = event.pointer_mut("/metadata/metadata") {
            return Some(metadata.take());
        }
    }
}

fn show(bar: &Bar, interrupt: Interrupt, metadata: &Value) {
    if interrupt != Interrupt::Cancelling
        && let Some(told) = Told::of(metadata)
    {
        bar.show(&told);
    }
}

/// Asks the server to cancel it, and says what comes of that.
async fn cancel(
    context: &Context,
    watched: &Watched<'_>,
    interrupts: &mut Taken<'_>,
    bar: &Bar,
) -> Interrupt {
    bar.say("cancelling");
    match interrupts.unless(watched.client.cancel_operation(watched.operation.id)).await {
        Some(Ok(())) => {
            bar.say("cancelling; Ctrl-C again leaves without waiting for that");
            Interrupt::Cancelling
        }
        Some(Err(refused @ ClientError::Refused { .. })) => {
            let goes_on = match watched.alone {
                Alone::GoesOn | Alone::Another => "Ctrl-C again leaves it running",
                Alone::Ends => "Ctrl-C again ends it, since its data goes through this command",
            };
            bar.note(context, &format!("It is not cancelled: {refused}. {goes_on}."));
            Interrupt::Refused
        }
        Some(Err(_)) | None => Interrupt::Unheard,
    }
}

/// The same, of an operation that is alone: its failure is the command's.
pub async fn finish(
    context: &Context,
    client: &Client,
    remote: Option<&RemoteName>,
    operation: OperationBody,
) -> Result<OperationBody, CliError> {
    let bar = Bar::new(context);
    let watched = Watched { client, remote, operation, alone: Alone::GoesOn };
    let ended = watch(context, watched, &[], &bar).await;
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

/// What is true of an operation that this command leaves before its end.
fn left(context: &Context, watched: &Watched<'_>, interrupt: Interrupt) -> CliError {
    let (comity, operand) = (context.command(), operand(watched.remote, watched.operation.id));
    let looks = format!("`{comity} operation show {operand}` tells what became of it.");
    let joins = format!(
        "`{comity} operation show --watch {operand}` joins it again, `{comity} operation delete {operand}` cancels it."
    );
    let (message, hint) = match (interrupt, watched.alone) {
        (_, Alone::Another) => ("Interrupted, looking on no longer. The operation goes on", joins),
        (Interrupt::Cancelling, _) => (
            "Interrupted again, leaving. The server was told to cancel the operation, which has not ended yet",
            looks,
        ),
        (Interrupt::Unheard, Alone::GoesOn) => (
            "Interrupted, leaving. The server has not said whether it cancels the operation, which may go on",
            looks,
        ),
        (Interrupt::None | Interrupt::Refused, Alone::GoesOn) => {
            ("Interrupted again, leaving. The remote operation will keep running", joins)
        }
        (_, Alone::Ends) => (
            "Interrupted, leaving. The operation fails without this command, through which its data went",
            looks,
        ),
    };
    let error = CliError::failed(message).code("left").hint(hint);
    CliError { exit: ExitCode::Interrupted, ..error }
}

/// The agent answers no more.
fn lost(context: &Context, watched: &Watched<'_>, error: ClientError) -> CliError {
    let (comity, operand) = (context.command(), operand(watched.remote, watched.operation.id));
    let again = context.again();
    CliError::from(error).hint(match watched.alone {
        Alone::Another => format!("`{comity} operation show --watch {operand}` joins it again, if it runs on."),
        Alone::GoesOn => format!(
            "If it runs on, `{comity} operation show --watch {operand}` joins the operation again. If it ended, {again} goes on with what has arrived, once it runs again."
        ),
        Alone::Ends => format!("Once it runs again, {again} goes on with what has arrived."),
    })
}
