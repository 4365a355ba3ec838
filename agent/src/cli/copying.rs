//! Copies between two servers and within one, over `/1.0` as LXD's own command drives them: the source is asked for an
//! operation with secrets, the target is told where to fetch (pull), or the other way about (push), or this command joins
//! the two (relay). What is copied, an instance or a volume, is its caller's business.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Method;
use schema::name::RemoteName;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::operation::watch::{Alone, Ended, Watched, cancelled, failure, is_good, watch};
use super::progress::Bar;
use super::{CliError, Context};
use crate::client::operation::Begun;
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::lxd::server::ServerInfo;
use crate::wire::token::Secret;
use advice::{End, all_failed, explained, kept, transfer_failed, unreachable};
use begin::begin;

mod advice;
pub mod begin;
pub mod origin;
mod relay;
pub mod report;

pub use report::{Ends, report};

/// How long the other end of a transfer that has ended may take to notice.
const AFTERMATH: Duration = Duration::from_secs(15);
/// One call waits no longer.
const CALL: Duration = Duration::from_secs(60);
/// Codes from here on mean that an operation has ended.
const ENDED: u16 = 200;

/// Who connects to whom (LXD: mode).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Way {
    /// The target connects to the source.
    #[default]
    Pull,
    /// The source connects to the target.
    Push,
    /// Both are connected to by this command, which forwards what they say.
    Relay,
}

/// One end of a copy.
#[derive(Debug)]
pub struct Side<'a> {
    pub client: &'a Client,
    /// As it was called on the command line.
    pub remote: Option<&'a RemoteName>,
    pub server: ServerInfo,
}

/// What is asked of both ends.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where the source is asked to send, and with what.
    pub source: String,
    pub offer: Map<String, Value>,
    /// Where the target is made, and as what: without its `source`.
    pub target: String,
    pub made: Map<String, Value>,
    /// What of the target's `source` is the same whatever the way.
    pub common: Map<String, Value>,
    /// What messages of failure begin with (LXD's words).
    pub failure: &'static str,
    pub doing: Doing,
    pub of: Noun,
    /// Both ends as commands call them.
    pub names: [String; 2],
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Copy,
    Refresh,
    /// A copy whose source is deleted at the end.
    Move,
}

/// What it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noun {
    Instance,
    Volume,
}

impl<'a> Side<'a> {
    pub async fn of(client: &'a Client, remote: Option<&'a RemoteName>) -> Result<Self, ClientError> {
        Ok(Self { client, remote, server: client.server().await? })
    }

    /// Whether both are one server: then it copies by itself.
    pub fn is(&self, other: &Side<'_>) -> bool {
        match (&self.server.environment, &other.server.environment) {
            (Some(one), Some(other)) => one.certificate_fingerprint == other.certificate_fingerprint,
            _ => false,
        }
    }

    fn certificate(&self) -> &str {
        self.server.environment.as_ref().map_or("", |environment| &environment.certificate)
    }

    /// Where the other end finds an operation: the address that this command knows first, then what the server says.
    fn urls(&self, operation: Uuid) -> Result<Vec<String>, CliError> {
        let told = self.server.environment.as_ref().map_or(&[][..], |environment| &environment.addresses);
        let mut addresses: Vec<&String> = self.client.addresses().iter().collect();
        addresses.extend(told.iter().filter(|address| !address.starts_with(':')));
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.as_str()));
        if addresses.is_empty() {
            return Err(CliError::failed("The source server isn't listening on the network")
                .code("not-listening")
                .hint("`comity server set core.https_address=ADDRESS:8443` there makes it listen; --mode push or --mode relay do without, if the other server listens."));
        }
        Ok(addresses.iter().map(|address| format!("https://{address}/1.0/operations/{operation}")).collect())
    }
}

/// Copies, and stays until both ends are done. What the target's operation tells is the answer.
pub async fn copy(
    context: &Context,
    from: &Side<'_>,
    to: &Side<'_>,
    asked: &Asked,
    way: Way,
) -> Result<OperationBody, CliError> {
    // Until all of it is over, an interrupt has an answer here: nothing that was begun is left without a word.
    let _answered = context.interrupts.take();
    let bar = Bar::new(context);
    bar.say("connecting");
    let copied = match way {
        Way::Pull => Box::pin(pull(context, from, to, asked, &bar)).await,
        Way::Push => Box::pin(push(context, from, to, asked, &bar)).await,
        Way::Relay => Box::pin(relayed(context, from, to, asked, &bar)).await,
    };
    bar.clear();
    copied
}

