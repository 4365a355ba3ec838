//! How a query names the two ends of an intention: `web`, `default/web`, `peer:west/web`, and, which Consul's grammar
//! has not, `peer:*/web` and `sameness-group:all/web`.

use schema::name::NameError;
use schema::origin::Origin;
use schema::record::ServiceMatch;

use crate::api::consul::answer::ConsulError;

/// Whether a peer may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    Taken,
    Refused,
}

/// The source that `text` names.
pub fn source(text: &str) -> Result<(Origin, ServiceMatch), ConsulError> {
    parse(text, Peers::Taken).map_err(|why| invalid("source", text, &why))
}

/// The destination that `text` names: always here.
pub fn destination(text: &str) -> Result<ServiceMatch, ConsulError> {
    let parsed = parse(text, Peers::Refused).map_err(|why| invalid("destination", text, &why))?;
    Ok(parsed.1)
}

fn invalid(what: &str, text: &str, why: &str) -> ConsulError {
    // A token in the wrong place is not repeated.
    let shown = schema::diagnostic::secret::quoted(text);
    ConsulError::refused(format!("{what} {shown} is invalid: {why}"))
}

fn parse(text: &str, peers: Peers) -> Result<(Origin, ServiceMatch), String> {
    let (origin, rest) = match (text.strip_prefix("peer:"), text.strip_prefix("sameness-group:")) {
        (None, None) => (Origin::Local, text),
        _ if peers == Peers::Refused => return Err("cannot specify a peer here".to_owned()),
        (Some(rest), _) => {
            let (peer, rest) = parted(rest)?;
            let origin = if peer == "*" { Origin::AnyPeer } else { Origin::Peer(name("peer", peer)?) };
            (origin, rest)
        }
        (None, Some(rest)) => {
            let (group, rest) = parted(rest)?;
            (Origin::Group(name("sameness group", group)?), rest)
        }
    };
    let parts: Vec<&str> = rest.split('/').collect();
    let (tenancy, service) = match parts[..] {
        [service] => (&[][..], service),
        [_, service] => (&parts[..1], service),
        [_, _, service] if origin == Origin::Local => (&parts[..2], service),
        _ => return Err("input can contain at most two '/'".to_owned()),
    };
    if service.is_empty() {
        return Err("need to specify the service name as well".to_owned());
    }
    if let Some(other) = tenancy.iter().find(|part| !matches!(**part, "" | "default")) {
        return Err(format!(
            "{other:?} is neither a namespace nor a partition that is known here: there is one of each, \"default\""
        ));
    }
    Ok((origin, name("service", service)?))
}

fn parted(rest: &str) -> Result<(&str, &str), String> {
    rest.split_once('/').ok_or_else(|| "need to specify the service name as well".to_owned())
}

fn name<T: std::str::FromStr<Err = NameError>>(what: &str, text: &str) -> Result<T, String> {
    if text != "*" && text.contains('*') {
        return Err(format!("{what}: wildcard character '*' cannot be used with partial values"));
    }
    text.parse().map_err(|error| format!("the {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_named_as_consul_names_them() {
        for (text, origin, service) in [
            ("web", "@", "web"),
            ("*", "@", "*"),
            ("/web", "@", "web"),
            ("default/web", "@", "web"),
            ("default/default/web", "@", "web"),
            ("peer:west/web", "west", "web"),
            ("peer:west/default/web", "west", "web"),
            ("peer:*/web", "*", "web"),
            ("sameness-group:all/*", "@all", "*"),
        ] {
            let (found, name) = parse(text, Peers::Taken).unwrap();
            assert_eq!((found.to_string().as_str(), name.to_string().as_str()), (origin, service), "{text}");
        }
        for (text, why) in [
            ("a/b/c/d", "input can contain at most two '/'"),
            ("peer:west", "need to specify the service name as well"),
            ("peer:west/", "need to specify the service name as well"),
            ("peer:west/a/b/c", "input can contain at most two '/'"),
            ("team/web", "\"team\" is neither"),
            ("w*", "wildcard character"),
            ("peer:UP_per!/web", "the peer"),
        ] {
            let told = parse(text, Peers::Taken).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
        assert_eq!(
            destination("peer:p/x").unwrap_err().message,
            "destination \"peer:p/x\" is invalid: cannot specify a peer here"
        );
    }
}
