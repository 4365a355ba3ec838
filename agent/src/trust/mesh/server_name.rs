//! What a caller's hello asks for: the server's name (SNI) in the forms that Consul's proxies send.
//!
//! `backend.default.east.internal.DOMAIN` is a service of the cluster east; `backend.default.west.external.DOMAIN` is one
//! across the link west. A name is what its sender likes: it is matched against what there is, and nothing is made of it.

use schema::name::{ClusterName, LinkName, ServiceName};

use super::spiffe::TrustDomain;

/// The one namespace that there is.
const NAMESPACE: &str = "default";
const INTERNAL: &str = "internal";
const EXTERNAL: &str = "external";

/// What a name within this cluster's trust domain asks for. As sent: in lower case, and perhaps of nothing that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked<'a> {
    /// A service of this cluster.
    Here { service: &'a str },
    /// A service and a link, one name: what stands before which dot is not known yet, since both may hold some.
    Across { service_and_link: &'a str },
    /// Something else that would be this cluster's to name.
    Nothing,
}

/// Reads a server's name; `None` if it is not within `domain`.
pub fn read<'a>(name: &'a str, domain: &TrustDomain, cluster: &ClusterName) -> Option<Asked<'a>> {
    let rest = before(name, domain.as_str())?;
    if let Some(rest) = before(rest, INTERNAL) {
        let service = before(rest, cluster.as_str()).and_then(|rest| before(rest, NAMESPACE));
        return Some(service.map_or(Asked::Nothing, |service| Asked::Here { service }));
    }
    let across = before(rest, EXTERNAL);
    Some(across.map_or(Asked::Nothing, |service_and_link| Asked::Across { service_and_link }))
}

/// The name by which a service of this cluster is asked for.
pub fn of_service(service: &ServiceName, cluster: &ClusterName, domain: &TrustDomain) -> String {
    format!("{service}.{NAMESPACE}.{cluster}.{INTERNAL}.{domain}").to_ascii_lowercase()
}

/// The name by which a service across a link is asked for.
pub fn of_service_across(service: &ServiceName, link: &LinkName, domain: &TrustDomain) -> String {
    format!("{service}.{NAMESPACE}.{link}.{EXTERNAL}.{domain}").to_ascii_lowercase()
}

/// The service, where `service_and_link` is of `link`.
pub fn across<'a>(service_and_link: &'a str, link: &LinkName) -> Option<&'a str> {
    before(service_and_link, link.as_str()).and_then(|rest| before(rest, NAMESPACE))
}

/// What stands before `.end`, in whatever case; `None` if there is nothing or the name ends otherwise.
fn before<'a>(name: &'a str, end: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(end.len())?;
    let (rest, found) = name.is_char_boundary(at).then(|| name.split_at(at))?;
    let rest = rest.strip_suffix('.').filter(|rest| !rest.is_empty())?;
    found.eq_ignore_ascii_case(end).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consuls_names_are_read_and_others_are_nobodys() {
        let domain: TrustDomain = "7f42f496-fbc7-8692-05ed-334aa5340c1e.consul".parse().unwrap();
        let cluster: ClusterName = "East.1".parse().unwrap();
        let read = |name: &'static str| super::read(name, &domain, &cluster);
        let here = |service| Some(Asked::Here { service });
        for (name, asked) in [
            ("web.default.east.1.internal.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", here("web")),
            ("a.b.default.east.1.internal.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", here("a.b")),
            ("web.default.west.internal.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", Some(Asked::Nothing)),
            ("web.other.east.1.internal.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", Some(Asked::Nothing)),
            (".default.east.1.internal.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", Some(Asked::Nothing)),
            ("x.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", Some(Asked::Nothing)),
            ("7f42f496-fbc7-8692-05ed-334aa5340c1e.consul", None),
            ("web.default.east.1.internal.11111111-fbc7-8692-05ed-334aa5340c1e.consul", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(read(name), asked, "{name}");
        }
        let Some(Asked::Across { service_and_link }) =
            read("db.default.no.rth.external.7f42f496-fbc7-8692-05ed-334aa5340c1e.consul")
        else {
            panic!("not across a link")
        };
        assert_eq!(across(service_and_link, &"no.rth".parse().unwrap()), Some("db"));
        assert_eq!(across(service_and_link, &"rth".parse().unwrap()), None);
        let service = "Web".parse().unwrap();
        let name = of_service(&service, &cluster, &domain);
        assert_eq!(super::read(&name, &domain, &cluster), Some(Asked::Here { service: "web" }));
    }
}
