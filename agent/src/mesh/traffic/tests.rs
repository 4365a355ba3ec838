use super::*;

fn pair(source: &str, destination: &str) -> Pair {
    let source = Source { peer: Some("west".parse().unwrap()), service: source.parse().unwrap() };
    let rule = RecordKey::Export(schema::record::ServiceMatch::Any);
    Pair::of_peer(source, destination.parse().unwrap()).under(&Reason::Rule { rule, precedence: 9 })
}

fn number(rows: &[TrafficRow], of: impl Fn(&TrafficRow) -> u64) -> u64 {
    rows.iter().map(of).sum()
}

#[test]
fn what_is_counted_of_a_pair_is_shown_and_each_rule_has_a_row() {
    let traffic = Traffic::default();
    let counters = traffic.of(pair("frontend", "backend"));
    let first = counters.carried(Duration::from_micros(300));
    let second = traffic.of(pair("frontend", "backend")).carried(Duration::from_millis(2));
    drop(first);
    counters.sent().fetch_add(5, Relaxed);
    counters.received().fetch_add(7, Relaxed);
    counters.cut(&"an intention has changed");
    counters.failed(Cause::NoInstance, &"its checks do not pass");
    let unruled = Pair { rule: None, ..pair("frontend", "backend") };
    traffic.of(unruled.clone()).denied(Denial::NoRule, &"no intention matches");
    traffic.of(unruled).denied(Denial::NotExported, &"not exported");

    let rows = traffic.rows();
    let [denied, carried] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((carried.connections, carried.open, carried.cut, carried.failed), (2, 1, 1, 1));
    assert_eq!((carried.sent, carried.received, carried.precedence), (5, 7, Some(9)));
    assert_eq!(carried.set_up.up_to_us, [(500, 1), (2_500, 1)].into());
    assert_eq!(denied.denied_because, [(Denial::NoRule, 1), (Denial::NotExported, 1)].into());
    assert_eq!((denied.denied, &denied.rule), (2, &None));
    drop(second);
    assert_eq!(number(&traffic.rows(), |row| row.open), 0);
}

#[test]
fn a_peer_that_makes_names_up_is_counted_whole_in_a_bounded_number_of_rows_and_no_other_pays() {
    let traffic = Traffic::default();
    let names = MAX_ROWS + MAX_FOLDED + 100;
    for number in 0..names {
        drop(traffic.of(pair(&format!("s{number}"), "backend")).carried(Duration::ZERO));
    }
    // All the rest has one row, since there is one destination and one rule.
    assert_eq!(traffic.rows().len(), MAX_ROWS + 1);
    for number in 0..names {
        traffic.of(pair("s", &format!("d{number}"))).denied(Denial::NotDeclared, &"");
    }
    let rows = traffic.rows();
    assert_eq!(rows.len(), MAX_ROWS + MAX_FOLDED + 1);
    assert_eq!(number(&rows, |row| row.connections), names as u64);
    assert_eq!(number(&rows, |row| row.denied), names as u64);
    let rest = rows.iter().find(|row| row.destination.is_none()).unwrap();
    assert_eq!(rest.source_peer.as_ref().unwrap().as_str(), "west");
    assert_eq!(rest.denied, (names - (MAX_FOLDED - 1)) as u64);

    // Another link has rows of its own.
    let mut other = pair("frontend", "backend");
    other.source.peer = Some("north".parse().unwrap());
    traffic.of(other).denied(Denial::Rule, &"");
    let rows = traffic.rows();
    assert!(rows.iter().any(|row| row.source.as_ref().is_some_and(|name| name.as_str() == "frontend")));

    // Who is of no link cannot name a row at all.
    for number in 0..100 {
        traffic.stranger(&format!("x{number}").parse().unwrap(), &"backend".parse().unwrap(), &"");
    }
    let rows = traffic.rows();
    let strangers: Vec<_> = rows.iter().filter(|row| row.source_peer.is_none()).collect();
    assert_eq!(strangers.len(), 1);
    assert_eq!(strangers[0].denied_because, [(Denial::NoLink, 100)].into());
}
