//! Whom a certificate of the cluster's CA is for, as its subject says: one common name, which tells the role, and one
//! organizational unit, which is the cluster. Flocker's scheme, and nothing beside it: a subject with two common names
//! could be read as either, so it is nobody's.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use schema::render::visible;
use uuid::Uuid;
use x509_parser::x509::X509Name;

/// What the agent's own name is in every control certificate: Flocker's clients ask for it whatever the host is.
pub const CONTROL: &str = "control-service";
const NODE: &str = "node-";
const USER: &str = "user-";

/// X.520's limit for a common name, in characters.
const LONGEST_COMMON_NAME: usize = 64;
/// The longest file name that file systems take, less what is put before and after a host.
const LONGEST_HOST: usize = 255 - "control-".len() - ".crt".len();

/// Whom a certificate names, and of which cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub role: Role,
    pub cluster: Uuid,
}

/// What a certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The agent, towards its clients.
    Control,
    /// A machine whose agent joins the cluster.
    Node(Uuid),
    /// Somebody who calls the API.
    User(UserName),
}

/// A subject that does not name one role of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    #[error("its subject has {count} common names (CN) instead of one")]
    CommonNames { count: usize },
    #[error("its subject has {count} organizational units (OU) instead of one, the cluster's UUID")]
    Clusters { count: usize },
    #[error("its organizational unit (OU) is not a cluster's UUID")]
    NoUuid,
    #[error("its common name is neither control-service, node-UUID nor user-NAME")]
    NoRole,
}

impl Subject {
    /// Whom the subject of a certificate names.
    pub fn of(name: &X509Name<'_>) -> Result<Self, SubjectError> {
        let (common_name, cluster) = parts(name)?;
        let role = Role::of_common_name(common_name).ok_or(SubjectError::NoRole)?;
        Ok(Self { role, cluster })
    }
}

/// The one common name and the cluster.
pub fn parts<'a>(name: &'a X509Name<'_>) -> Result<(&'a str, Uuid), SubjectError> {
    let count = name.iter_common_name().count();
    let common_name = match (count, name.iter_common_name().next()) {
        (1, Some(one)) => one.as_str().map_err(|_| SubjectError::NoRole)?,
        _ => return Err(SubjectError::CommonNames { count }),
    };
    let count = name.iter_organizational_unit().count();
    let cluster = match (count, name.iter_organizational_unit().next()) {
        (1, Some(one)) => one.as_str().ok().and_then(hyphenated).ok_or(SubjectError::NoUuid)?,
        _ => return Err(SubjectError::Clusters { count }),
    };
    Ok((common_name, cluster))
}

/// A UUID as it is written in subjects and file names, and in no other way.
fn hyphenated(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|uuid| uuid.to_string() == text)
}

impl Role {
    pub fn of_common_name(name: &str) -> Option<Self> {
        if name == CONTROL {
            return Some(Role::Control);
        }
        if let Some(node) = name.strip_prefix(NODE) {
            return hyphenated(node).map(Role::Node);
        }
        name.strip_prefix(USER)?.parse().ok().map(Role::User)
    }

    pub fn common_name(&self) -> String {
        match self {
            Role::Control => CONTROL.to_owned(),
            Role::Node(node) => format!("{NODE}{node}"),
            Role::User(user) => format!("{USER}{user}"),
        }
    }

    /// One word.
    pub fn word(&self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Node(_) => "node",
            Role::User(_) => "user",
        }
    }
}

