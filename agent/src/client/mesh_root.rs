//! Calls about the roots that vouch for services' certificates.

use http::Method;

use super::{Client, ClientError, NO_BODY};
use crate::wire::mesh_root::{MeshRoots, RotateRoot};

const PATH: &str = "/control/v1/mesh-roots";

impl Client {
    pub async fn mesh_roots(&self) -> Result<MeshRoots, ClientError> {
        self.request(Method::GET, PATH, NO_BODY).await
    }

    /// Has another root follow the one that signs.
    pub async fn rotate_mesh_root(&self, request: &RotateRoot) -> Result<MeshRoots, ClientError> {
        self.request(Method::POST, PATH, Some(request)).await
    }
}
