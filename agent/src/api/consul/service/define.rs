//! From what a client sends to what a record holds. Pure; every refusal is in Consul's words where it has any.

use std::collections::BTreeMap;

use schema::kind::service::{
    self, Check, HttpRequest, Initial, Probe, Service, TaggedAddress, Thresholds, Upstream,
};
use schema::name::{InstanceId, ServiceName};

use crate::api::consul::answer::ConsulError;
use crate::wire::consul::registration::{
    CheckDefinition, ServiceDefinition, Sidecar, UpstreamDefinition, Weights,
};

/// Consul's limits of meta.
const MAX_META: usize = 64;
const MAX_META_KEY: usize = 128;
const MAX_META_VALUE: usize = 512;
/// A check that may be critical for less than this is deregistered after this (Consul: `CheckDeregisterIntervalMin`).
const SHORTEST_DEREGISTER_MS: u64 = 60_000;
const DEFAULT_TIMEOUT_MS: u64 = 10_000;

/// An instance to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defined {
    pub name: ServiceName,
    pub id: InstanceId,
    pub service: Service,
}

fn bad(message: impl Into<String>) -> ConsulError {
    ConsulError::bad_request(message)
}

/// What `definition` asks for.
pub fn service(definition: ServiceDefinition) -> Result<Defined, ConsulError> {
    if definition.name.is_empty() {
        return Err(bad("Missing service name"));
    }
    if definition.address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_unspecified()) {
        return Err(bad("Invalid service address"));
    }
    tenancy(&definition.namespace, &definition.partition)?;
    let name: ServiceName =
        definition.name.parse().map_err(|error| bad(format!("Invalid service name: {error}")))?;
    let id = match definition.id.as_str() {
        "" => (&name).into(),
        id => id.parse().map_err(|error| bad(format!("Invalid service ID: {error}")))?,
    };
    let weights = weights(definition.weights)?;
    if let Some(fault) = meta_fault(&definition.meta) {
        return Err(bad(format!("Invalid Service Meta: {fault}")));
    }
    let invalid = |why: &str| bad(format!("Validation failed: {why}"));
    match definition.kind.as_str() {
        "" | "typical" => {}
        kind => {
            let kind: String = kind.chars().take(40).collect();
            return Err(invalid(&format!(
                "Kind {kind:?} is not registered here: the agent is the proxy and the gateway of its services"
            )));
        }
    }
    if definition.proxy.is_some_and(|proxy| proxy.as_object().is_none_or(|proxy| !proxy.is_empty())) {
        return Err(invalid("Proxy is for proxies: the agent is the proxy of its services"));
    }
    if definition.locality.is_some() {
        return Err(invalid("Locality is not kept here"));
    }
    let port = port(definition.port).map_err(|why| invalid(&why))?;
    if port.is_some() && !definition.socket_path.is_empty() {
        return Err(invalid("SocketPath and Port cannot both be set"));
    }
    let mut tagged_addresses = BTreeMap::new();
    for (tag, tagged) in definition.tagged_addresses {
        let port = self::port(tagged.port).map_err(|why| invalid(&why))?.unwrap_or_default();
        tagged_addresses.insert(tag, TaggedAddress { address: tagged.address, port });
    }
    let connect = definition.connect.unwrap_or_default();
    let upstreams = upstreams(connect.sidecar_service.as_ref())
        .map_err(|why| bad(format!("Invalid SidecarService: {why}")))?;
    let check = definition.check.filter(|check| *check != CheckDefinition::default());
    let mut checks = Vec::new();
    for definition in check.into_iter().chain(definition.checks) {
        checks.push(self::check(definition)?);
    }
    let mut service = Service {
        port,
        address: definition.address,
        socket_path: definition.socket_path,
        tags: definition.tags,
        meta: definition.meta,
        tagged_addresses,
        weights,
        enable_tag_override: definition.enable_tag_override,
        proxy_protocol: None,
        connect_native: connect.native,
        checks,
        upstreams,
    };
    service::normalise(&mut service);
    service::validate(&service).map_err(invalid)?;
    Ok(Defined { name, id, service })
}

/// There is one namespace and one partition.
pub fn tenancy(namespace: &str, partition: &str) -> Result<(), ConsulError> {
    let other = |name: &str| !name.is_empty() && !name.eq_ignore_ascii_case("default");
    for (given, what) in [(namespace, "Namespaces"), (partition, "Partitions")] {
        if other(given) {
            let message = format!("Request decode failed: {what} are a Consul Enterprise feature");
            return Err(ConsulError::bad_request(message));
        }
    }
    Ok(())
}

