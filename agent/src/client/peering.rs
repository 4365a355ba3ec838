//! Calls about peerings, under `/v1`.

use http::{Method, StatusCode};

use super::trust::segment;
use super::{Client, ClientError, NO_BODY};
use crate::wire::consul::peering::{Establish, GenerateToken, GeneratedToken, Peering};

impl Client {
    /// Has the agent issue a peering token.
    pub async fn generate_peering_token(&self, body: &GenerateToken) -> Result<GeneratedToken, ClientError> {
        self.consul(Method::POST, "/v1/peering/token", Some(body)).await
    }

    /// Has the agent redeem a peer's token.
    pub async fn establish_peering(&self, body: &Establish) -> Result<(), ClientError> {
        let _: serde_json::Value = self.consul(Method::POST, "/v1/peering/establish", Some(body)).await?;
        Ok(())
    }

    pub async fn peerings(&self) -> Result<Vec<Peering>, ClientError> {
        self.consul(Method::GET, "/v1/peerings", NO_BODY).await
    }

    /// One peering; `None` if there is none of that name.
    pub async fn peering(&self, name: &str) -> Result<Option<Peering>, ClientError> {
        match self.consul(Method::GET, &format!("/v1/peering/{}", segment(name)), NO_BODY).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            other => other.map(Some),
        }
    }

    pub async fn delete_peering(&self, name: &str) -> Result<(), ClientError> {
        let path = format!("/v1/peering/{}", segment(name));
        let _: serde_json::Value = self.consul(Method::DELETE, &path, NO_BODY).await?;
        Ok(())
    }
}
