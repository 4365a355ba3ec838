//! Joining the websockets of a source and a target: what one says is handed to the other as it is.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::client::Client;
use crate::wire::token::Secret;

/// An operation and the secrets of its websockets.
type End<'a> = (&'a Client, Uuid, BTreeMap<String, Secret>);

/// Connects to each websocket of both ends and forwards until both have hung up.
pub async fn join(source: End<'_>, target: End<'_>) -> Result<(), String> {
    let (from, offered, source_secrets) = source;
    let (to, waiting, target_secrets) = target;
    let pairs = source_secrets.iter().filter_map(|(name, one)| Some((name, one, target_secrets.get(name)?)));
    let joined: Vec<_> = pairs
        .map(|(name, one, other)| async move {
            let connected = tokio::try_join!(
                from.operation_websocket(offered, one),
                to.operation_websocket(waiting, other),
            );
            let (one, other) = connected.map_err(|error| format!("the {name} connection: {error}"))?;
            let ((to_source, from_source), (to_target, from_target)) = (one.split(), other.split());
            // A connection that breaks is told by the operations, which know more.
            tokio::join!(forward(from_source, to_target), forward(from_target, to_source));
            Ok(())
        })
        .collect();
    if joined.is_empty() {
        return Err("the two servers have no connection in common".to_owned());
    }
    try_join_all(joined).await.map(drop)
}

/// One way of it. What comes in waits until what came before has gone out, so that nothing piles up here.
async fn forward(
    mut from: impl Stream<Item = Result<Message, Error>> + Unpin,
    mut to: impl Sink<Message, Error = Error> + Unpin,
) {
    while let Some(Ok(message)) = from.next().await {
        let over = message.is_close();
        // Signs of life are each connection's own.
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            continue;
        }
        if to.send(message).await.is_err() || over {
            break;
        }
    }
    let _ = to.close().await;
}
