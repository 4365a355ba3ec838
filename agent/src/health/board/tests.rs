use schema::kind::service::Initial;

use super::*;
use crate::catalog::Instance;
use crate::store::Revision;

fn tcp(port: u16) -> Check {
    Check::new(Probe::Tcp(format!("127.0.0.1:{port}")), 1_000, 100)
}

fn ttl(ms: u64) -> Check {
    Check::new(Probe::Ttl(ms), 0, 0)
}

fn instances(all: &[(&str, Vec<Check>)]) -> Instances {
    let instance = |(id, checks): &(&str, Vec<Check>)| Instance {
        id: id.parse().unwrap(),
        service: Arc::new(Service { port: Some(80), checks: checks.clone(), ..Service::default() }),
        created: Revision(1),
        modified: Revision(1),
    };
    all.iter().map(instance).collect()
}

/// A board with what was published of it.
#[derive(Default)]
struct Bench {
    board: Board,
    published: BTreeMap<ServiceName, Arc<ServiceHealth>>,
}

impl Bench {
    /// What changed: `ID STATUS`, or `ID -` for an instance of which nothing is said any more.
    fn changes(&mut self, asked: &[&str]) -> Vec<String> {
        let published = self.published.clone();
        let mut told = Vec::new();
        for (service, health) in self.board.take_changes(|name| published.get(name).cloned()) {
            for id in asked {
                let id: InstanceId = id.parse().unwrap();
                let status =
                    health.as_ref().and_then(|health| health.get(&id)).map(|health| health.status.as_str());
                told.push(format!("{id} {}", status.unwrap_or("-")));
            }
            match health {
                Some(health) => _ = self.published.insert(service, health),
                None => _ = self.published.remove(&service),
            }
        }
        told
    }
}

/// `SERVICE/INSTANCE/CHECK`.
fn place(text: &str) -> CheckPlace {
    let [service, instance, check] = text.split('/').collect::<Vec<_>>()[..] else { panic!("{text}") };
    CheckPlace { service: service.parse().unwrap(), instance: instance.parse().unwrap(), check: check.into() }
}

#[test]
fn the_worst_check_wins_and_an_unchanged_check_keeps_its_status() {
    let mut bench = Bench::default();
    let web: ServiceName = "web".parse().unwrap();
    let now = Instant::now();
    let ok: Arc<str> = "ok".into();
    let two = instances(&[("web", vec![tcp(1), tcp(2)]), ("web-2", vec![tcp(3)])]);
    let started = bench.board.declare(&web, Some(&two), now);
    assert_eq!(bench.changes(&["web", "web-2"]), ["web critical", "web-2 critical"]);
    bench.board.record(&started[0].0, Status::Passing, ok.clone(), now);
    bench.board.record(&started[2].0, Status::Passing, ok.clone(), now);
    assert_eq!(bench.changes(&["web", "web-2"]), ["web critical", "web-2 passing"]);
    bench.board.record(&started[1].0, Status::Warning, ok.clone(), now);
    assert_eq!(bench.changes(&["web"]), ["web warning"]);

    // An edit of one instance leaves the other's checks alone, and its own that stay under the same id.
    let mut named = [tcp(1), tcp(2)];
    (named[0].id, named[1].id) = ("one".to_owned(), "two".to_owned());
    let both = instances(&[("web", named.to_vec()), ("web-2", vec![tcp(3)])]);
    let renamed = bench.board.declare(&web, Some(&both), now);
    assert_eq!(renamed.len(), 2);
    assert!(started[0].0.stop.is_cancelled() && !started[2].0.stop.is_cancelled());
    bench.board.record(&started[1].0, Status::Critical, ok.clone(), now);
    bench.board.record(&renamed[0].0, Status::Passing, ok.clone(), now);
    bench.changes(&[]);
    let fewer = instances(&[("web", named[..1].to_vec()), ("web-2", vec![tcp(3)])]);
    assert!(bench.board.declare(&web, Some(&fewer), now).is_empty());
    assert!(renamed[1].0.stop.is_cancelled() && !renamed[0].0.stop.is_cancelled());
    assert_eq!(bench.changes(&["web"]), ["web passing"]);

    let bare = instances(&[("web", Vec::new()), ("web-2", vec![tcp(3)])]);
    assert!(bench.board.declare(&web, Some(&bare), now).is_empty());
    assert_eq!(bench.changes(&["web"]), ["web -"]);
    bench.board.declare(&web, None, now);
    assert_eq!(bench.changes(&["web-2"]), ["web-2 -"]);
    assert!(started[2].0.stop.is_cancelled());
    assert!(bench.board.by_id.is_empty() && bench.board.by_serial.is_empty());
}

