//! Local sockets of upstreams, and who may connect.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::*;
use tokio::net::{UnixListener, UnixStream};

fn on_socket(path: &Path, mode: Option<&str>) -> Upstream {
    let mut declared = upstream("db", 0);
    declared.local_bind_socket_path = path.to_str().unwrap().to_owned();
    declared.local_bind_socket_mode = mode.map(|mode| mode.parse().unwrap());
    declared
}

async fn shout_at(path: &Path, text: &str) -> std::io::Result<String> {
    let mut socket = UnixStream::connect(path).await?;
    socket.write_all(text.as_bytes()).await?;
    socket.shutdown().await?;
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, socket.read_to_string(&mut answer)).await.expect("no answer in time")?;
    Ok(answer)
}

fn bits(path: &Path) -> Option<u32> {
    Some(std::fs::symlink_metadata(path).ok()?.permissions().mode() & 0o777)
}

async fn calls(side: &Side, upstreams: Vec<Upstream>) {
    side.declare(vec![
        put("service/web", calling(upstreams)),
        put("service_intentions/db/@/web", intention(Action::Allow)),
    ])
    .await;
}

#[tokio::test]
async fn an_upstream_listens_on_a_unix_socket_of_its_mode_and_takes_it_away_again() {
    let side = Side::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("db.sock"), folder.path().join("other.sock"));
    let db = shouter().await;
    side.declare(vec![put("service/db", instance(db))]).await;
    // What an agent that was killed leaves behind.
    drop(UnixListener::bind(&path).unwrap());
    calls(&side, vec![on_socket(&path, None), on_socket(&other, Some("0666"))]).await;
    side.ports(|states| states == [PortState::Listening, PortState::Listening]).await;
    assert_eq!((bits(&path), bits(&other)), (Some(0o600), Some(0o666)));
    assert_eq!(shout_at(&path, "hello").await.unwrap(), "HELLO");
    let large = "x".repeat(1 << 20);
    assert_eq!(shout_at(&other, &large).await.unwrap().len(), large.len());
    assert!(side.mesh.upstreams().iter().any(|row| row.local == path.to_str().unwrap()));

    // Another mode is another socket.
    calls(&side, vec![on_socket(&path, Some("0660"))]).await;
    until(|| bits(&path) == Some(0o660)).await;
    until(|| !other.exists()).await;
    side.drain().await;
    assert!(!path.exists(), "the socket was left behind");
}

#[tokio::test]
async fn what_is_in_the_way_stays_and_the_reason_is_shown() {
    let side = Side::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, busy) = (folder.path().join("file"), folder.path().join("busy"));
    let open = folder.path().join("open");
    std::fs::write(&file, "precious").unwrap();
    let listener = UnixListener::bind(&busy).unwrap();
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    let group = folder.path().join("group");
    std::fs::create_dir(&group).unwrap();
    std::fs::set_permissions(&group, std::fs::Permissions::from_mode(0o770)).unwrap();
    let absent = folder.path().join("absent/db.sock");
    for (path, says) in [
        (&file, "no socket"),
        (&busy, "listens on it already"),
        (&absent, "cannot be used"),
        (&open.join("db.sock"), "written by everybody"),
        (&group.join("db.sock"), "written by its group"),
    ] {
        calls(&side, vec![on_socket(path, None)]).await;
        side.ports(|states| matches!(states, [PortState::Waiting { reason }] if reason.contains(says))).await;
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(busy.exists());
    drop(listener);
    side.drain().await;
}

#[tokio::test]
async fn only_the_users_that_are_named_get_through() {
    let side = Side::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db.sock");
    let (db, port) = (shouter().await, free_port().await);
    side.declare(vec![put("service/db", instance(db))]).await;
    let me = rustix::process::geteuid().as_raw();
    let to = |uid: u32| {
        let mut both = vec![on_socket(&path, None), upstream("db", port)];
        for upstream in &mut both {
            upstream.allowed_uids = vec![uid];
        }
        both
    };
    let both = |states: &[PortState]| states == [PortState::Listening, PortState::Listening];
    calls(&side, to(me)).await;
    side.ports(both).await;
    assert_eq!(shout_at(&path, "hello").await.unwrap(), "HELLO");
    assert_eq!(shout(port, "hello").await.unwrap(), "HELLO");

    calls(&side, to(me + 1)).await;
    let refused = async {
        while shout_at(&path, "x").await.is_ok_and(|answer| answer == "X")
            || shout(port, "x").await.is_ok_and(|answer| answer == "X")
        {}
    };
    tokio::time::timeout(LIMIT, refused).await.expect("others get through");
    let denied = |side: &Side| side.mesh.status().traffic.iter().map(|row| row.denied).sum::<u64>();
    let before = denied(&side);
    assert_eq!(shout(port, "x").await.unwrap_or_default(), "");
    assert_eq!(shout_at(&path, "x").await.unwrap_or_default(), "");
    until(|| denied(&side) == before + 2).await;
    side.drain().await;
}
