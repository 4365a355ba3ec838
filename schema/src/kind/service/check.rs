//! A service's health checks: what they ask, how often, and what they make of the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{is_host, split_target};
use crate::diagnostic::Diagnostic;
use crate::diagnostic::secret::quoted;
use crate::document::Value;
use crate::kind::fields::{Fields, Text};
use crate::name::{InstanceId, ServiceName};

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it is called in calls about it; empty for the id that Consul would give it, see [`Check::id_in`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    #[serde(flatten)]
    pub probe: Probe,
    /// What is asked by HTTP besides the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<HttpRequest>>,
    /// Time between probes, milliseconds; 0 for a check that somebody else makes.
    #[serde(default)]
    pub interval_ms: u64,
    /// Time after which a probe has failed, milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
    /// What it says before its first probe.
    #[serde(default, skip_serializing_if = "Initial::is_critical")]
    pub status: Initial,
    #[serde(default, skip_serializing_if = "Thresholds::is_default")]
    pub thresholds: Thresholds,
    /// An instance whose check is critical for longer than this is deregistered, milliseconds; 0 for never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deregister_after_ms: u64,
}

/// How health is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `host:port` that must accept a connection.
    Tcp(String),
    /// `http://host:port/path` or `https://…` that must answer 2xx.
    Http(String),
    /// Nothing is asked: the instance says within each so many milliseconds how it is.
    Ttl(u64),
}

/// What an HTTP check sends. Redirections are never followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HttpRequest {
    /// `GET` if empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// The name that the instance's certificate must have; empty for the URL's host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls_server_name: String,
    /// Whether any certificate will do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tls_skip_verify: bool,
}

/// A status that a check begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Initial {
    Passing,
    Warning,
    #[default]
    Critical,
}

/// How many probes in a row it takes to change a check's status. 0 and 1 are the same to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Thresholds {
    #[serde(default, skip_serializing_if = "is_zero_count")]
    pub success_before_passing: u32,
    /// 0 for as many as make it critical.
    #[serde(default, skip_serializing_if = "is_zero_count")]
    pub failures_before_warning: u32,
    #[serde(default, skip_serializing_if = "is_zero_count")]
    pub failures_before_critical: u32,
}

/// Shortest and longest (exclusive) time of a check, milliseconds.
pub(super) const TIMES: std::ops::Range<u64> = 100..86_400_001;
/// Consul takes nothing shorter for deregistering; thirty days are enough for anybody.
pub(super) const DEREGISTER_TIMES: std::ops::Range<u64> = 60_000..2_592_000_001;
/// How often a check runs, if it does not say; Consul's default for a time-out.
const INTERVAL_MS: u64 = 10_000;
/// Most probes in a row that a threshold may ask for.
pub(super) const MAX_THRESHOLD: u32 = 1_000;
/// Most bytes of a check's id, name and notes, as they are shown to people.
pub(super) const MAX_ID: usize = 255;
pub(super) const MAX_NOTES: usize = 4_096;
/// Most bytes of what an HTTP check sends.
pub(super) const MAX_BODY: usize = 64 * 1024;
const MAX_HEADERS: usize = 64;

/// For serde, which passes references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero_count(number: &u32) -> bool {
    *number == 0
}

impl Initial {
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_critical(&self) -> bool {
        *self == Initial::Critical
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Initial::Passing => "passing",
            Initial::Warning => "warning",
            Initial::Critical => "critical",
        }
    }
}

impl Thresholds {
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_default(&self) -> bool {
        *self == Thresholds::default()
    }
}

