//! Calls about transfers that an agent has received.

use http::Method;
use serde::de::IgnoredAny;

use super::{Client, ClientError, NO_BODY};
use crate::wire::transfer::{Transfers, Whose};

impl Client {
    pub async fn transfers(&self) -> Result<Transfers, ClientError> {
        self.request(Method::GET, "/control/v1/transfers", NO_BODY).await
    }

    /// Throws away what has arrived of an interrupted transfer.
    pub async fn discard_transfer(&self, target: String) -> Result<(), ClientError> {
        let whose = Whose { target };
        self.request::<IgnoredAny>(Method::DELETE, "/control/v1/transfers/left", Some(&whose)).await.map(drop)
    }
}
