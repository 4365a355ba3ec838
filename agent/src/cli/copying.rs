//! Copies between two servers and within one, over `/1.0` as LXD's own command drives them: the source is asked for an
//! operation with secrets, the target is told where to fetch (pull), or the other way about (push), or this command joins
//! the two (relay). What is copied, an instance or a volume, is its caller's business.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::Method;
use indicatif::BinaryBytes;
use schema::name::RemoteName;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::operation::watch::{Ended, Watched, cancelled, failure, is_good, watch};
use super::progress::{Bar, Told};
use super::{CliError, Context, ExitCode, Format};
use crate::client::operation::Begun;
use crate::client::{Client, ClientError};
use crate::wire::lxd::operation::OperationBody;
use crate::wire::lxd::server::ServerInfo;
use crate::wire::token::Secret;

mod relay;

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
                .hint("`comity server set core.https_address=ADDRESS:8443` there makes it listen; --mode push or relay do without, if the other server listens."));
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
    let begun = create(to, asked, asked.common.clone()).await.map_err(|error| explained(asked, error))?;
    let bar = Bar::new(context);
    let watched = Watched { client: to.client, remote: to.remote, operation: begun };
    let ended = Box::pin(watch(context, watched, &[], &bar)).await;
    bar.clear();
    over(asked, ended?, None)
}

