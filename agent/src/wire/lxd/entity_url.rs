//! Entities as permissions name them in LXD's API: by their URL. Declarations name them by type, name, project and
//! pool; this is the one place that knows both forms.

use schema::kind::auth_group::Permission;
use schema::kind::auth_group::entitlements::{ENTITY_TYPES, needs};

/// The project of what names none.
const DEFAULT_PROJECT: &str = "default";

/// An entity by its type and name, as declarations have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Named {
    pub entity_type: &'static str,
    /// `METHOD/ID` for an identity; `None` for the server.
    pub entity: Option<String>,
    pub project: Option<String>,
    pub pool: Option<String>,
}

/// A text that is not the URL of an entity that permissions can be on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Not the URL of an entity that permissions can be granted on")]
pub struct UrlError;

impl Named {
    /// What a permission is about; `None` for a type that is not known.
    pub fn of(permission: &Permission) -> Option<Self> {
        let entity_type = ENTITY_TYPES.iter().find(|known| known.name == permission.entity_type)?.name;
        Some(Self {
            entity_type,
            entity: permission.entity.clone(),
            project: permission.project.clone(),
            pool: permission.pool.clone(),
        })
    }

    /// An entity of a type that needs no more than a name.
    pub fn simple(entity_type: &'static str, entity: impl Into<String>) -> Self {
        Self { entity_type, entity: Some(entity.into()), project: None, pool: None }
    }

    pub fn server() -> Self {
        Self { entity_type: "server", entity: None, project: None, pool: None }
    }

    /// The permission of `entitlement` on it, as records hold it.
    pub fn permission(&self, entitlement: &str) -> Permission {
        Permission {
            entity_type: self.entity_type.to_owned(),
            entitlement: entitlement.to_owned(),
            entity: self.entity.clone(),
            project: self.project.clone(),
            pool: self.pool.clone(),
        }
    }

    pub fn url(&self) -> String {
        let name = segment(self.entity.as_deref().unwrap_or_default());
        let project = self.project.as_deref().unwrap_or(DEFAULT_PROJECT);
        let query = format!("?project={}", segment(project));
        match self.entity_type {
            "server" => "/1.0".to_owned(),
            "storage_volume" => {
                let pool = segment(self.pool.as_deref().unwrap_or_default());
                format!("/1.0/storage-pools/{pool}/volumes/custom/{name}{query}")
            }
            "instance" => format!("/1.0/instances/{name}{query}"),
            // Method and identifier are a segment each. An identity that was declared without a method has LXD's usual.
            "identity" => {
                let entity = self.entity.as_deref().unwrap_or_default();
                let (method, id) = entity.split_once('/').unwrap_or(("tls", entity));
                format!("/1.0/auth/identities/{}/{}", segment(method), segment(id))
            }
            other => {
                let folder = FOLDERS.iter().find(|(kind, _)| *kind == other).map_or("", |(_, folder)| folder);
                format!("{folder}/{name}")
            }
        }
    }

    /// What a URL names. Whether it exists is another question.
    pub fn from_url(url: &str) -> Result<Self, UrlError> {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let project = query.split('&').find_map(|pair| pair.strip_prefix("project="));
        let project = unescape(project.filter(|name| !name.is_empty()).unwrap_or(DEFAULT_PROJECT))?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path == "/1.0" {
            return Ok(Self::server());
        }
        let parts: Vec<&str> = path.strip_prefix('/').ok_or(UrlError)?.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(UrlError);
        }
        match parts[..] {
            ["1.0", "instances", name] => Ok(Self {
                entity_type: "instance",
                entity: Some(unescape(name)?),
                project: Some(project),
                pool: None,
            }),
            ["1.0", "storage-pools", pool, "volumes", "custom", name] => Ok(Self {
                entity_type: "storage_volume",
                entity: Some(unescape(name)?),
                project: Some(project),
                pool: Some(unescape(pool)?),
            }),
            ["1.0", "auth", "identities", method, id] => {
                let (method, id) = (unescape(method)?, unescape(id)?);
                if method.contains('/') {
                    Err(UrlError)
                } else {
                    Ok(Self::simple("identity", format!("{method}/{id}")))
                }
            }
            [.., name] => {
                let folder = &path[..path.len() - name.len() - 1];
                let (kind, _) = FOLDERS.iter().find(|(_, known)| *known == folder).ok_or(UrlError)?;
                Ok(Self::simple(kind, unescape(name)?))
            }
            [] => Err(UrlError),
        }
    }

    /// What the type takes besides a name that is not there, as `(project, pool)`.
    pub fn lacks(&self) -> (bool, bool) {
        let needs = needs(self.entity_type);
        (needs.project && self.project.is_none(), needs.pool && self.pool.is_none())
    }
}

