//! `/1.0/events`: a websocket that tells what happens to whoever may see it.
//!
//! Whether a caller may see an event is asked when the event is sent, by the policy of that moment. A caller that is
//! trusted no more loses the socket at once, and so does a reader that falls behind: what it missed is not to be had.

use std::collections::BTreeSet;

use axum::extract::{Query, Request, State};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use http::StatusCode;
use schema::diagnostic::secret::without_tokens;
use schema::name::ProjectName;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Semaphore, SemaphorePermit, broadcast};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::answer::LxdError;
use super::operation::{body, sees};
use crate::api::ApiState;
use crate::api::websocket::{self, Gone, Socket};
use crate::audit::Record;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::operation::Operation;
use crate::trust::Caller;
use crate::trust::entity::DEFAULT_PROJECT;
use crate::wire::lxd::event::{EventBody, Lifecycle, Logging};

mod lifecycle;
mod token;

/// Most sockets at a time.
static SOCKETS: Semaphore = Semaphore::const_new(1024);

pub fn router() -> Router<ApiState> {
    Router::new().route("/events", get(events))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Asked {
    #[serde(default, rename = "type")]
    kinds: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    all_projects: String,
}

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Operation,
    Lifecycle,
    Logging,
}

/// What one listener wants to hear.
#[derive(Debug)]
struct Wanted {
    kinds: BTreeSet<Kind>,
    /// `None`: all.
    project: Option<String>,
}

impl Wanted {
    fn read(asked: &Asked) -> Result<Self, LxdError> {
        let kinds = asked.kinds.split(',').map(str::trim).filter(|kind| !kind.is_empty());
        let mut wanted = kinds
            .map(|kind| match kind {
                "operation" => Ok(Kind::Operation),
                "lifecycle" => Ok(Kind::Lifecycle),
                "logging" => Ok(Kind::Logging),
                other => {
                    let shown: String = without_tokens(other).chars().take(40).collect();
                    Err(LxdError::bad_request(format!("{shown:?} is not a supported event type")))
                }
            })
            .collect::<Result<BTreeSet<_>, _>>()?;
        if wanted.is_empty() {
            wanted.extend([Kind::Operation, Kind::Lifecycle, Kind::Logging]);
        }
        let all = matches!(asked.all_projects.as_str(), "true" | "1");
        if all && !asked.project.is_empty() {
            return Err(LxdError::bad_request("Cannot specify a project when requesting all projects"));
        }
        let project = if asked.project.is_empty() { DEFAULT_PROJECT } else { &asked.project };
        Ok(Self { kinds: wanted, project: (!all).then(|| project.to_owned()) })
    }

    fn takes(&self, kind: Kind, project: Option<&str>) -> bool {
        let there = match (&self.project, project) {
            (Some(wanted), Some(project)) => wanted == project,
            // What belongs to no project is for listeners of all of them.
            _ => true,
        };
        there && self.kinds.contains(&kind)
    }
}

/// One listener.
struct Listener {
    state: ApiState,
    caller: Caller,
    wanted: Wanted,
    socket: Socket,
    _place: SemaphorePermit<'static>,
}

async fn events(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
    Query(asked): Query<Asked>,
    mut request: Request,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    let wanted = Wanted::read(&asked)?;
    let place = SOCKETS
        .try_acquire()
        .map_err(|_| LxdError::new(StatusCode::SERVICE_UNAVAILABLE, "Too many listen to events already"))?;
    let (response, pending) =
        websocket::take_over(&mut request).map_err(|error| LxdError::bad_request(error.to_string()))?;
    // From here on, for what the caller does once it has this answer.
    let feeds = Feeds {
        records: state.audit.subscribe(),
        operations: state.operations.subscribe(),
        lines: crate::task::lines::subscribe(),
    };
    let tasks = state.tasks.clone();
    tasks.spawn("events", async move {
        if let Some(socket) = pending.socket().await {
            Listener { state, caller, wanted, socket, _place: place }.serve(feeds).await;
        }
    });
    Ok(response)
}

struct Feeds {
    records: broadcast::Receiver<std::sync::Arc<Record>>,
    operations: broadcast::Receiver<Operation>,
    lines: broadcast::Receiver<std::sync::Arc<crate::task::lines::Line>>,
}