async fn pull(
    context: &Context,
    from: &Side<'_>,
    to: &Side<'_>,
    asked: &Asked,
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let mut bound = asked.clone();
    if let Ok(target) = to.client.status().await {
        // One of ours shows its certificate: the secret is worth nothing to anybody else.
        bound.offer.insert("target_fingerprint".to_owned(), json!(target.fingerprint));
    }
    let offered = offer(from, &bound, &Value::Null).await?;
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
            let begun = create(to, asked, source).await.map_err(|error| explained(asked, error))?;
            match Box::pin(together(context, asked, (to, begun), (from, id), bar)).await {
                Err(error) if unreachable(&error) => tried.push((url, error)),
                ended => return ended,
            }
        }
        Err(all_failed(asked, tried))
    };
    let fetched = fetched.await;
    if fetched.as_ref().is_err_and(|error| error.code != "left") {
        // Nobody comes for it any more.
        let _ = from.client.cancel_operation(id).await;
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
    let waiting = await_push(to, asked).await?;
    let (id, secrets) = (waiting.id, secrets(&waiting));
    let sent = async {
        let mut tried: Vec<(String, CliError)> = Vec::new();
        for url in to.urls(id)? {
            let target = json!({ "operation": url, "secrets": secrets, "certificate": to.certificate() });
            let sending = offer(from, asked, &target).await?;
            let begun = to.client.operation(id).await?;
            match Box::pin(together(context, asked, (to, begun), (from, sending.id), bar)).await {
                Err(error) if unreachable(&error) => tried.push((url, error)),
                ended => return ended,
            }
        }
        Err(all_failed(asked, tried))
    };
    let sent = sent.await;
    if sent.as_ref().is_err_and(|error| error.code != "left") {
        let _ = to.client.cancel_operation(id).await;
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
    let offered = offer(from, asked, &Value::Null).await?;
    let waiting = match await_push(to, asked).await {
        Ok(waiting) => waiting,
        Err(error) => {
            let _ = from.client.cancel_operation(offered.id).await;
            return Err(error);
        }
    };
    let ends = ((from.client, offered.id, secrets(&offered)), (to.client, waiting.id, secrets(&waiting)));
    let (id, source) = (waiting.id, offered.id);
    let mut joined = Box::pin(relay::join(ends.0, ends.1));
    let mut ended = Box::pin(together(context, asked, (to, waiting), (from, source), bar));
    let ended = tokio::select! {
        ended = &mut ended => ended,
        joined = &mut joined => match joined {
            // Both have hung up: they say how it ended.
            Ok(()) => ended.await,
            Err(error) => Err(CliError::failed(format!("{}: {error}", asked.failure)).code("transfer-failed")),
        },
    };
    if ended.is_err() {
        let _ = to.client.cancel_operation(id).await;
        let _ = from.client.cancel_operation(source).await;
    }
    ended
}

/// Asks the source for an operation, to be connected to or, with a target, to connect.
async fn offer(from: &Side<'_>, asked: &Asked, target: &Value) -> Result<OperationBody, CliError> {
    let mut body = asked.offer.clone();
    body.insert("migration".to_owned(), json!(true));
    body.insert("target".to_owned(), target.clone());
    let begun = from.client.begin_operation(Method::POST, &asked.source, Some(&body)).await;
    begun.map_err(|error| explained(asked, error))
}

/// Asks the target for an operation that waits to be connected to.
async fn await_push(to: &Side<'_>, asked: &Asked) -> Result<OperationBody, CliError> {
    let mut source = asked.common.clone();
    source.insert("type".to_owned(), json!("migration"));
    source.insert("mode".to_owned(), json!("push"));
    create(to, asked, source).await.map_err(|error| explained(asked, error))
}

async fn create(
    to: &Side<'_>,
    asked: &Asked,
    source: Map<String, Value>,
) -> Result<OperationBody, ClientError> {
    let mut body = asked.made.clone();
    body.insert("source".to_owned(), Value::Object(source));
    match to.client.begin(Method::POST, &asked.target, Some(&body)).await? {
        Begun::Running(operation) => Ok(*operation),
        Begun::Done(_) => Err(ClientError::Unexpected {
            agent: to.client.agent(),
            reason: "it made no operation of a copy".to_owned(),
        }),
    }
}

/// Stays with the target's operation. One of the source that fails first ends it, in its own words.
async fn together(
    context: &Context,
    asked: &Asked,
    (to, begun): (&Side<'_>, OperationBody),
    (from, other): (&Side<'_>, Uuid),
    bar: &Bar,
) -> Result<OperationBody, CliError> {
    let target = begun.id;
    let watched = Watched { client: to.client, remote: to.remote, operation: begun };
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
                let _ = to.client.cancel_operation(target).await;
                return Err(transfer_failed(asked, &reason));
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
            let _ = from.client.wait_operation(other, AFTERMATH).await;
            None
        }
        (_, source) => source,
    };
    over(asked, ended, source.as_deref())
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

fn over(asked: &Asked, ended: Ended, source: Option<&str>) -> Result<OperationBody, CliError> {
    match ended {
        Ended::Over(operation) if is_good(&operation) => Ok(*operation),
        Ended::Over(operation) => {
            let reason = failure(&operation);
            Err(match source {
                // Where one only repeats the other, the longer one is told.
                Some(source) if source.contains(&reason) => transfer_failed(asked, source),
                Some(source) if !reason.contains(source) && source != "cancelled" => {
                    transfer_failed(asked, &format!("{reason} (the source says: {source})"))
                }
                _ => transfer_failed(asked, &reason),
            })
        }
        Ended::Cancelled => Err(cancelled().hint(KEPT)),
    }
}

const KEPT: &str = "The target is as it was. What has arrived is kept, and not sent again when the same command is run again; `comity transfer list` shows it, `comity transfer cancel` discards it.";

fn transfer_failed(asked: &Asked, reason: &str) -> CliError {
    let error = CliError::failed(format!("{}: {reason}", asked.failure)).code("transfer-failed");
    error.hint(advice(reason).unwrap_or(KEPT))
}

/// An answer that was a refusal, with what helps.
fn explained(asked: &Asked, error: ClientError) -> CliError {
    if !matches!(error, ClientError::Refused { .. }) {
        return error.into();
    }
    let advised = advice(&error.to_string());
    let told = CliError::from(error);
    let hint = told.hint.clone().or(advised.map(str::to_owned));
    CliError { message: format!("{}: {}", asked.failure, told.message), hint, ..told }
}

/// What to do about reasons that are met often.
fn advice(reason: &str) -> Option<&'static str> {
    let reason = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if says(&["already exists"]) {
        Some("--refresh brings one that exists to the source's state; otherwise give another name.")
    } else if says(&["changed while", "changes while"]) {
        Some(
            "Copy a snapshot, which does not change (`comity snapshot`, `comity volume snapshot`), or give --allow-inconsistent to take it as it is found.",
        )
    } else if says(&["busy"]) {
        Some("Try again when that has ended: `comity operation list` shows what runs.")
    } else if says(&UNREACHABLE) {
        Some(
            "The target could not connect to the source. --mode push has the source connect, --mode relay this command.",
        )
    } else if says(&["no space left", "disk is full", "not enough space", "too small"]) {
        Some("Make room on the target and run the same command again: what has arrived is kept.")
    } else {
        None
    }
}

/// Words by which servers say that they could not connect.
const UNREACHABLE: [&str; 8] = [
    "could not be reached",
    "connection refused",
    "no route to host",
    "network is unreachable",
    "i/o timeout",
    "dial tcp",
    "unable to connect",
    "failed to connect",
];

fn unreachable(error: &CliError) -> bool {
    let message = error.message.to_ascii_lowercase();
    error.code == "transfer-failed" && UNREACHABLE.iter().any(|word| message.contains(word))
}

/// Every address was tried, in LXD's form.
fn all_failed(asked: &Asked, mut tried: Vec<(String, CliError)>) -> CliError {
    let prefix = format!("{}: ", asked.failure);
    let bare = |message: &str| message.strip_prefix(&prefix).unwrap_or(message).to_owned();
    if tried.len() == 1
        && let Some((_, error)) = tried.pop()
    {
        return error;
    }
    let lines: Vec<String> = tried
        .iter()
        .map(|(url, error)| {
            let server = url.split("/1.0/").next().unwrap_or(url);
            format!(" - {server}: {}", bare(&error.message))
        })
        .collect();
    CliError::failed(format!("{}:\n{}", asked.failure, lines.join("\n")))
        .code("transfer-failed")
        .hint(advice("could not be reached").unwrap_or(KEPT))
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

/// Tells what was copied: a sentence for people, all of it for programs.
pub fn report(
    context: &Context,
    verb: &str,
    source: &str,
    target: &str,
    operation: &OperationBody,
) -> ExitCode {
    let told = Told::of(&operation.metadata).unwrap_or_default();
    for note in &told.unset {
        context.output.note(format!("Warning: {note}"));
    }
    match context.output.format() {
        Format::Json => context.output.json(&json!({
            "source": source, "target": target, "protocol": told.protocol, "reason": told.reason,
            "total": told.total, "received": told.sent, "reused": told.reused,
            "unset": told.unset,
        })),
        Format::Text if context.output.quiet() => {}
        Format::Text => context.output.line(sentence(verb, source, target, &told)),
    }
    ExitCode::Done
}

fn sentence(verb: &str, source: &str, target: &str, told: &Told) -> String {
    let mut sentence = format!("{verb} {source} to {target}");
    if let Some(sent) = told.sent {
        let total = BinaryBytes(told.total.unwrap_or(told.done));
        // Writing to a String does not fail.
        let _ = write!(sentence, ": {total}, of which {} were sent", BinaryBytes(sent));
        if told.reused > 0 {
            let _ = write!(sentence, " and {} were there already", BinaryBytes(told.reused));
        }
    }
    if let Some(protocol) = &told.protocol {
        let _ = write!(sentence, " ({protocol})");
    }
    sentence + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_copied_is_told_as_far_as_it_is_known() {
        let all = Told {
            total: Some(3 << 20),
            sent: Some(1 << 20),
            reused: 2 << 20,
            protocol: Some("comity".to_owned()),
            ..Told::default()
        };
        let line = sentence("Copied", "east:default/a", "west:default/a", &all);
        assert_eq!(
            line,
            "Copied east:default/a to west:default/a: 3.00 MiB, of which 1.00 MiB were sent and 2.00 MiB were there already (comity)."
        );
        assert_eq!(sentence("Copied", "a:c1", "b:c1", &Told::default()), "Copied a:c1 to b:c1.");
    }

    #[test]
    fn advice_is_given_for_what_is_met_often() {
        assert!(advice("Instance \"c1\" already exists").unwrap().contains("--refresh"));
        assert!(advice("the file x changed while it was read").unwrap().contains("--allow-inconsistent"));
        assert!(advice("dial tcp 10.0.0.1:8443: connect: no route to host").unwrap().contains("--mode push"));
        assert_eq!(advice("permission denied"), None);
    }
}
