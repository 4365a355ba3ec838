//! `GET /control/v1/status`: who this agent is and how it is doing. It answers once everything runs.

use axum::extract::State;
use axum::routing::get;
use axum::{Extension, Json, Router};

use crate::api::ApiState;
use crate::api::problem::Problem;
use crate::authorize::{Denied, Entitlement, Entity};
use crate::store::Txn;
use crate::trust::Caller;
use crate::wire::acme::{ServerCertificate, Standing};
use crate::wire::status::{LinkSummary, LoginStatus, Status};
use jiff::Timestamp;

pub fn router() -> Router<ApiState> {
    Router::new().route("/status", get(show))
}

/// Everybody who is trusted may ask; of links and services one sees what one may.
async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Status>, Problem> {
    if !caller.is_trusted() {
        return Err(Denied::Untrusted("the status is for trusted callers".to_owned()).into());
    }
    let revision = state.store.commit(Txn::default()).await.map_err(|error| Problem::internal(&error))?;
    let links = state.peering.live_links().await.map_err(|error| Problem::internal(&error))?;
    let sees = |entity| state.permit(&caller, Entitlement::CanView, entity).is_ok();
    let links = links.into_iter().filter(|(name, _)| sees(Entity::ClusterLink(name.clone())));
    let mut mesh = state.mesh.status();
    mesh.upstreams.retain(|row| sees(Entity::Service(row.service.clone())));
    // A pair shows to who sees the end of it that is here.
    mesh.traffic.retain(|row| {
        let here = if row.destination_peer.is_some() { &row.source } else { &row.destination };
        match here {
            Some(service) => sees(Entity::Service(service.clone())),
            // Sums over services that have no row of their own are for who sees every service.
            None => state.permit(&caller, Entitlement::CanViewServices, Entity::Server).is_ok(),
        }
    });
    // What the folder's faults quote is for who may see what it declares, as is what an ACME server says.
    let watched = state.permit_reading(&caller).is_ok();
    let login = if watched { login(&state) } else { None };
    let now = Timestamp::now();
    let server_certificate = state.acme.certificate().map(|shown| ServerCertificate {
        standing: Standing::of(shown.valid_from, shown.valid_until, now),
        ..shown
    });
    let pki = if watched { state.identities.pki().status(now) } else { None };
    Ok(Json(Status {
        name: state.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fingerprint: state.identity.fingerprint().to_string(),
        server_fingerprint: state.server.own().map(|pair| pair.fingerprint.to_string()),
        server_certificate,
        addresses: state.addresses.current().to_vec(),
        epoch: state.store.epoch().to_owned(),
        revision: revision.0,
        links: links
            .map(|(name, link)| LinkSummary { name, state: link.state, reason: link.reason })
            .collect(),
        mesh,
        acme: if watched { state.acme.status() } else { None },
        watch: if watched { state.reconcile.as_ref().map(|folder| folder.status()) } else { None },
        pki,
        login,
    }))
}

/// The identity provider, where anything is set of one.
fn login(state: &ApiState) -> Option<LoginStatus> {
    let config = state.settings.current();
    let missing: Vec<String> = config.login_gaps()?.into_iter().map(str::to_owned).collect();
    let usable = missing.is_empty() && state.logins.is_usable();
    Some(LoginStatus { issuer: config.oidc_issuer().map(str::to_owned), usable, missing })
}
