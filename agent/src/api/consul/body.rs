//! Bodies of requests under `/v1`: JSON as Go's decoder takes it, whatever the `Content-Type` says (curl says that it
//! sends a form), up to a limit.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::answer::ConsulError;
use super::go_json;

/// Largest body of most requests.
pub const USUAL_BODY: usize = 64 * 1024;

/// Largest config entry: room for 50,000 sources of one.
pub const ENTRY_BODY: usize = schema::config::entry::MAX_ENTRY;

/// A body as it was sent, of at most `MAX` bytes. A handler whose messages begin with words of their own takes this
/// and calls `strict`.
#[derive(Debug)]
pub struct Sent<const MAX: usize = USUAL_BODY>(pub Bytes);

/// A body of JSON with the known keys and no others, in the words that most endpoints have for anything else:
/// `Request decode failed: json: unknown field "X"`.
#[derive(Debug)]
pub struct Strict<T, const MAX: usize = USUAL_BODY>(pub T);

impl<const MAX: usize> Sent<MAX> {
    /// Whether nothing was sent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The JSON of the body, as `go_json` reads it; `prefix` begins the message if it is none, or not of this type.
    pub fn strict<T: DeserializeOwned>(&self, prefix: &str) -> Result<T, ConsulError> {
        go_json::decode(&self.0).map_err(|error| ConsulError::bad_request(format!("{prefix}: {error}")))
    }
}

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for Sent<MAX> {
    type Rejection = ConsulError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ConsulError> {
        collect(request.into_body(), MAX).await.map(Sent)
    }
}

impl<S: Send + Sync, T: DeserializeOwned, const MAX: usize> FromRequest<S> for Strict<T, MAX> {
    type Rejection = ConsulError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ConsulError> {
        let sent = Sent::<MAX>::from_request(request, state).await?;
        sent.strict("Request decode failed").map(Strict)
    }
}

async fn collect(body: Body, max: usize) -> Result<Bytes, ConsulError> {
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ConsulError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Request body too large, max size: {max} bytes"),
        )),
        // The cause is the connection's and means nothing to the caller, if it is still there.
        Err(_) => Err(ConsulError::bad_request("Request body could not be read to its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_with_the_limit() {
        let sent = |length: usize| async move {
            let request = http::Request::put("/v1/x").body(Body::from(vec![b' '; length])).unwrap();
            Sent::<10>::from_request(request, &()).await
        };
        assert_eq!(sent(10).await.unwrap().0.len(), 10);
        let refused = sent(11).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused.message, "Request body too large, max size: 10 bytes");
    }
}