/// Why a name is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{0} must not be empty")]
    Empty(&'static str),
    #[error("{what} must not be longer than {most} characters")]
    TooLong { what: &'static str, most: usize },
    #[error("{what} must not contain {which}")]
    Character { what: &'static str, which: &'static str },
    #[error("{what} must not begin with {first:?}")]
    Begins { what: &'static str, first: char },
    #[error("{what} must not begin or end with a space")]
    Spaces { what: &'static str },
    #[error("{0:?} is taken: files and subjects of that name mean something else in a cluster")]
    Reserved(String),
    #[error("{name:?} is neither a DNS name nor an IP address: {reason}")]
    NoHost { name: String, reason: &'static str },
}

/// What every name must hold: it is part of a subject, it is printed, and a user's is part of a file's name.
fn check(what: &'static str, name: &str, prefix: usize) -> Result<(), NameError> {
    let most = LONGEST_COMMON_NAME - prefix;
    if name.is_empty() {
        return Err(NameError::Empty(what));
    }
    if name.chars().count() > most {
        return Err(NameError::TooLong { what, most });
    }
    if name.contains(['\n', '\t']) || visible(name) != name {
        return Err(NameError::Character { what, which: "control characters" });
    }
    if name.trim() != name {
        return Err(NameError::Spaces { what });
    }
    Ok(())
}

/// What an API user is called; `NAME.crt` is its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UserName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        let what = "a user's name";
        check(what, name, USER.len())?;
        if name.contains(['/', '\\', ':']) {
            return Err(NameError::Character { what, which: "\"/\", \"\\\" or \":\"" });
        }
        // It is an identity's name too, as in `auth identity show tls/NAME`.
        if name.contains(char::is_whitespace) {
            return Err(NameError::Character { what, which: "spaces" });
        }
        if let Some(first) = name.chars().next().filter(|first| matches!(first, '.' | '-')) {
            return Err(NameError::Begins { what, first });
        }
        // Its file would be the CA's own, or be taken for one of the other kinds. Whatever the case of the letters:
        // there are file systems that do not tell.
        let folded = name.to_ascii_lowercase();
        let taken = matches!(folded.as_str(), "cluster" | "ca" | "node" | "server" | "client");
        if taken || folded.starts_with("control-") || hyphenated(&folded).is_some() {
            return Err(NameError::Reserved(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

/// What a cluster's CA is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorityName(String);

impl AuthorityName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AuthorityName {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        check("a cluster's name", name, 0)?;
        // A CA of this name and what it issues would have one and the same subject: no chain could be told.
        if name == CONTROL || name.starts_with(NODE) || name.starts_with(USER) {
            return Err(NameError::Reserved(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

/// The machine that clients dial: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Dns(String),
    Ip(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Dns(name) => f.write_str(name),
            Host::Ip(address) => address.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = NameError;
    fn from_str(name: &str) -> Result<Self, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty("a host's name"));
        }
        if let Ok(address) = name.parse() {
            return Ok(Host::Ip(address));
        }
        match dns_fault(name) {
            None => Ok(Host::Dns(name.to_owned())),
            // What is repeated is cut off: it may be anything.
            Some(reason) => {
                let name = visible(&name.chars().take(80).collect::<String>()).into_owned();
                Err(NameError::NoHost { name, reason })
            }
        }
    }
}

/// Why clients would not find this name in a certificate.
fn dns_fault(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST_HOST {
        return Some("it is too long");
    }
    if !name.is_ascii() {
        return Some("write it as the DNS has it, in letters of ASCII (xn--…)");
    }
    if name.contains(['/', ':', '@']) {
        return Some("give the host alone, without a scheme, a port or a path");
    }
    if name.contains('*') {
        return Some("a certificate is for one host, not for many");
    }
    if name.ends_with('.') {
        return Some("write it without the dot at its end");
    }
    let sound = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.split('.').all(sound) {
        return Some("its parts are 1 to 63 letters, digits and hyphens, parted by dots");
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        return Some("it ends in a number, as an address does, but is none");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_told_by_the_common_name_and_by_nothing_else() {
        let node = Uuid::new_v4();
        let roles = [Role::Control, Role::Node(node), Role::User("alice".parse().unwrap())];
        for role in roles {
            assert_eq!(Role::of_common_name(&role.common_name()), Some(role));
        }
        for nobody in
            ["", "alice", "user-", "node-", "node-1", "control-service ", "Control-service", "node-alice"]
        {
            assert_eq!(Role::of_common_name(nobody), None, "{nobody:?}");
        }
        assert_eq!(Role::of_common_name(&format!("node-{{{node}}}")), None);
        assert_eq!(Role::of_common_name(&format!("node-{}", node.simple())), None);
    }

    #[test]
    fn a_user_is_called_what_can_be_a_file_that_is_nobody_elses() {
        for good in ["alice", "alice@example.org", "Alice.Smith", "é", &"x".repeat(59), "a.b", "control"] {
            assert!(good.parse::<UserName>().is_ok(), "{good:?}");
        }
        let uuid = Uuid::new_v4().to_string();
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-o",
            "a/b",
            "../a",
            "a\\b",
            "a\0b",
            "a\nb",
            "a\tb",
            "Alice Smith",
            "a:b",
            " a",
            "a ",
            "cluster",
            "CLUSTER",
            "ca",
            "node",
            "server",
            "client",
            "control-x",
            &uuid,
            &uuid.to_uppercase(),
            &"x".repeat(60),
            "a\u{202e}b",
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cluster_is_not_called_as_what_its_ca_issues() {
        assert!("my cluster/1".parse::<AuthorityName>().is_ok());
        for bad in ["", " ", "a\n", "control-service", "user-alice", "node-1", &"x".repeat(65)] {
            assert!(bad.parse::<AuthorityName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        assert_eq!("10.0.0.1".parse(), Ok(Host::Ip([10, 0, 0, 1].into())));
        assert!(matches!("fe80::1".parse(), Ok(Host::Ip(_))));
        for good in ["example.org", "localhost", "a-b.c_d.example", "xn--bcher-kva.example", "1and1.de"] {
            assert_eq!(good.parse(), Ok(Host::Dns(good.to_owned())));
        }
        for bad in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a-",
            "a/b",
            "https://a",
            "a:8443",
            "*.a",
            "a.",
            "büro",
            "10.0.0.256",
            "10.0.0",
            "a b",
            "a\0",
            "a\n",
            "fe80::1%eth0",
            &"x".repeat(64),
            &"x.".repeat(130),
        ] {
            assert!(bad.parse::<Host>().is_err(), "{bad:?}");
        }
    }
}