/// Has one server copy by itself: `asked.common` is its `source`.
pub async fn copy_within(context: &Context, to: &Side<'_>, asked: &Asked) -> Result<OperationBody, CliError> {
    let _answered = context.interrupts.take();
    let begun = create(context, to, asked, asked.common.clone()).await?;
    let bar = Bar::new(context);
    let watched = Watched { client: to.client, remote: to.remote, operation: begun, alone: Alone::GoesOn };
    let ended = Box::pin(watch(context, watched, &[], &bar)).await;
    bar.clear();
    over(context, asked, ended?, None)
}

async fn pull(
    context: &Context,
    from: &Side<'_>,
    to: &Side<'_>,
    asked: &Asked,
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let mut bound = asked.clone();
    let target = context.interrupts.take().unless(to.client.status()).await.ok_or_else(begin::early)?;
    if let Ok(target) = target {
        // One of ours shows its certificate: the secret is worth nothing to anybody else.
        bound.offer.insert("target_fingerprint".to_owned(), json!(target.fingerprint));
    }
    let offered = offer(context, from, &bound, &Value::Null).await?;
    let id = offered.id;
    let fetched = async {
        let mut tried: Vec<(String, CliError)> = Vec::new();
        for url in from.urls(id)? {
            let mut source = asked.common.clone();
            source.extend([
                ("type".to_owned(), json!("migration")),
                ("mode".to_owned(), json!("pull")),
                ("operation".to_owned(), json!(url)),
                ("certificate".to_owned(), json!(from.certificate())),
                ("secrets".to_owned(), json!(secrets(&offered))),
            ]);
            let begun = create(context, to, asked, source).await?;
            let copied = together(context, asked, (to, begun, Alone::GoesOn), (from, id), bar);
            match Box::pin(copied).await {
                Err(error) if unreachable(&error) => tried.push((url, error)),
                ended => return ended,
            }
        }
        Err(all_failed(context, asked, tried))
    };
    let fetched = fetched.await;
    if fetched.as_ref().is_err_and(|error| error.code != "left") {
        // Nobody comes for it any more.
        begin::forget(from.client, id).await;
    }
    fetched
}

async fn push(
    context: &Context,
    from: &Side<'_>,
    to: &Side<'_>,
    asked: &Asked,
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let waiting = await_push(context, to, asked).await?;
    let (id, secrets) = (waiting.id, secrets(&waiting));
    let sent = async {
        let mut tried: Vec<(String, CliError)> = Vec::new();
        for url in to.urls(id)? {
            let target = json!({ "operation": url, "secrets": secrets, "certificate": to.certificate() });
            let sending = offer(context, from, asked, &target).await?;
            let begun = to.client.operation(id).await?;
            let copied = together(context, asked, (to, begun, Alone::GoesOn), (from, sending.id), bar);
            match Box::pin(copied).await {
                Err(error) if unreachable(&error) => tried.push((url, error)),
                ended => return ended,
            }
        }
        Err(all_failed(context, asked, tried))
    };
    let sent = sent.await;
    if sent.as_ref().is_err_and(|error| error.code != "left") {
        begin::forget(to.client, id).await;
    }
    sent
}

async fn relayed(
    context: &Context,
    from: &Side<'_>,
    to: &Side<'_>,
    asked: &Asked,
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let offered = offer(context, from, asked, &Value::Null).await?;
    let waiting = match await_push(context, to, asked).await {
        Ok(waiting) => waiting,
        Err(error) => {
            begin::forget(from.client, offered.id).await;
            return Err(error);
        }
    };
    let ends = ((from.client, offered.id, secrets(&offered)), (to.client, waiting.id, secrets(&waiting)));
    let (id, source) = (waiting.id, offered.id);
    let mut joined = Box::pin(relay::join(ends.0, ends.1));
    let mut ended = Box::pin(together(context, asked, (to, waiting, Alone::Ends), (from, source), bar));
    let ended = tokio::select! {
        ended = &mut ended => ended,
        joined = &mut joined => match joined {
            // Both have hung up: they say how it ended.
            Ok(()) => ended.await,
            Err(error) => Err(transfer_failed(context, asked, &error)),
        },
    };
    if ended.is_err() {
        begin::forget(to.client, id).await;
        begin::forget(from.client, source).await;
    }
    ended
}

/// Says of a move that was left what it leaves besides.
pub fn source_stays(error: CliError) -> CliError {
    if error.code != "left" {
        return error;
    }
    let hint = error.hint.clone().unwrap_or_default();
    error.hint(format!("{hint} The source stays in any case: delete it once the target is there."))
}

