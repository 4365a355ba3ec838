//! State and apply, typed.

use http::Method;
use schema::plan::Live;

use super::{Client, ClientError, NO_BODY};
use crate::wire::control::{ApplyRequest, ApplyResponse};
use crate::wire::status::Status;

impl Client {
    /// Who the agent is, and how it is doing.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.request(Method::GET, "/control/v1/status", NO_BODY).await
    }

    /// The cluster's live state.
    pub async fn state(&self) -> Result<Live, ClientError> {
        self.request(Method::GET, "/control/v1/state", NO_BODY).await
    }

    /// Makes a plan true: one commit.
    pub async fn apply(&self, request: &ApplyRequest) -> Result<ApplyResponse, ClientError> {
        self.request(Method::POST, "/control/v1/apply", Some(request)).await
    }
}
