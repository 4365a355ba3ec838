//! The identity provider that an agent names, and the endpoints that the provider names.

use std::fmt;

use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::LoginError;
use crate::web::is_here;
use crate::wire::printable;

/// What is asked for where the agent does not say.
const SCOPES: [&str; 4] = ["openid", "email", "offline_access", "profile"];
/// Longest value of those that an agent tells.
const MAX_VALUE: usize = 1024;

/// How to log in at an agent, in the agent's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provider {
    pub issuer: String,
    pub client_id: String,
    pub audience: Option<String>,
    pub scopes: Vec<String>,
}

/// Where the provider is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    pub token: String,
    pub device: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

impl Provider {
    /// What a refusal's headers say: LXD's, which name everything.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = |name: &str| {
            let text = headers.get(format!("x-lxd-oidc-{name}"))?.to_str().ok()?;
            (!text.is_empty() && text.len() <= MAX_VALUE).then(|| text.to_owned())
        };
        let told: Option<Vec<String>> = value("scopes").and_then(|json| serde_json::from_str(&json).ok());
        let scopes = told.unwrap_or_else(|| {
            // An LXD that names no scopes wants that of the groups, if there is one.
            SCOPES.map(str::to_owned).into_iter().chain(value("groups-claim")).collect()
        });
        Some(Self {
            issuer: value("issuer")?,
            client_id: value("clientid")?,
            audience: value("audience"),
            scopes: scopes.iter().map(|scope| printable(scope)).collect(),
        })
    }

    /// What `GET /1.0` tells everybody.
    pub fn from_config(config: &Map<String, Value>) -> Option<Self> {
        let value = |key: &str| {
            let text = config.get(key)?.as_str()?;
            (!text.is_empty() && text.len() <= MAX_VALUE).then(|| text.to_owned())
        };
        Some(Self {
            issuer: value("oidc.issuer")?,
            client_id: value("oidc.device.client.id").or_else(|| value("oidc.client.id"))?,
            audience: value("oidc.audience"),
            scopes: SCOPES.map(str::to_owned).to_vec(),
        })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(&self.issuer, &self.client_id))
    }
}

/// Whose login it is: what somebody compares before approving a code.
pub fn named(issuer: &str, client_id: &str) -> String {
    format!("{} (client {})", printable(issuer), printable(client_id))
}

/// Where the provider's discovery document is.
pub fn discovery_url(issuer: &str) -> Result<Uri, LoginError> {
    let wrong = |reason| LoginError::Url { url: printable(issuer), reason };
    if issuer.contains(['?', '#']) {
        return Err(wrong("an issuer has no query and no fragment"));
    }
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let uri: Uri = url.parse().map_err(|_| wrong("it is no address"))?;
    check_url(&uri, issuer)?;
    Ok(uri)
}

