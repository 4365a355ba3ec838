//! What a certificate of the cluster's own authority is for, by its subject: Flocker's scheme. The organizational unit
//! is the cluster, the common name says who: `user-NAME`, `node-UUID`, `control-service`.

use uuid::Uuid;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::trust::unseen::is_unseen;

const USER: &str = "user-";
const NODE: &str = "node-";
const CONTROL: &str = "control-service";
/// Longest name of a user.
const MAX_USER: usize = 64;

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// A client of the API.
    User(String),
    /// An agent that is to join the cluster.
    Node(Uuid),
    /// What an agent shows to clients.
    ControlService,
}

/// Why a certificate has no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    #[error("its subject has {0} common names, not one")]
    CommonNames(usize),
    #[error("its subject has {0} organizational units, not one")]
    Units(usize),
    #[error("its organizational unit is not the cluster's")]
    OtherCluster,
    #[error("its common name is none of user-NAME, node-UUID and control-service")]
    Unknown,
    #[error("the name after user- is not one that an identity can have")]
    User,
    #[error("what follows node- is not a UUID")]
    Node,
}

impl Role {
    /// The role that `subject` claims in `cluster`.
    pub fn of(subject: &X509Name<'_>, cluster: Uuid) -> Result<Self, RoleError> {
        let name = only(subject.iter_common_name()).map_err(RoleError::CommonNames)?;
        if unit(subject)? != cluster {
            return Err(RoleError::OtherCluster);
        }
        if let Some(user) = name.strip_prefix(USER) {
            return if is_user(user) { Ok(Self::User(user.to_owned())) } else { Err(RoleError::User) };
        }
        if let Some(node) = name.strip_prefix(NODE) {
            return exact(node).map(Self::Node).ok_or(RoleError::Node);
        }
        if name == CONTROL { Ok(Self::ControlService) } else { Err(RoleError::Unknown) }
    }
}

/// The cluster that a subject belongs to.
pub fn unit(subject: &X509Name<'_>) -> Result<Uuid, RoleError> {
    let unit = only(subject.iter_organizational_unit()).map_err(RoleError::Units)?;
    exact(unit).ok_or(RoleError::OtherCluster)
}

/// The one value there is, or how many there are. One that is not text counts as none.
fn only<'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<&'a str, usize> {
    let values: Vec<_> = values.collect();
    match values[..] {
        [value] => value.as_str().map_err(|_| 0),
        _ => Err(values.len()),
    }
}

/// A UUID written in its usual form and no other.
fn exact(text: &str) -> Option<Uuid> {
    let uuid: Uuid = text.parse().ok()?;
    (uuid.as_hyphenated().to_string() == text).then_some(uuid)
}

/// What may be an identity's name, on a command line as well.
fn is_user(name: &str) -> bool {
    !name.is_empty()
        && name.chars().count() <= MAX_USER
        && !name.starts_with('-')
        && !name
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || is_unseen(c) || matches!(c, '/' | ':'))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType};

    use super::*;

    const CLUSTER: Uuid = Uuid::from_u128(7);

    fn role(parts: &[(DnType, &str)]) -> Result<Role, RoleError> {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let (_, read) = x509_parser::parse_x509_certificate(der.der()).unwrap();
        Role::of(read.subject(), CLUSTER)
    }

    fn named(name: &str) -> Result<Role, RoleError> {
        let unit = CLUSTER.to_string();
        role(&[(DnType::OrganizationalUnitName, &unit), (DnType::CommonName, name)])
    }

    #[test]
    fn a_role_is_read_strictly() {
        let uuid = Uuid::from_u128(9);
        assert_eq!(named("user-alice"), Ok(Role::User("alice".to_owned())));
        assert_eq!(named("user-ålice@example.org"), Ok(Role::User("ålice@example.org".to_owned())));
        assert_eq!(named(&format!("node-{uuid}")), Ok(Role::Node(uuid)));
        assert_eq!(named("control-service"), Ok(Role::ControlService));
        for name in
            ["user-", "user--x", "user-a/b", "user-a b", "user-a:b", "user-a\u{200b}", "user-\u{202e}a"]
        {
            assert_eq!(named(name), Err(RoleError::User), "{name}");
        }
        for name in ["node-", "node-x", &format!("node-{}", uuid.as_simple()), "node-{9}"] {
            assert_eq!(named(name), Err(RoleError::Node), "{name}");
        }
        for name in ["alice", "User-alice", "control-service2", "usr-alice"] {
            assert_eq!(named(name), Err(RoleError::Unknown), "{name}");
        }
    }

    #[test]
    fn two_names_are_nobody_and_another_clusters_unit_is_another_clusters() {
        let unit = CLUSTER.to_string();
        let (ou, cn) = (DnType::OrganizationalUnitName, DnType::CommonName);
        let other = Uuid::from_u128(8).to_string();
        assert_eq!(role(&[(ou.clone(), &other), (cn.clone(), "user-a")]), Err(RoleError::OtherCluster));
        assert_eq!(role(&[(cn.clone(), "user-a")]), Err(RoleError::Units(0)));
        assert_eq!(role(&[(ou.clone(), &unit)]), Err(RoleError::CommonNames(0)));
        // rcgen keeps one value of each kind, so the second name is of its custom kind with the same number.
        let also = DnType::CustomDnType(vec![2, 5, 4, 3]);
        let two = role(&[(ou, &unit), (cn, "user-a"), (also, "node-b")]);
        assert_eq!(two, Err(RoleError::CommonNames(2)));
    }
}