/// Where the entities are that need no more than a name.
const FOLDERS: &[(&str, &str)] = &[
    ("project", "/1.0/projects"),
    ("storage_pool", "/1.0/storage-pools"),
    ("group", "/1.0/auth/groups"),
    ("identity_provider_group", "/1.0/auth/identity-provider-groups"),
    ("certificate", "/1.0/certificates"),
    ("cluster_link", "/1.0/cluster/links"),
    ("service", "/control/v1/services"),
    ("exported_services", "/control/v1/exported-services"),
    ("service_intentions", "/control/v1/service-intentions"),
    ("manifest", "/control/v1/manifests"),
    ("transfer", "/control/v1/transfers"),
];

/// `text` as one segment of a path, or as a value of a query.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'@' | b'*') {
            segment.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

fn unescape(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return Err(UrlError) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(high).ok_or(UrlError)? << 4 | digit(low).ok_or(UrlError)?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| UrlError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_is_read_back_from_its_url() {
        for (url, kind) in [
            ("/1.0", "server"),
            ("/1.0/projects/default", "project"),
            ("/1.0/instances/c1?project=default", "instance"),
            ("/1.0/storage-pools/default/volumes/custom/orders?project=default", "storage_volume"),
            ("/1.0/storage-pools/default", "storage_pool"),
            ("/1.0/auth/groups/link", "group"),
            ("/1.0/auth/identities/oidc/ada%2Bx@example.com", "identity"),
            ("/1.0/auth/identity-provider-groups/a%20group%2Fof%20theirs", "identity_provider_group"),
            ("/1.0/certificates/0123", "certificate"),
            ("/1.0/cluster/links/west", "cluster_link"),
            ("/control/v1/services/backend", "service"),
            ("/control/v1/exported-services/default", "exported_services"),
            ("/control/v1/service-intentions/*", "service_intentions"),
            ("/control/v1/manifests/shop", "manifest"),
            ("/control/v1/transfers/orders-to-west", "transfer"),
        ] {
            let named = Named::from_url(url).unwrap();
            assert_eq!((named.entity_type, named.url().as_str()), (kind, url));
            assert_eq!(Named::of(&named.permission("can_view")), Some(named));
        }
        let known: Vec<&str> = ENTITY_TYPES.iter().map(|known| known.name).collect();
        assert_eq!(known.len(), 15, "a type that is new belongs above");
    }

    #[test]
    fn a_project_is_the_default_unless_named() {
        let project = |url| Named::from_url(url).unwrap().project;
        assert_eq!(project("/1.0/instances/c1"), Some("default".to_owned()));
        assert_eq!(project("/1.0/instances/c1?target=m&project=blah"), Some("blah".to_owned()));
        assert_eq!(project("/1.0/auth/groups/link?project=blah"), None);
        assert_eq!(Named::simple("identity", "ab").url(), "/1.0/auth/identities/tls/ab");
    }

    #[test]
    fn what_is_no_entitys_url_is_refused() {
        for bad in [
            "",
            "1.0",
            "/",
            "/1.0/",
            "/1.0//x",
            "/2.0",
            "/1.0/auth/groups",
            "/1.0/auth/groups/",
            "/1.0/images/x",
            "/1.0/auth/groups/%zz",
            "/1.0/auth/groups/%f",
            "/1.0/auth/groups/%ff",
            "/1.0/auth/groups/a/b",
            "/1.0/storage-pools/default/volumes/container/c1",
            "https://x/1.0/auth/groups/a",
        ] {
            assert!(bad == "/1.0/" || Named::from_url(bad).is_err(), "{bad}");
        }
    }
}