fn weights(given: Option<Weights>) -> Result<service::Weights, ConsulError> {
    let Some(Weights { passing, warning }) = given else { return Ok(service::Weights::default()) };
    let fault = |why: &str| ConsulError::bad_request(format!("Invalid Weights: {why}"));
    if passing < 1 {
        return Err(fault("Passing must be greater than 0"));
    }
    if warning < 0 {
        return Err(fault("Warning must be greater or equal than 0"));
    }
    match (u16::try_from(passing), u16::try_from(warning)) {
        (Ok(passing), Ok(warning)) => Ok(service::Weights { passing, warning }),
        _ => Err(fault("DNS Weight must be between 0 and 65535")),
    }
}

/// What is wrong with meta, in Consul's words.
pub fn meta_fault(meta: &BTreeMap<String, String>) -> Option<String> {
    if meta.len() > MAX_META {
        return Some(format!("Node metadata cannot contain more than {MAX_META} key/value pairs"));
    }
    let plain = |key: &str| key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    meta.iter().find_map(|(key, value)| {
        let why = if key.is_empty() {
            "Key cannot be blank".to_owned()
        } else if !plain(key) {
            "Key contains invalid characters".to_owned()
        } else if key.len() > MAX_META_KEY {
            format!("Key is too long (limit: {MAX_META_KEY} characters)")
        } else if key.starts_with("consul-") {
            "Key prefix 'consul-' is reserved for internal use".to_owned()
        } else if value.len() > MAX_META_VALUE {
            format!("Value is too long (limit: {MAX_META_VALUE} characters)")
        } else {
            return None;
        };
        let short = |text: &str| text.chars().take(MAX_META_KEY).collect::<String>();
        Some(format!("Couldn't load metadata pair ('{}', '{}'): {why}", short(key), short(value)))
    })
}

/// 0 is none.
fn port(port: i64) -> Result<Option<u16>, String> {
    match u16::try_from(port) {
        Ok(0) => Ok(None),
        Ok(port) => Ok(Some(port)),
        Err(_) => Err("Port must be between 0 and 65535".to_owned()),
    }
}

/// Where a sidecar would lead: the agent leads there itself.
fn upstreams(sidecar: Option<&Sidecar>) -> Result<Vec<Upstream>, String> {
    let proxy = sidecar.and_then(|sidecar| sidecar.proxy.as_ref());
    proxy.map_or(&[][..], |proxy| &proxy.upstreams).iter().map(upstream).collect()
}

fn upstream(given: &UpstreamDefinition) -> Result<Upstream, String> {
    if !matches!(given.destination_type.as_str(), "" | "service") {
        return Err("an upstream's DestinationType is \"service\"".to_owned());
    }
    let local_bind_port = port(given.local_bind_port)?;
    let local_bind_socket_path = given.local_bind_socket_path.clone();
    if local_bind_port.is_none() && local_bind_socket_path.is_empty() {
        return Err("an upstream needs a LocalBindPort or a LocalBindSocketPath".to_owned());
    }
    let local_bind_socket_mode = match given.local_bind_socket_mode.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|why| format!("LocalBindSocketMode: {why}"))?),
    };
    let name = |text: &str| format!("{text} is not a name");
    let destination_name = given.destination_name.parse().map_err(|_| name("DestinationName"))?;
    let destination_peer = match given.destination_peer.as_str() {
        "" => None,
        peer => Some(peer.parse().map_err(|_| name("DestinationPeer"))?),
    };
    let local_bind_address = given.local_bind_address.clone();
    Ok(Upstream {
        local_bind_address,
        local_bind_socket_path,
        local_bind_socket_mode,
        ..Upstream::to(destination_name, destination_peer, local_bind_port.unwrap_or_default())
    })
}

/// What a check's definition asks for.
pub fn check(given: CheckDefinition) -> Result<Check, ConsulError> {
    let id = if given.check_id.is_empty() { given.id.clone() } else { given.check_id.clone() };
    tenancy(&given.namespace, &given.partition)?;
    let status = status(&given.status)
        .ok_or_else(|| ConsulError::bad_request("Status for checks must 'passing', 'warning', 'critical'"))?;
    let mut check = asked(given)
        .map_err(|why| ConsulError::bad_request(format!("Invalid check: {why}")))
        .map(|check| Check { id, status, ..check })?;
    // Judged as it will be kept.
    let mut service = Service { checks: vec![check], ..Service::default() };
    service::normalise(&mut service);
    check = service.checks.remove(0);
    check.validate().map_err(|why| ConsulError::bad_request(format!("Invalid check: {why}")))?;
    Ok(check)
}

