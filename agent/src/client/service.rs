//! Calls about services.

use http::Method;
use schema::access::Source;
use schema::name::ServiceName;

use super::{Client, ClientError, NO_BODY};
use crate::wire::service::{ExplainAnswer, ExportedRow, ImportedRow, RulesAnswer, ServiceRow};

impl Client {
    /// The services of the agent's cluster.
    pub async fn services(&self) -> Result<Vec<ServiceRow>, ClientError> {
        self.request(Method::GET, "/control/v1/services", NO_BODY).await
    }

    /// What the agent's cluster offers to which peers.
    pub async fn exported_services(&self) -> Result<Vec<ExportedRow>, ClientError> {
        self.request(Method::GET, "/control/v1/services/exported", NO_BODY).await
    }

    /// What peers offer to the agent's cluster.
    pub async fn imported_services(&self) -> Result<Vec<ImportedRow>, ClientError> {
        self.request(Method::GET, "/control/v1/services/imported", NO_BODY).await
    }

    /// Whether `source` may connect to `destination`, and why.
    pub async fn explain(
        &self,
        source: &Source,
        destination: &ServiceName,
    ) -> Result<ExplainAnswer, ClientError> {
        // Names need no escaping in a query: they hold letters, digits, '-', '_' and '.' only.
        let peer = source.peer.as_ref().map(|peer| format!("&peer={peer}")).unwrap_or_default();
        let path = format!("/control/v1/explain?source={}{peer}&destination={destination}", source.service);
        self.request(Method::GET, &path, NO_BODY).await
    }

    /// Every rule that can decide who connects to `destination`.
    pub async fn explain_rules(&self, destination: &ServiceName) -> Result<RulesAnswer, ClientError> {
        let path = format!("/control/v1/explain?destination={destination}");
        self.request(Method::GET, &path, NO_BODY).await
    }
}