impl Check {
    /// A check that asks `probe` and says nothing else.
    pub fn new(probe: Probe, interval_ms: u64, timeout_ms: u64) -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            notes: String::new(),
            probe,
            request: None,
            interval_ms,
            timeout_ms,
            status: Initial::default(),
            thresholds: Thresholds::default(),
            deregister_after_ms: 0,
        }
    }

    /// The id under which calls find it: its own, else Consul's `service:ID`, or `service:ID:2` for the second of several.
    pub fn id_in(&self, instance: &InstanceId, index: usize, of: usize) -> String {
        if !self.id.is_empty() {
            self.id.clone()
        } else if of == 1 {
            format!("service:{instance}")
        } else {
            format!("service:{instance}:{}", index + 1)
        }
    }

    /// The name that lists show.
    pub fn name_in(&self, service: &ServiceName) -> String {
        if self.name.is_empty() { format!("Service '{service}' check") } else { self.name.clone() }
    }

    /// Consul's word for the kind of check.
    pub fn word(&self) -> &'static str {
        match self.probe {
            Probe::Tcp(_) => "tcp",
            Probe::Http(_) => "http",
            Probe::Ttl(_) => "ttl",
        }
    }

    /// Leaves out what is the default.
    pub(super) fn normalise(&mut self) {
        let thresholds = &mut self.thresholds;
        for count in [
            &mut thresholds.success_before_passing,
            &mut thresholds.failures_before_warning,
            &mut thresholds.failures_before_critical,
        ] {
            if *count == 1 {
                *count = 0;
            }
        }
        if thresholds.failures_before_warning == thresholds.failures_before_critical {
            thresholds.failures_before_warning = 0;
        }
        if let Some(request) = &mut self.request
            && request.method.eq_ignore_ascii_case("GET")
        {
            request.method.clear();
        }
        if self.request.as_deref() == Some(&HttpRequest::default()) || !matches!(self.probe, Probe::Http(_)) {
            self.request = None;
        }
        if matches!(self.probe, Probe::Ttl(_)) {
            (self.interval_ms, self.timeout_ms, *thresholds) = (0, 0, Thresholds::default());
        }
    }

    /// What is wrong with it, in words that fit behind "a check's": for what did not come through `decode`.
    pub fn validate(&self) -> Result<(), &'static str> {
        let printable = |text: &str| !text.chars().any(char::is_control);
        if self.id.len() > MAX_ID || self.name.len() > MAX_ID || self.notes.len() > MAX_NOTES {
            return Err("a check's id, name or notes are too long");
        }
        if !printable(&self.id) || self.id.contains('/') || !printable(&self.name) {
            return Err("a check's id and name are printable, and an id has no '/'");
        }
        match &self.probe {
            Probe::Tcp(target) if split_target(target).is_none() => {
                return Err("a check's TCP target is HOST:PORT");
            }
            Probe::Http(url) if !is_url(url) => {
                return Err("a check's URL is such as \"http://127.0.0.1:9090/health\"");
            }
            Probe::Ttl(ttl) if !TIMES.contains(ttl) => {
                return Err("a check's TTL is at least 100ms and at most 24h");
            }
            Probe::Ttl(_) => {}
            Probe::Tcp(_) | Probe::Http(_) => {
                if !TIMES.contains(&self.interval_ms) || !TIMES.contains(&self.timeout_ms) {
                    return Err("a check's interval or timeout is out of bounds");
                }
            }
        }
        let Thresholds { success_before_passing, failures_before_warning, failures_before_critical } =
            self.thresholds;
        if [success_before_passing, failures_before_warning, failures_before_critical]
            .iter()
            .any(|count| *count > MAX_THRESHOLD)
        {
            return Err("a check's thresholds are at most 1000");
        }
        if failures_before_warning > failures_before_critical.max(1) {
            return Err("FailuresBeforeWarning can't be higher than FailuresBeforeCritical");
        }
        if self.deregister_after_ms != 0 && !DEREGISTER_TIMES.contains(&self.deregister_after_ms) {
            return Err("a check's DeregisterCriticalServiceAfter is at least 1m and at most 720h");
        }
        self.request.as_ref().map_or(Ok(()), |request| request.validate())
    }
}

impl HttpRequest {
    fn validate(&self) -> Result<(), &'static str> {
        if !self.method.bytes().all(|b| b.is_ascii_uppercase()) || self.method.len() > 20 {
            return Err("a check's method is a word such as GET");
        }
        if self.header.len() > MAX_HEADERS || self.body.len() > MAX_BODY {
            return Err("a check's header or body is too large");
        }
        let visible = |text: &str| text.chars().all(|c| !c.is_control() || c == '\t');
        let named = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !self.header.iter().all(|(name, values)| named(name) && values.iter().all(|value| visible(value)))
        {
            return Err("a check's header has a name or a value that HTTP does not have");
        }
        if !self.tls_server_name.is_empty() && !is_host(&self.tls_server_name) {
            return Err("a check's TLS server name is a host name");
        }
        Ok(())
    }
}

