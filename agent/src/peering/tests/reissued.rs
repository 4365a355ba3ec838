//! Tokens that are issued for links that are made.

use super::super::{Again, Redemption};
use super::*;

async fn regenerated(agent: &Agent, link: &str) -> TrustToken {
    agent.peering.regenerate(&agents::permit(), &name(link)).await.unwrap().token
}

async fn redeem_again(agent: &Agent, link: &str, token: TrustToken) -> Result<(), PeeringError> {
    let redemption = Redemption { token, remote: None, again: Again::Yes };
    agent.peering.redeem_token(&agents::permit(), &name(link), redemption).await.map(drop)
}

#[tokio::test]
async fn the_same_cluster_redeems_again_over_the_link_that_stands() {
    let (east, west) = linked().await;
    let Half::Established(before) = half(&east, "west").await else { panic!() };
    let (dead, token) = (regenerated(&east, "west").await, regenerated(&east, "west").await);
    both_active(&east, &west).await;
    redeem_again(&west, "east", dead).await.unwrap_err();
    redeem_again(&west, "east", token.clone()).await.unwrap();
    both_active(&east, &west).await;
    let Half::Established(after) = half(&east, "west").await else { panic!() };
    assert_eq!(
        (&after.peer.fingerprint, after.first_active),
        (&before.peer.fingerprint, before.first_active)
    );
    assert_eq!(after.reissued, None);
    redeem_again(&west, "east", token).await.unwrap_err();
    both_active(&east, &west).await;
    let refused = west.peering.regenerate(&agents::permit(), &name("east")).await;
    assert!(matches!(refused, Err(PeeringError::Dials(_))), "{refused:?}");
}

#[tokio::test]
async fn another_cluster_takes_the_place_and_the_first_is_told() {
    let (east, west) = linked().await;
    let token = regenerated(&east, "west").await;
    let north = Agent::start("north").await;
    north.declare("east").await;
    north.redeem("east", token.encode().expose()).await.unwrap();
    north.reaches("east", LinkState::Active).await;
    west.reaches("east", LinkState::Terminated).await;
    let Half::Established(made) = half(&east, "west").await else { panic!() };
    assert_eq!(made.peer.fingerprint, north.key.fingerprint);
    assert_eq!(ledger::link_of(&*east.store, &west.key.fingerprint).await.unwrap(), None);
}

#[tokio::test]
async fn who_waits_for_a_redemption_redeems_nothing_by_consuls_rules() {
    let (east, west) = declared().await;
    let token = regenerated(&east, "west").await;
    regenerated(&west, "east").await;
    let refused = redeem_again(&west, "east", token).await;
    assert!(matches!(refused, Err(PeeringError::IsDialled(_))), "{refused:?}");
    assert!(matches!(half(&west, "east").await, Half::Pending(Pending { token: Some(_) })));
}