impl Listener {
    async fn serve(mut self, mut feeds: Feeds) {
        let mut changed = self.state.identities.changed();
        let ending = self.state.tasks.ending();
        let behind = "events were missed: the reader is too slow";
        let (code, reason) = loop {
            let told = tokio::select! {
                () = ending.cancelled() => break (CloseCode::Away, "the agent is ending"),
                () = self.socket.gone() => return,
                Ok(()) = changed.changed() => {
                    if !self.state.now(&self.caller).is_trusted() {
                        break (CloseCode::Policy, "the caller is trusted no more");
                    }
                    continue;
                }
                record = feeds.records.recv() => match record {
                    Ok(record) => self.record(&record).await,
                    Err(RecvError::Lagged(_)) => break (CloseCode::Policy, behind),
                    Err(RecvError::Closed) => return,
                },
                operation = feeds.operations.recv() => match operation {
                    Ok(operation) => self.operation(&operation).await,
                    Err(RecvError::Lagged(_)) => break (CloseCode::Policy, behind),
                    Err(RecvError::Closed) => return,
                },
                line = feeds.lines.recv() => match line {
                    Ok(line) => self.line(&line).await,
                    // Lines of the log are many and none of them matters.
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            if told.is_err() {
                return;
            }
        };
        self.socket.close(code, reason).await;
    }

    async fn operation(&mut self, operation: &Operation) -> Result<(), Gone> {
        let seen = sees(&self.state, &self.now(), operation);
        let project = super::operation::project_of(operation).to_string();
        if seen && self.wanted.takes(Kind::Operation, Some(&project)) {
            let metadata = serde_json::to_value(body(operation)).unwrap_or_default();
            self.tell("operation", operation.updated_at, metadata, Some(project)).await?;
        }
        Ok(())
    }

    async fn record(&mut self, record: &Record) -> Result<(), Gone> {
        let seen = super::operation::sees_tokens(&self.state, &self.now());
        if seen
            && self.wanted.takes(Kind::Operation, Some(DEFAULT_PROJECT))
            && let Some(operation) = token::operation(record)
        {
            let metadata = serde_json::to_value(operation).unwrap_or_default();
            self.tell("operation", record.time, metadata, Some(DEFAULT_PROJECT.to_owned())).await?;
        }
        for event in lifecycle::of(record) {
            if self.wanted.takes(Kind::Lifecycle, event.project.as_deref()) && self.sees(record, &event) {
                let project = event.project.clone();
                let metadata = serde_json::to_value(event).unwrap_or_default();
                self.tell("lifecycle", record.time, metadata, project).await?;
            }
        }
        Ok(())
    }

    async fn line(&mut self, line: &crate::task::lines::Line) -> Result<(), Gone> {
        let seen = self.state.permit(&self.now(), Entitlement::Admin, Entity::Server).is_ok();
        if !seen || !self.wanted.kinds.contains(&Kind::Logging) {
            return Ok(());
        }
        let logging = Logging {
            message: line.message.clone(),
            level: line.level.to_owned(),
            context: line.context.clone(),
        };
        self.tell("logging", line.time, serde_json::to_value(logging).unwrap_or_default(), None).await
    }

    /// Whether the caller may see an event: by its rights, or because it caused it.
    fn sees(&self, record: &Record, event: &Lifecycle) -> bool {
        let now = self.now();
        let caused = now.is_trusted()
            && record.who.id == now.username()
            && now.method() == Some(record.who.method.as_str());
        let entity = match event.project.as_deref().map(str::parse::<ProjectName>) {
            Some(Ok(project)) => Entity::Project(project),
            _ => Entity::Server,
        };
        caused || self.state.permit(&now, Entitlement::CanViewEvents, entity).is_ok()
    }

    fn now(&self) -> Caller {
        self.state.now(&self.caller)
    }

    async fn tell(
        &mut self,
        kind: &str,
        timestamp: jiff::Timestamp,
        metadata: serde_json::Value,
        project: Option<String>,
    ) -> Result<(), Gone> {
        let location = "none".to_owned();
        let event = EventBody { kind: kind.to_owned(), timestamp, metadata, location, project };
        self.socket.tell(serde_json::to_string(&event).unwrap_or_default()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kinds: &str, project: &str, all: &str) -> Result<Wanted, String> {
        let asked =
            Asked { kinds: kinds.to_owned(), project: project.to_owned(), all_projects: all.to_owned() };
        Wanted::read(&asked).map_err(|error| error.message)
    }

    #[test]
    fn kinds_and_projects_are_as_asked_for() {
        let refused = asked("operation,x", "", "").unwrap_err();
        assert_eq!(refused, "\"x\" is not a supported event type");
        let all = asked("", "", "true").unwrap();
        assert!(all.takes(Kind::Logging, None) && all.takes(Kind::Operation, Some("blah")));
        let one = asked("lifecycle", "blah", "").unwrap();
        assert!(one.takes(Kind::Lifecycle, Some("blah")) && one.takes(Kind::Lifecycle, None));
        assert!(!one.takes(Kind::Lifecycle, Some("default")) && !one.takes(Kind::Operation, Some("blah")));
        assert!(asked("", "", "").unwrap().takes(Kind::Lifecycle, Some("default")));
        assert!(asked("", "blah", "true").is_err());
    }
}