/// `None` for a word that is no status.
fn status(text: &str) -> Option<Initial> {
    Some(match text {
        "" | "critical" => Initial::Critical,
        "passing" => Initial::Passing,
        "warning" => Initial::Warning,
        _ => return None,
    })
}

fn asked(given: CheckDefinition) -> Result<Check, String> {
    if let Some(kind) = not_made(&given) {
        return Err(format!("{kind} checks are not made here: use TTL, TCP or HTTP"));
    }
    let asks = !given.http.is_empty() || !given.tcp.is_empty();
    let (interval, ttl) = (given.interval.0, given.ttl.0);
    if interval > 0 && ttl > 0 {
        return Err("Interval and TTL cannot both be specified".to_owned());
    }
    if asks && interval == 0 {
        return Err("Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks".to_owned());
    }
    if !asks && ttl == 0 {
        return Err("TTL must be > 0 for TTL checks".to_owned());
    }
    if !given.http.is_empty() && !given.tcp.is_empty() {
        return Err("HTTP and TCP cannot both be specified".to_owned());
    }
    if given.output_max_size < 0 {
        return Err("MaxOutputMaxSize must be positive".to_owned());
    }
    let count = |given: i64| u32::try_from(given).map_err(|_| "a threshold cannot be negative".to_owned());
    let thresholds = Thresholds {
        success_before_passing: count(given.success_before_passing)?,
        failures_before_warning: count(given.failures_before_warning)?,
        failures_before_critical: count(given.failures_before_critical)?,
    };
    if thresholds.failures_before_warning > thresholds.failures_before_critical {
        return Err("FailuresBeforeWarning can't be higher than FailuresBeforeCritical".to_owned());
    }
    let (probe, request) = if !given.http.is_empty() {
        let request = HttpRequest {
            method: given.method,
            header: given.header,
            body: given.body,
            tls_server_name: given.tls_server_name,
            tls_skip_verify: given.tls_skip_verify,
        };
        (Probe::Http(given.http), Some(Box::new(request)))
    } else if !given.tcp.is_empty() {
        (Probe::Tcp(given.tcp), None)
    } else {
        (Probe::Ttl(ttl), None)
    };
    let after = given.deregister_critical_service_after.0;
    Ok(Check {
        name: given.name,
        notes: given.notes,
        request,
        thresholds,
        deregister_after_ms: if after == 0 { 0 } else { after.max(SHORTEST_DEREGISTER_MS) },
        ..Check::new(probe, interval, if given.timeout.0 == 0 { DEFAULT_TIMEOUT_MS } else { given.timeout.0 })
    })
}

