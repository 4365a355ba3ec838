//! `POST /v1/peering/token`: a token for the peer. For a peering that is there already it is another one: the one before
//! it dies if nobody has redeemed it, and the link that stands goes on until the new one is.

use axum::extract::State;
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;

use super::super::answer::{Answer, ConsulError};
use super::super::asked::Asked;
use super::super::body::Sent;
use super::{DEFAULT, declare, given, undo};
use crate::api::ApiState;
use crate::api::control::link::permit_exchange;
use crate::authorize::Permit;
use crate::peering::{Listed, Minted, PeeringError};
use crate::wire::consul::peering::{GenerateToken, GeneratedToken, Remote};
use crate::wire::consul::peering_token::{PeeringToken, check_address};

/// Most addresses that a token is given.
const MOST_ADDRESSES: usize = 32;

pub async fn generate(
    State(state): State<ApiState>,
    asked: Asked,
    sent: Sent,
) -> Result<Answer, ConsulError> {
    if sent.is_empty() {
        return Err(ConsulError::bad_request("The peering arguments must be provided in the body"));
    }
    let body: GenerateToken = sent.strict("Body decoding failed")?;
    if body.peer_name.is_empty() {
        let message = "PeerName is required in the payload when generating a new peering token.";
        return Err(ConsulError::bad_request(message));
    }
    given::partition(&body.partition)?;
    let permit = permit_exchange(&state, &asked.caller)?;
    let known = match body.peer_name.parse::<LinkName>() {
        Ok(link) => state.peering.listed_one(&link).await?,
        Err(_) => None,
    };
    given::meta(&body.meta)?;
    if body.server_external_addresses.len() > MOST_ADDRESSES {
        let message = format!("a peering token has at most {MOST_ADDRESSES} server external addresses");
        return Err(ConsulError::refused(message));
    }
    for address in &body.server_external_addresses {
        check_address(address).map_err(|error| ConsulError::refused(error.to_string()))?;
    }
    let (link, minted) = if let Some(known) = known {
        let minted = again(&state, &permit, &known).await?;
        (known.report.name, minted)
    } else {
        let link = given::name(&body.peer_name)?;
        declare(&state, &permit, &link, &body.meta).await?;
        match state.peering.regenerate(&permit, &link).await {
            Ok(minted) => (link, minted),
            Err(error) => return Err(undo(&state, &permit, &link, error).await),
        }
    };
    let token = text(&state, &link, minted, body.server_external_addresses).await?;
    Answer::new(&asked, &GeneratedToken { peering_token: token })
}

/// A token for a peering that is there, whichever surface made it.
async fn again(state: &ApiState, permit: &Permit, known: &Listed) -> Result<Minted, ConsulError> {
    let link = &known.report.name;
    if known.deleted_at.is_some() {
        return Err(marked());
    }
    if known.report.kind != LinkType::Bidirectional {
        return Err(PeeringError::NotAPeering(link.clone()).into());
    }
    // Whoever holds the token is given what the link's groups may.
    state.permit_groups(permit.caller(), &known.report.auth_groups)?;
    Ok(state.peering.regenerate(permit, link).await?)
}

pub fn marked() -> ConsulError {
    ConsulError::refused("failed to write peering: cannot write to peering that is marked for deletion")
}

/// The token in Consul's form and ours at once.
async fn text(
    state: &ApiState,
    link: &LinkName,
    minted: Minted,
    external: Vec<String>,
) -> Result<String, ConsulError> {
    let gone = || PeeringError::Superseded(link.clone());
    let listed = state.peering.listed_one(link).await?.ok_or_else(gone)?;
    let mut ours = minted.token;
    let consuls = PeeringToken {
        ca: Some(vec![state.identity.current().pem.clone()]),
        server_addresses: Some(ours.addresses.clone()),
        manual_server_addresses: (!external.is_empty()).then(|| external.clone()),
        server_name: server_name(state),
        peer_id: listed.id.to_string(),
        establishment_secret: ours.secret.clone(),
        remote: Remote { partition: DEFAULT.to_owned(), datacenter: state.name.to_string() },
    };
    if !external.is_empty() {
        ours.addresses = external;
    }
    Ok(consuls.encode(&ours).expose().to_owned())
}

/// What Consul calls a cluster as a server of peerings.
pub fn server_name(state: &ApiState) -> String {
    format!("server.{}.peering.{}", state.name, state.mesh_ca.roots().domain)
}
