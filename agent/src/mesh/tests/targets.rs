//! Upstreams that lead to more than one place.

use super::*;
use schema::kind::sameness_group::SamenessGroup;
use schema::kind::service::Target;

use crate::wire::service::TargetState;

fn falling_back(local: u16, to: &[(Option<&str>, Option<&str>)]) -> Record {
    let mut declared = upstream("db", local);
    declared.failover = to
        .iter()
        .map(|(name, peer)| Target {
            name: name.map(|name| name.parse().unwrap()),
            peer: peer.map(|peer| peer.parse().unwrap()),
        })
        .collect();
    calling(vec![declared])
}

#[tokio::test]
async fn what_cannot_be_reached_is_passed_over_and_what_is_denied_is_not() {
    let side = Side::start().await;
    let (spare, local) = (shouter().await, free_port().await);
    side.declare(vec![
        put("service/web", falling_back(local, &[(Some("gone"), None), (Some("spare"), None)])),
        put("service/db", instance(free_port().await)),
        put("service/spare", instance(spare)),
        put("service_intentions/*/@/web", intention(Action::Allow)),
    ])
    .await;
    side.ports(listening).await;
    // Nobody listens where the first should be, and the second is not declared; what was sent early is kept.
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");

    // The first is back: a little later it is used again.
    let db = shouter().await;
    side.declare(vec![put("service/db", instance(db))]).await;
    let direct = || {
        let rows = side.mesh.status().traffic;
        rows.iter()
            .filter(|row| row.destination.as_ref().is_some_and(|name| name.as_str() == "db"))
            .map(|row| row.connections)
            .sum::<u64>()
    };
    let back = async {
        while direct() == 0 {
            assert_eq!(shout(local, "again").await.unwrap(), "AGAIN");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, back).await.expect("the first is never used again");

    // A denial is an answer.
    side.declare(vec![put("service_intentions/db/@/web", intention(Action::Deny))]).await;
    let denied = async { while shout(local, "no").await.is_ok_and(|answer| answer == "NO") {} };
    tokio::time::timeout(LIMIT, denied).await.expect("a denied connection was carried elsewhere");
    assert_eq!(shout(local, "no").await.unwrap_or_default(), "");
    side.drain().await;
}

#[tokio::test]
async fn a_sameness_group_leads_to_its_members_and_follows_its_declaration() {
    let side = Side::start().await;
    let (db, local) = (shouter().await, free_port().await);
    let mut declared = upstream("db", local);
    declared.sameness_group = Some("coast".parse().unwrap());
    side.declare(vec![
        put("service/web", calling(vec![declared])),
        put("service/db", instance(db)),
        put("service_intentions/*/@/web", intention(Action::Allow)),
    ])
    .await;
    side.ports(
        |states| matches!(states, [PortState::Refused { reason }] if reason.contains("sameness group coast")),
    )
    .await;
    let group = SamenessGroup {
        include_local: true,
        members: vec!["east".parse().unwrap()],
        ..SamenessGroup::default()
    };
    side.declare(vec![put("sameness_group/coast", Record::SamenessGroup(group))]).await;
    side.ports(listening).await;
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");
    side.drain().await;
}

#[tokio::test]
async fn a_link_that_is_down_is_passed_over_at_once() {
    let side = Side::start().await;
    let (db, local) = (shouter().await, free_port().await);
    let Record::Service(mut service) = falling_back(local, &[(Some("db"), None)]) else { unreachable!() };
    service.upstreams[0].destination_peer = Some("east".parse().unwrap());
    side.declare(vec![
        put("service/web", Record::Service(service)),
        put("service/db", instance(db)),
        put("service_intentions/*/@/web", intention(Action::Allow)),
    ])
    .await;
    side.ports(listening).await;
    // It would be waited for if there were no other.
    side.mesh.parts.sessions.expect(&"east".parse().unwrap());
    let rows = side.mesh.upstreams();
    let looks: Vec<_> = rows[0].targets.iter().map(|row| (row.peer.is_some(), row.state)).collect();
    assert_eq!(looks, [(true, TargetState::Down), (false, TargetState::InUse)]);
    let started = std::time::Instant::now();
    assert_eq!(shout(local, "hello").await.unwrap(), "HELLO");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    side.drain().await;
}

#[tokio::test]
async fn a_carried_connection_is_small() {
    let side = Side::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let course = crate::mesh::targets::Course {
        owner: "web".parse().unwrap(),
        destinations: Vec::new(),
        allowed_uids: Vec::new(),
    };
    let route = crate::mesh::targets::Route::new(course, side.tasks.cutting());
    let app = crate::mesh::socket::Socket::from(app);
    let carried = crate::mesh::carry::carry(&side.mesh, app, &route, None);
    let size = std::mem::size_of_val(&carried);
    assert!(size <= 4096, "a connection's future takes {size} bytes");
    drop(carried);
    side.drain().await;
}