#[test]
fn a_ttl_check_says_how_it_is_and_runs_out() {
    let mut bench = Bench::default();
    let web: ServiceName = "web".parse().unwrap();
    let start = Instant::now();
    let after = |ms| start + Duration::from_millis(ms);
    let declared = instances(&[("web-1", vec![ttl(1_000)]), ("web-2", vec![tcp(1)])]);
    assert_eq!(bench.board.declare(&web, Some(&declared), start).len(), 1, "nobody asks a TTL check");
    assert_eq!(bench.changes(&["web-1"]), ["web-1 critical"]);
    bench
        .board
        .update(&place("web/web-1/service:web-1"), Status::Passing, "fine".into(), after(900))
        .unwrap();
    assert_eq!(bench.changes(&["web-1"]), ["web-1 passing"]);
    assert_eq!(bench.board.next_deadline(), Some(after(1_900)));
    assert!(bench.board.expire(after(1_800)).is_empty());
    assert_eq!(bench.changes(&["web-1"]), [""; 0]);
    bench.board.expire(after(1_900));
    assert_eq!(bench.changes(&["web-1"]), ["web-1 critical"]);
    let health = &bench.published[&web].get(&"web-1".parse().unwrap()).unwrap().checks[0];
    assert_eq!(&*health.output, "TTL expired (last output before timeout follows): fine");
    assert_eq!(bench.board.next_deadline(), None);

    let update = |bench: &mut Bench, at| bench.board.update(&place(at), Status::Passing, "".into(), start);
    assert_eq!(update(&mut bench, "web/web-1/nobody"), Err(UpdateError::Unknown("nobody".to_owned())));
    assert_eq!(
        update(&mut bench, "web/web-2/service:web-2"),
        Err(UpdateError::NoTtl("service:web-2".to_owned()))
    );
    let mut shared = ttl(1_000);
    shared.id = "shared".to_owned();
    let api: ServiceName = "api".parse().unwrap();
    for name in [&web, &api] {
        let one = instances(&[(name.as_str(), vec![shared.clone()])]);
        bench.board.declare(name, Some(&one), start);
    }
    let places = bench.board.places("shared");
    assert_eq!(places.len(), 2, "{places:?}");
    assert_eq!(update(&mut bench, "web/web/shared"), Ok(()));
    assert_eq!(bench.board.places("nobody"), []);
}

#[test]
fn an_instance_is_overdue_only_while_it_stays_critical_and_maintenance_outlives_checks() {
    let mut bench = Bench::default();
    let web: ServiceName = "web".parse().unwrap();
    let start = Instant::now();
    let after = |s| start + Duration::from_secs(s);
    let mut check = ttl(30_000);
    check.deregister_after_ms = 60_000;
    check.status = Initial::Passing;
    bench.board.declare(&web, Some(&instances(&[("web", vec![check])])), start);
    assert_eq!(bench.changes(&["web"]), ["web passing"]);
    assert!(bench.board.expire(after(30)).is_empty());
    assert_eq!(bench.board.next_deadline(), Some(after(90)));
    bench.board.update(&place("web/web/service:web"), Status::Warning, "".into(), after(60)).unwrap();
    assert!(bench.board.expire(after(90)).is_empty(), "it was well in between; the TTL begins anew");
    let overdue = bench.board.expire(after(150));
    assert_eq!(overdue[0].instance.as_str(), "web");
    assert_eq!(bench.board.next_deadline(), Some(after(210)), "named again");

    bench.board.maintain(&web, &"web".parse().unwrap(), Some("moving".into()));
    assert_eq!(bench.changes(&["web"]), ["web maintenance"]);
    bench.board.declare(&web, Some(&instances(&[("web", Vec::new())])), after(160));
    assert_eq!(bench.changes(&["web"]), ["web maintenance"], "still out of service");
    bench.board.maintain(&web, &"web".parse().unwrap(), None);
    assert_eq!(bench.changes(&["web"]), ["web -"]);
    bench.board.maintain(&"none".parse().unwrap(), &"none".parse().unwrap(), Some("x".into()));
    assert!(bench.changes(&[]).is_empty());
}
