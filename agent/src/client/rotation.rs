//! Calls about renewing the cluster certificate.

use http::Method;

use super::{Client, ClientError, NO_BODY};
use crate::wire::rotation::{RotateRequest, RotationReport};

const PATH: &str = "/control/v1/link-rotation";

impl Client {
    /// How the last rotation stands.
    pub async fn rotation(&self) -> Result<RotationReport, ClientError> {
        self.request(Method::GET, PATH, NO_BODY).await
    }

    /// Begins a rotation, or goes on with the one that is under way.
    pub async fn rotate(&self, request: &RotateRequest) -> Result<RotationReport, ClientError> {
        self.request(Method::POST, PATH, Some(request)).await
    }
}
