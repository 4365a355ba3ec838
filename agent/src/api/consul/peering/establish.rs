//! `POST /v1/peering/establish`: a peer's token is redeemed. Whichever surface made the token, it is taken; and where
//! nothing comes of it, nothing of it is left.

use axum::extract::State;
use http::StatusCode;
use schema::kind::cluster_link::LinkType;
use schema::name::LinkName;
use schema::record::{Record, RecordKey};

use super::super::answer::{Answer, ConsulError};
use super::super::asked::Asked;
use super::super::body::Sent;
use super::{config, declare, given, meta, token, undo};
use crate::api::ApiState;
use crate::api::control::link::permit_exchange;
use crate::apply::Edit;
use crate::authorize::Permit;
use crate::peering::{Again, Listed, PeeringError, Redemption, Remote};
use crate::store::keys;
use crate::store::value::{self, Declared};
use crate::wire::consul::peering::Establish;
use crate::wire::consul::peering_token::{self, PeeringToken, Read};
use crate::wire::printable;
use crate::wire::token::TrustToken;

/// Longest of what the issuer says of itself.
const LONGEST_NAME: usize = 253;

pub async fn establish(
    State(state): State<ApiState>,
    asked: Asked,
    sent: Sent,
) -> Result<Answer, ConsulError> {
    if sent.is_empty() {
        return Err(ConsulError::bad_request("The peering arguments must be provided in the body"));
    }
    let body: Establish = sent.strict("Body decoding failed")?;
    let missing = |key: &str| {
        let message = format!("{key} is required in the payload when establishing a peering.");
        Err(ConsulError::bad_request(message))
    };
    if body.peer_name.is_empty() {
        return missing("PeerName");
    }
    if body.peering_token.is_empty() {
        return missing("PeeringToken");
    }
    given::partition(&body.partition)?;
    let permit = permit_exchange(&state, &asked.caller)?;
    let known = match body.peer_name.parse::<LinkName>() {
        Ok(link) => state.peering.listed_one(&link).await?,
        Err(_) => None,
    };
    let link = match &known {
        Some(known) => known.report.name.clone(),
        None => given::name(&body.peer_name)?,
    };
    let redemption = redemption(&body.peering_token)?;
    given::meta(&body.meta)?;
    if redemption.remote.as_ref().is_some_and(|remote| remote.server_name == token::server_name(&state)) {
        return Err(itself(&state));
    }
    // To its end, even if the caller goes away: what failed is taken back then as well.
    let (reply, answer) = tokio::sync::oneshot::channel();
    let task = state.clone();
    state.tasks.spawn("peering-establish", async move {
        let ended = match known {
            Some(known) => anew(&task, &permit, &known, &body, redemption).await,
            None => first(&task, &permit, &link, &body, redemption).await,
        };
        let _ = reply.send(ended);
    });
    let unavailable = |_| ConsulError::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending");
    answer.await.map_err(unavailable)??;
    Answer::new(&asked, &serde_json::json!({}))
}

async fn first(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    body: &Establish,
    redemption: Redemption,
) -> Result<(), ConsulError> {
    declare(state, permit, link, &body.meta).await?;
    match state.peering.redeem_token(permit, link, redemption).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let is_own = matches!(error, PeeringError::Itself);
            let told = undo(state, permit, link, error).await;
            Err(if is_own { itself(state) } else { told })
        }
    }
}

/// A peering that is there: one that dials is established again, one that the peer has ended is made anew.
async fn anew(
    state: &ApiState,
    permit: &Permit,
    known: &Listed,
    body: &Establish,
    redemption: Redemption,
) -> Result<(), ConsulError> {
    let link = &known.report.name;
    if known.deleted_at.is_some() {
        return Err(token::marked());
    }
    if known.report.kind != LinkType::Bidirectional {
        return Err(PeeringError::NotAPeering(link.clone()).into());
    }
    state.permit_groups(permit.caller(), &known.report.auth_groups)?;
    match state.peering.redeem_token(permit, link, redemption).await {
        Ok(_) => {}
        Err(PeeringError::Itself) => return Err(itself(state)),
        Err(error) => return Err(error.into()),
    }
    if body.meta.is_empty() || body.meta == meta(&known.report.config) {
        return Ok(());
    }
    describe(state, permit, link, body).await
}

/// Keeps what the request says of the peering.
async fn describe(
    state: &ApiState,
    permit: &Permit,
    link: &LinkName,
    body: &Establish,
) -> Result<(), ConsulError> {
    let key = RecordKey::ClusterLink(link.clone());
    let Some(entry) = state.store.get(&keys::declared(&key)).await? else { return Ok(()) };
    let Record::ClusterLink(mut declared) = value::decode::<Declared>(&entry)?.record else { return Ok(()) };
    declared.config = config(&body.meta);
    let edit = Edit::put(key, Record::ClusterLink(declared)).only_at(entry.modify_revision.0);
    state.apply.edit(permit, vec![edit]).await?;
    Ok(())
}

/// What is to be redeemed, if the token is one.
fn redemption(text: &str) -> Result<Redemption, ConsulError> {
    let read = peering_token::read(text).map_err(|error| ConsulError::refused(error.to_string()))?;
    let redemption = |token: TrustToken, remote| Redemption { token, remote, again: Again::Yes };
    match read {
        Read::Both(consuls, ours) => Ok(redemption(ours, Some(remote(&consuls)))),
        Read::Ours(ours) => Ok(redemption(ours, None)),
        Read::Consuls(_) => Err(ConsulError::refused(
            "this peering token does not say which certificate its cluster shows (fingerprint), so nothing can be sent \
             there safely: it was made by something else than a comity agent, with which no peering can be established",
        )),
    }
}

fn remote(token: &PeeringToken) -> Remote {
    let said = |text: &str| printable(text).chars().take(LONGEST_NAME).collect();
    Remote {
        peering: said(&token.peer_id),
        server_name: said(&token.server_name),
        cluster: said(&token.remote.datacenter),
    }
}

fn itself(state: &ApiState) -> ConsulError {
    ConsulError::refused(format!(
        "cannot create a peering within the same cluster {:?}. Refer to the documentation: generate the token on the \
         other cluster, and establish here with it",
        token::server_name(state)
    ))
}