/// Which machine a check asks is whoever declares it's affair; that it is one is ours.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (is_host(bare) || split_target(host).is_some())
        && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Decodes one element of `checks`.
pub(super) fn decode(mut fields: Fields<'_, '_>) -> Option<Check> {
    let probes = [fields.text("tcp"), fields.text("http"), fields.text("ttl")];
    let given = fields.span("interval").is_some();
    let interval = fields.duration_ms("interval", TIMES).unwrap_or(INTERVAL_MS);
    let timeout = fields.duration_ms("timeout", TIMES).unwrap_or(interval.min(INTERVAL_MS));
    let probe = probe(probes, given, &mut fields);
    let id = label(&mut fields, "id", MAX_ID);
    if id.contains('/')
        && let Some(span) = fields.span("id")
    {
        fields.fault("bad-value", format!("{} holds no '/'", fields.place.field("id")), span);
    }
    let status = fields.word(
        "status",
        &[("passing", Initial::Passing), ("warning", Initial::Warning), ("critical", Initial::Critical)],
    );
    let mut check = Check {
        id,
        name: label(&mut fields, "name", MAX_ID),
        notes: label(&mut fields, "notes", MAX_NOTES),
        request: decode_request(&mut fields),
        status: status.unwrap_or_default(),
        thresholds: Thresholds {
            success_before_passing: fields.count("success_before_passing", MAX_THRESHOLD).unwrap_or_default(),
            failures_before_warning: fields
                .count("failures_before_warning", MAX_THRESHOLD)
                .unwrap_or_default(),
            failures_before_critical: fields
                .count("failures_before_critical", MAX_THRESHOLD)
                .unwrap_or_default(),
        },
        deregister_after_ms: deregister_after(&mut fields),
        ..Check::new(Probe::Ttl(0), interval, timeout)
    };
    for refused in ["args", "script", "docker_container_id", "grpc", "udp", "alias_service", "alias_node"] {
        if fields.take(refused).is_some()
            && let Some(span) = fields.span(refused)
        {
            let summary = format!("{} asks for a check that is not made here", fields.place.field(refused));
            fields.fault("not-taken", summary + ": one has tcp, http or ttl", span);
        }
    }
    if check.thresholds.failures_before_warning > check.thresholds.failures_before_critical.max(1)
        && let Some(span) = fields.span("failures_before_warning")
    {
        let summary = "failures_before_warning cannot be higher than failures_before_critical";
        fields.fault("bad-value", summary, span);
    }
    fields.finish();
    check.probe = probe?;
    Some(check)
}