/// The endpoints in a discovery document, if it is that of `issuer`.
pub fn read_document(
    issuer: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Endpoints, LoginError> {
    let unexpected =
        |reason: String| LoginError::Unexpected { what: "its description (openid-configuration)", reason };
    if status.is_redirection() {
        let to = headers.get(http::header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let to = printable(&to.chars().take(200).collect::<String>());
        return Err(LoginError::Redirected { issuer: printable(issuer), to });
    }
    if status.is_server_error() {
        return Err(LoginError::Unreachable {
            issuer: printable(issuer),
            reason: format!("it answered {status}"),
        });
    }
    if !status.is_success() {
        return Err(unexpected(status.to_string()));
    }
    let document: Document =
        serde_json::from_slice(body).map_err(|error| unexpected(printable(&error.to_string())))?;
    if document.issuer != issuer {
        let got = printable(&document.issuer.chars().take(200).collect::<String>());
        return Err(LoginError::OtherIssuer { issuer: printable(issuer), got });
    }
    for url in [Some(&document.token_endpoint), document.device_authorization_endpoint.as_ref()]
        .into_iter()
        .flatten()
    {
        let wrong = |reason| LoginError::Url { url: printable(url), reason };
        check_url(&url.parse().map_err(|_| wrong("it is no address"))?, url)?;
    }
    Ok(Endpoints { token: document.token_endpoint, device: document.device_authorization_endpoint })
}

/// Whether an address may be part of a login: https, or http on loopback.
pub fn check_url(uri: &Uri, shown: &str) -> Result<(), LoginError> {
    let wrong = |reason| Err(LoginError::Url { url: printable(shown), reason });
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return wrong("it names no host") };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return wrong("it names a user");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if is_here(host) => Ok(()),
        Some("http") => wrong("http is not safe"),
        _ => wrong("it is neither https nor http"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn an_agent_names_its_provider_in_headers_or_in_its_public_settings() {
        let named = headers(&[
            ("x-lxd-oidc-issuer", "https://idp"),
            ("x-lxd-oidc-clientid", "cli"),
            ("x-lxd-oidc-audience", "comity"),
            ("x-lxd-oidc-scopes", r#"["openid","email","groups"]"#),
            ("x-lxd-oidc-groups-claim", "groups"),
        ]);
        let provider = Provider::from_headers(&named).unwrap();
        assert_eq!(provider.scopes, ["openid", "email", "groups"]);
        assert_eq!(provider.audience.as_deref(), Some("comity"));
        let old = headers(&[
            ("x-lxd-oidc-issuer", "https://idp"),
            ("x-lxd-oidc-clientid", "cli"),
            ("x-lxd-oidc-audience", ""),
            ("x-lxd-oidc-groups-claim", "roles"),
        ]);
        let provider = Provider::from_headers(&old).unwrap();
        assert_eq!(provider.scopes, ["openid", "email", "offline_access", "profile", "roles"]);
        assert_eq!(provider.audience, None);
        assert_eq!(Provider::from_headers(&headers(&[("x-lxd-oidc-issuer", "https://idp")])), None);

        let config = json!({ "oidc.issuer": "https://idp", "oidc.device.client.id": "cli" });
        let provider = Provider::from_config(config.as_object().unwrap()).unwrap();
        assert_eq!((provider.issuer.as_str(), provider.client_id.as_str()), ("https://idp", "cli"));
        assert_eq!(Provider::from_config(&Map::new()), None);
    }

    #[test]
    fn an_issuer_is_https_or_loopback_and_calls_itself_what_the_agent_calls_it() {
        assert_eq!(
            discovery_url("https://idp.example/realm/").unwrap(),
            "https://idp.example/realm/.well-known/openid-configuration"
        );
        assert!(discovery_url("http://127.0.0.1:4000").is_ok() && discovery_url("http://[::1]:4000").is_ok());
        for wrong in ["http://idp.example", "ftp://idp", "idp", "", "https://idp?x=1", "https://a@b/", "/x"] {
            assert!(matches!(discovery_url(wrong), Err(LoginError::Url { .. })), "{wrong}");
        }
        let read = |issuer: &str, status: u16, headers: &HeaderMap, body: &Value| {
            let status = StatusCode::from_u16(status).unwrap();
            read_document(issuer, status, headers, body.to_string().as_bytes())
        };
        let good = json!({ "issuer": "https://idp", "token_endpoint": "https://idp/token" });
        assert_eq!(read("https://idp", 200, &HeaderMap::new(), &good).unwrap().device, None);
        let other = read("https://idp/", 200, &HeaderMap::new(), &good).unwrap_err();
        assert_eq!(other.to_string(), "the identity provider https://idp/ calls itself https://idp");
        let away = read("https://idp", 302, &headers(&[("location", "https://evil")]), &good).unwrap_err();
        assert!(
            away.to_string().ends_with("sends elsewhere, to https://evil; a login does not follow"),
            "{away}"
        );
        let plain = json!({ "issuer": "https://idp", "token_endpoint": "http://idp/token" });
        assert!(matches!(read("https://idp", 200, &HeaderMap::new(), &plain), Err(LoginError::Url { .. })));
        for (status, body) in [(404, &good), (200, &json!("x"))] {
            let error = read("https://idp", status, &HeaderMap::new(), body).unwrap_err();
            assert!(matches!(error, LoginError::Unexpected { .. }), "{error}");
        }
        assert!(matches!(
            read("https://idp", 503, &HeaderMap::new(), &good),
            Err(LoginError::Unreachable { .. })
        ));
    }
}
