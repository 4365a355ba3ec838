//! Taking a connection over from HTTP, for protocols that speak both ways.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;

use super::ApiState;
use super::problem::Problem;
use crate::authorize::Permit;
use crate::operation::Operation;

/// An operation's end is told at once; this is how often it is asked for again.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(3600);

/// The answer that agrees to speak `protocol`, and what becomes the connection once that answer is sent.
pub fn take_over(request: &mut Request, protocol: &'static str) -> Result<(Response, OnUpgrade), Problem> {
    let asked = request.headers().get(header::UPGRADE).is_some_and(|asked| asked == protocol);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (true, Some(upgrade)) = (asked, upgrade) else {
        let message = format!("this is spoken over HTTP/1.1 with `Upgrade: {protocol}`");
        return Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", message)
            .hint("Use the same version of comity on both sides."));
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    Ok((response, upgrade))
}

/// Ends when what `permit` says is true no more: a connection that was taken over is looked after by nobody else.
pub async fn revoked(state: &ApiState, permit: &Permit) {
    let mut changed = state.identities.changed();
    loop {
        let caller = state.now(permit.caller());
        if state.permit(&caller, permit.entitlement(), permit.entity().clone()).is_err() {
            return;
        }
        if changed.changed().await.is_err() {
            // The agent is ending, which others see to.
            std::future::pending::<()>().await;
        }
    }
}

/// Cancels what goes on in an operation once one of `permits`, which it was begun with, is true no more.
pub fn end_if_revoked(state: &ApiState, permits: &[&Permit], operation: &Operation) {
    let (state, id) = (state.clone(), operation.id);
    let permits: Vec<Permit> = permits.iter().map(|permit| (*permit).clone()).collect();
    state.tasks.clone().spawn("revocation", async move {
        let any_revoked =
            futures::future::select_all(permits.iter().map(|permit| Box::pin(revoked(&state, permit))));
        let ended = async {
            while let Some(operation) = state.operations.wait(id, LOOKED_AT_EVERY).await {
                if operation.status.ended() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = any_revoked => {
                tracing::warn!(operation = %id, "a transfer was cut off: the caller lost the right to it");
                // It may have ended this moment.
                let _ = state.operations.cancel(id);
            }
            () = ended => {}
        }
    });
}