fn probe(probes: [Option<Text<'_>>; 3], has_interval: bool, fields: &mut Fields<'_, '_>) -> Option<Probe> {
    match probes {
        [Some(target), None, None] if split_target(target.text).is_some() => {
            Some(Probe::Tcp(target.text.to_owned()))
        }
        [Some(target), None, None] => {
            let summary = format!("{} is HOST:PORT", fields.place.field("tcp"));
            fields.fault("bad-value", summary, target.span);
            None
        }
        [None, Some(url), None] if is_url(url.text) => Some(Probe::Http(url.text.to_owned())),
        [None, Some(url), None] => {
            let summary =
                format!("{} is a URL such as \"http://127.0.0.1:9090/health\"", fields.place.field("http"));
            fields.fault("bad-value", summary, url.span);
            None
        }
        [None, None, Some(ttl)] => {
            let ms = crate::kind::duration::parse_ms(ttl.text).filter(|ms| TIMES.contains(ms));
            if ms.is_none() {
                let summary =
                    format!("{} is a time such as \"30s\", from 100ms to 24h", fields.place.field("ttl"));
                fields.fault("bad-value", summary, ttl.span);
            }
            if has_interval {
                fields.fault("bad-value", "a check has either an interval or a ttl, not both", ttl.span);
            }
            ms.map(Probe::Ttl)
        }
        [None, None, None] => {
            fields.missing("tcp");
            None
        }
        [tcp, http, ttl] => {
            let names = [("tcp", tcp.is_some()), ("http", http.is_some()), ("ttl", ttl.is_some())];
            let given: Vec<&str> = names.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
            let second = [tcp, http, ttl].into_iter().flatten().nth(1);
            if let Some(second) = second {
                let summary = format!("a check has either {}, not both", given[..2].join(" or "));
                fields.fault("bad-value", summary, second.span);
            }
            None
        }
    }
}

/// A text of one line and of bounded length.
fn label(fields: &mut Fields<'_, '_>, name: &'static str, most: usize) -> String {
    let Some(text) = fields.text(name) else { return String::new() };
    if text.text.len() > most || text.text.chars().any(char::is_control) {
        let summary = format!("{} is one line of at most {most} bytes", fields.place.field(name));
        fields.fault("bad-value", summary, text.span);
        return String::new();
    }
    text.text.to_owned()
}

/// What a file declares is deregistered by the file. To say otherwise is no fault, but it does nothing.
fn deregister_after(fields: &mut Fields<'_, '_>) -> u64 {
    let name = "deregister_critical_service_after";
    let after = fields.duration_ms(name, DEREGISTER_TIMES).unwrap_or_default();
    if after > 0
        && let Some(span) = fields.span(name)
    {
        let summary = format!("{} does nothing for a service that a file declares", fields.place.field(name));
        let at = fields.faults.at(span);
        fields.faults.push(Diagnostic::warning("no-effect", summary, Some(at)));
    }
    0
}

fn decode_request(fields: &mut Fields<'_, '_>) -> Option<Box<HttpRequest>> {
    let method = fields.text("method").map(|text| {
        if text.text.is_empty() || !text.text.bytes().all(|b| b.is_ascii_uppercase()) || text.text.len() > 20
        {
            let summary = format!("{} is a word such as \"GET\"", fields.place.field("method"));
            fields.fault("bad-value", summary, text.span);
        }
        text.text.to_owned()
    });
    let body = fields.text("body").map(|text| {
        if text.text.len() > MAX_BODY {
            let summary = format!("{} has at most {MAX_BODY} bytes", fields.place.field("body"));
            fields.fault("too-large", summary, text.span);
        }
        text.text.to_owned()
    });
    let server_name = fields.text("tls_server_name").map(|text| {
        if !is_host(text.text) {
            let summary = format!("{} is a host name", fields.place.field("tls_server_name"));
            fields.fault("bad-value", summary, text.span);
        }
        text.text.to_owned()
    });
    // Always so; whoever says it is right.
    fields.boolean("disable_redirects");
    let request = HttpRequest {
        method: method.unwrap_or_default(),
        header: header(fields),
        body: body.unwrap_or_default(),
        tls_server_name: server_name.unwrap_or_default(),
        tls_skip_verify: fields.boolean("tls_skip_verify").unwrap_or_default(),
    };
    (request != HttpRequest::default()).then(|| Box::new(request))
}

/// `header = { "X-Probe" = ["yes"] }`; a lone text is a list of one.
fn header(fields: &mut Fields<'_, '_>) -> BTreeMap<String, Vec<String>> {
    let mut header = BTreeMap::new();
    let Some((table, _)) = fields.table("header") else { return header };
    for (key, node) in &table.0 {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let values: Option<Vec<String>> = items
            .iter()
            .map(|item| match &item.value {
                Value::String(text) => Some(text.clone()),
                _ => None,
            })
            .collect();
        match values {
            Some(values) => {
                let one = HttpRequest {
                    header: BTreeMap::from([(key.text.clone(), values.clone())]),
                    ..HttpRequest::default()
                };
                if let Err(why) = one.validate() {
                    fields.fault("bad-value", why, key.span);
                }
                header.insert(key.text.clone(), values);
            }
            None if node.value == Value::Faulty => {}
            None => {
                let summary = format!("header {} is a list of strings", quoted(&key.text));
                fields.fault("wrong-type", summary, node.span);
            }
        }
    }
    header
}