/// Asks the source for an operation, to be connected to or, with a target, to connect.
async fn offer(
    context: &Context,
    from: &Side<'_>,
    asked: &Asked,
    target: &Value,
) -> Result<OperationBody, CliError> {
    let mut body = asked.offer.clone();
    body.insert("migration".to_owned(), json!(true));
    body.insert("target".to_owned(), target.clone());
    if asked.doing == Doing::Move {
        // Whoever may not delete it hears so before anything is copied; LXD passes over it.
        body.insert("move".to_owned(), json!(true));
    }
    let begun = from.client.begin_operation(Method::POST, &asked.source, Some(&body));
    begin(context, from, begun).await?.map_err(|error| explained(context, asked, (End::Source, from), error))
}

/// Asks the target for an operation that waits to be connected to.
async fn await_push(context: &Context, to: &Side<'_>, asked: &Asked) -> Result<OperationBody, CliError> {
    let mut source = asked.common.clone();
    source.insert("type".to_owned(), json!("migration"));
    source.insert("mode".to_owned(), json!("push"));
    create(context, to, asked, source).await
}

async fn create(
    context: &Context,
    to: &Side<'_>,
    asked: &Asked,
    source: Map<String, Value>,
) -> Result<OperationBody, CliError> {
    let mut body = asked.made.clone();
    body.insert("source".to_owned(), Value::Object(source));
    let begun = async {
        match to.client.begin(Method::POST, &asked.target, Some(&body)).await? {
            Begun::Running(operation) => Ok(*operation),
            Begun::Done(_) => Err(ClientError::Unexpected {
                agent: to.client.agent(),
                reason: "it made no operation of a copy".to_owned(),
            }),
        }
    };
    begin(context, to, begun).await?.map_err(|error| explained(context, asked, (End::Target, to), error))
}

/// Stays with the target's operation. One of the source that fails first ends it, in its own words.
async fn together(
    context: &Context,
    asked: &Asked,
    (to, begun, alone): (&Side<'_>, OperationBody, Alone),
    (from, other): (&Side<'_>, Uuid),
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let target = begun.id;
    let watched = Watched { client: to.client, remote: to.remote, operation: begun, alone };
    let others = [(from.client, other)];
    let watching = watch(context, watched, &others, bar);
    let source = failed(from.client, other);
    tokio::pin!(watching, source);
    let (ended, source) = tokio::select! {
        ended = &mut watching => (ended?, None),
        reason = &mut source => {
            // It told the target, whose own words are as good; one that was never connected to hears nothing.
            let heard = tokio::time::timeout(AFTERMATH, &mut watching).await;
            let Ok(ended) = heard else {
                begin::forget(to.client, target).await;
                return Err(transfer_failed(context, asked, &reason));
            };
            (ended?, Some(reason))
        }
    };
    let source = match (&ended, source) {
        (Ended::Over(operation), None) if !is_good(operation) => {
            tokio::time::timeout(Duration::from_secs(2), failed(from.client, other)).await.ok()
        }
        (Ended::Over(_), None) => {
            // Until it has ended the source is held: a move could not delete it.
            let waited = from.client.wait_operation(other, AFTERMATH);
            let _ = context.interrupts.take().unless(waited).await;
            None
        }
        (_, source) => source,
    };
    over(context, asked, ended, source.as_deref())
}

/// Comes back once an operation has failed, with its reason; never, of one that has not.
async fn failed(client: &Client, id: Uuid) -> String {
    loop {
        match client.wait_operation(id, CALL).await {
            Ok(operation) if operation.status_code < ENDED => {}
            Ok(operation) if !is_good(&operation) => return failure(&operation),
            _ => return std::future::pending().await,
        }
    }
}

fn over(
    context: &Context,
    asked: &Asked,
    ended: Ended,
    source: Option<&str>,
) -> Result<OperationBody, CliError> {
    match ended {
        Ended::Over(operation) if is_good(&operation) => Ok(*operation),
        Ended::Over(operation) => {
            let reason = failure(&operation);
            Err(match source {
                // Where one only repeats the other, the longer one is told.
                Some(source) if source.contains(&reason) => transfer_failed(context, asked, source),
                Some(source) if !reason.contains(source) && source != "cancelled" => {
                    transfer_failed(context, asked, &format!("{reason} (the source says: {source})"))
                }
                _ => transfer_failed(context, asked, &reason),
            })
        }
        // What was told of it last may be older than what arrived last.
        Ended::Cancelled => Err(cancelled().hint(kept(context, asked))),
    }
}

/// The secrets that an operation's first answer holds.
fn secrets(operation: &OperationBody) -> BTreeMap<String, Secret> {
    let fields = operation.metadata.as_object().into_iter().flatten();
    fields
        // LXD 6 tells there what is made, too.
        .filter(|(key, _)| *key != "entity_url")
        .filter_map(|(key, value)| Some((key.clone(), Secret::new(value.as_str()?.to_owned()))))
        .collect()
}