/// The kind of check that is asked for, if it is none of ours.
fn not_made(given: &CheckDefinition) -> Option<&'static str> {
    [
        ("Script", !given.args.is_empty() || !given.script.is_empty()),
        ("Docker", !given.docker_container_id.is_empty() || !given.shell.is_empty()),
        ("gRPC", !given.grpc.is_empty()),
        ("H2PING", !given.h2ping.is_empty()),
        ("UDP", !given.udp.is_empty()),
        ("TCP over TLS", given.tcp_use_tls),
        ("OSService", !given.os_service.is_empty()),
        ("Alias", !given.alias_node.is_empty() || !given.alias_service.is_empty()),
    ]
    .into_iter()
    .find_map(|(kind, asked)| asked.then_some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::consul::go_json;

    fn define(text: &str) -> Result<Defined, String> {
        let definition = go_json::decode(text.as_bytes()).map_err(|error| error.to_string())?;
        service(definition).map_err(|error| format!("{} {}", error.status.as_u16(), error.message))
    }

    #[test]
    fn a_registration_becomes_what_a_file_would_declare() {
        let defined = define(
            r#"{"ID":"web-1","Name":"web","Tags":["v2","v1"],"Port":80,"Address":"10.0.0.1","Meta":{"a":"b"},
                "tagged_addresses":{"lan":{"address":"10.0.0.1","port":8080}},"Weights":{"Passing":10,"Warning":2},
                "Connect":{"SidecarService":{"Proxy":{"Upstreams":[
                    {"DestinationName":"db","DestinationPeer":"east","LocalBindPort":9191}]}}},
                "Check":{"HTTP":"https://10.0.0.1/health","Interval":"10s","TLSSkipVerify":true,"Method":"GET",
                         "DeregisterCriticalServiceAfter":"30s"},
                "Checks":[{"CheckID":"beat","TTL":"15s","Status":"passing"},{"TCP":"10.0.0.1:80","Interval":5000000000}]}"#,
        )
        .unwrap();
        assert_eq!((defined.name.as_str(), defined.id.as_str()), ("web", "web-1"));
        let service = defined.service;
        assert_eq!(service.tags, ["v1", "v2"]);
        assert_eq!(service.tagged_addresses["lan"].port, 8080);
        assert_eq!((service.weights.passing, service.weights.warning), (10, 2));
        assert_eq!(service.upstreams[0].destination_name.as_str(), "db");
        let [http, ttl, tcp] = &service.checks[..] else { panic!("{:?}", service.checks) };
        assert!(
            http.request.as_ref().unwrap().tls_skip_verify
                && http.request.as_ref().unwrap().method.is_empty()
        );
        assert_eq!((http.deregister_after_ms, http.timeout_ms), (60_000, 10_000));
        assert_eq!(
            (ttl.id.as_str(), &ttl.probe, ttl.status),
            ("beat", &Probe::Ttl(15_000), Initial::Passing)
        );
        assert_eq!(tcp.interval_ms, 5_000);
        // Without an id it is the service's one instance.
        assert_eq!(define(r#"{"Name":"web"}"#).unwrap().id.as_str(), "web");
    }

    #[test]
    fn what_cannot_be_registered_is_refused_in_consuls_words() {
        for (text, expected) in [
            (r"{}", "400 Missing service name"),
            (r#"{"Name":"a","Address":"0.0.0.0"}"#, "400 Invalid service address"),
            (r#"{"Name":"a","Address":"::"}"#, "400 Invalid service address"),
            (
                r#"{"Name":"a","Weights":{"Passing":0,"Warning":1}}"#,
                "400 Invalid Weights: Passing must be greater than 0",
            ),
            (
                r#"{"Name":"a","Meta":{"consul-x":"y"}}"#,
                "400 Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'y'): Key prefix 'consul-' is \
                 reserved for internal use",
            ),
            (
                r#"{"Name":"a","Check":{"Interval":"1s","TTL":"1s"}}"#,
                "400 Invalid check: Interval and TTL cannot both be specified",
            ),
            (r#"{"Name":"a","Check":{"Name":"b"}}"#, "400 Invalid check: TTL must be > 0 for TTL checks"),
            (
                r#"{"Name":"a","Check":{"HTTP":"http://a/"}}"#,
                "400 Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
            ),
            (
                r#"{"Name":"a","Checks":[{"Args":["x"],"Interval":"1s"}]}"#,
                "400 Invalid check: Script checks are not made here: use TTL, TCP or HTTP",
            ),
            (
                r#"{"Name":"a","Check":{"TTL":"1s","Status":"fine"}}"#,
                "400 Status for checks must 'passing', 'warning', 'critical'",
            ),
            (
                r#"{"Name":"a","Namespace":"team"}"#,
                "400 Request decode failed: Namespaces are a Consul Enterprise feature",
            ),
            (r#"{"Name":"a","Port":70000}"#, "400 Validation failed: Port must be between 0 and 65535"),
            (r#"{"Name":"a","Foo":1}"#, r#"json: unknown field "Foo""#),
            (r#"{"Name":"a","Check":{"Foo":1}}"#, r#"json: unknown field "Foo""#),
        ] {
            assert_eq!(define(text).unwrap_err(), expected, "{text}");
        }
        let kind = define(r#"{"Name":"a","Kind":"connect-proxy"}"#).unwrap_err();
        assert!(
            kind.starts_with("400 Validation failed: Kind \"connect-proxy\" is not registered here"),
            "{kind}"
        );
        assert!(define(r#"{"Name":"a/b"}"#).unwrap_err().starts_with("400 Invalid service name: "));
        assert!(define(r#"{"Name":"a","ID":"a/b"}"#).unwrap_err().starts_with("400 Invalid service ID: "));
    }
}
