//! What a request about links asks for, and whether its content will do: LXD's rules, in its words, without I/O.

use std::collections::BTreeMap;

use http::StatusCode;
use schema::kind::cluster_link::{LinkType, USER_KEY, address};
use schema::name::{GroupName, LinkName};

use crate::api::lxd::answer::LxdError;
use crate::wire::cluster_link::{
    LinkPost, VOLATILE_ADDRESSES, VOLATILE_PENDING_ADDRESS, VOLATILE_PENDING_CERTIFICATE,
};

/// Keys that are the agent's own to set.
const VOLATILE: [&str; 3] = [VOLATILE_ADDRESSES, VOLATILE_PENDING_ADDRESS, VOLATILE_PENDING_CERTIFICATE];
/// Longest value of a free key.
const MAX_VALUE: usize = 4096;
/// Most free keys.
const MAX_KEYS: usize = 64;

/// What `POST /1.0/cluster/links` asks for: LXD tells it by which keys are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// A token for the peer, and the link that it is for.
    Pending(LinkName),
    /// A token for a caller, and nothing else here.
    PendingCaller(LinkName),
    /// The link, with the peer's token.
    WithToken(LinkName, LinkType),
    /// A peer brings a token of ours.
    Activation,
    /// A public link: its peer's certificate, for the asker to look at.
    Offer(LinkName, String),
    /// A public link: the certificate has been looked at.
    Confirm(LinkName),
}

/// Reads what is asked for. `trusted` is whether the asker is known here.
pub fn wish(post: &LinkPost, trusted: bool) -> Result<Wish, LxdError> {
    let kind = kind(&post.kind);
    let has_token = !post.trust_token.is_empty();
    if post.name.is_empty() && kind.as_ref().is_ok_and(|kind| *kind == LinkType::Public) && trusted {
        return Err(LxdError::bad_request("Cluster link name must be provided"));
    }
    if post.name.is_empty() {
        if !has_token {
            return Err(LxdError::new(StatusCode::FORBIDDEN, "Trust token required"));
        }
        let addresses = post.config.get(VOLATILE_ADDRESSES).is_some_and(|addresses| !addresses.is_empty());
        // Ours may have no address to give; LXD's always do, and that is how LXD knows the request.
        if !addresses && post.attempt_id.is_empty() {
            return Err(LxdError::bad_request(
                "Invalid cluster link request: expected one of pending creation (name without trust_token), active \
                 creation (name with trust_token), or activation (trust_token with non-empty \"volatile.addresses\")",
            ));
        }
        if kind? != LinkType::Bidirectional {
            return Err(LxdError::bad_request("Only bidirectional cluster links are activated this way"));
        }
        return Ok(Wish::Activation);
    }
    let name = name(&post.name)?;
    match kind? {
        LinkType::Public => public(name, post),
        _ if !post.remote_address.is_empty() => {
            Err(LxdError::bad_request("A remote address is only for public cluster links"))
        }
        kind if has_token => Ok(Wish::WithToken(name, kind)),
        LinkType::Bidirectional => Ok(Wish::Pending(name)),
        LinkType::Unidirectional => Ok(Wish::PendingCaller(name)),
    }
}

fn public(name: LinkName, post: &LinkPost) -> Result<Wish, LxdError> {
    if !post.trust_token.is_empty() {
        return Err(LxdError::bad_request("Public cluster links do not support trust tokens"));
    }
    if !post.auth_groups.is_empty() {
        return Err(LxdError::bad_request("Public cluster links do not support auth groups"));
    }
    if !post.cluster_certificate.is_empty() {
        return Ok(Wish::Confirm(name));
    }
    if post.remote_address.is_empty() {
        return Err(LxdError::bad_request("Public cluster links require remote_address"));
    }
    let given = post.remote_address.strip_prefix("https://").unwrap_or(&post.remote_address);
    match address::complete(given.trim_end_matches('/')) {
        Ok(address) => Ok(Wish::Offer(name, address)),
        Err(error) => Err(LxdError::bad_request(format!("Invalid remote_address: {error}"))),
    }
}

fn kind(text: &str) -> Result<LinkType, LxdError> {
    match text {
        "bidirectional" => Ok(LinkType::Bidirectional),
        "unidirectional" => Ok(LinkType::Unidirectional),
        "public" => Ok(LinkType::Public),
        "" => Err(LxdError::bad_request("Cluster link type must be provided")),
        _ => Err(LxdError::bad_request("Unknown cluster link type")),
    }
}

/// A link's name, by LXD's rules on top of ours.
pub fn name(text: &str) -> Result<LinkName, LxdError> {
    let invalid =
        |why: &dyn std::fmt::Display| LxdError::bad_request(format!("Invalid cluster link name: {why}"));
    if text.contains("..") {
        return Err(invalid(&"a name holds no \"..\""));
    }
    text.parse().map_err(|error| invalid(&error))
}

/// The groups that are named, sorted, each once.
pub fn groups(names: &[String]) -> Result<Vec<GroupName>, LxdError> {
    let group = |text: &String| {
        text.parse::<GroupName>()
            .map_err(|error| LxdError::bad_request(format!("Invalid auth group name: {error}")))
    };
    let mut groups = names.iter().map(group).collect::<Result<Vec<_>, _>>()?;
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// The free keys of what a creation gives; what is the agent's own to set is checked and passed over.
pub fn created_config(config: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, LxdError> {
    check_config(config)?;
    Ok(user_keys(config))
}

/// The free keys after a PUT: the agent's own must be there, as they are.
pub fn put_config(
    current: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LxdError> {
    check_config(given)?;
    if volatile(current).eq(volatile(given)) { Ok(user_keys(given)) } else { Err(not_to_be_changed()) }
}

/// The free keys after a PATCH: the agent's own may be left out, and no key goes.
pub fn patch_config(
    current: &BTreeMap<String, String>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LxdError> {
    check_config(given)?;
    if volatile(given).any(|(key, value)| current.get(key) != Some(value)) {
        return Err(not_to_be_changed());
    }
    let mut merged = user_keys(current);
    merged.extend(user_keys(given));
    if merged.len() > MAX_KEYS { Err(too_many()) } else { Ok(merged) }
}

fn not_to_be_changed() -> LxdError {
    LxdError::bad_request("Volatile configuration keys cannot be modified")
}

fn too_many() -> LxdError {
    LxdError::bad_request(format!("A cluster link has at most {MAX_KEYS} configuration keys"))
}

fn volatile(config: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, &String)> {
    config.iter().filter(|(key, _)| key.starts_with("volatile."))
}

fn user_keys(config: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let is_user = |(key, _): &(&String, &String)| key.starts_with(USER_KEY);
    config.iter().filter(is_user).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn check_config(config: &BTreeMap<String, String>) -> Result<(), LxdError> {
    if config.len() > MAX_KEYS + VOLATILE.len() {
        return Err(too_many());
    }
    for (key, value) in config {
        let free = key.strip_prefix(USER_KEY).is_some_and(|rest| !rest.is_empty());
        if !free && !VOLATILE.contains(&key.as_str()) {
            let shown: String = key.chars().take(64).collect();
            return Err(LxdError::bad_request(format!("Invalid cluster link configuration key {shown:?}")));
        }
        let invalid = |why: &dyn std::fmt::Display| {
            LxdError::bad_request(format!("Invalid cluster link configuration key {key:?} value: {why}"))
        };
        if free && value.len() > MAX_VALUE {
            return Err(invalid(&format_args!("it is longer than {MAX_VALUE} bytes")));
        }
        if key == VOLATILE_ADDRESSES && !value.is_empty() {
            value
                .split(',')
                .try_for_each(|part| address::check(part.trim()))
                .map_err(|error| invalid(&error))?;
        }
        if key == VOLATILE_PENDING_ADDRESS && !value.is_empty() {
            address::check(value).map_err(|error| invalid(&error))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(keys: &[(&str, &str)]) -> LinkPost {
        let mut post = LinkPost::default();
        for (key, value) in keys {
            let value = (*value).to_owned();
            match *key {
                "name" => post.name = value,
                "type" => post.kind = value,
                "token" => post.trust_token = value,
                "address" => post.remote_address = value,
                "certificate" => post.cluster_certificate = value,
                "group" => post.auth_groups.push(value),
                key => _ = post.config.insert(key.to_owned(), value),
            }
        }
        post
    }

    fn config(keys: &[(&str, &str)]) -> BTreeMap<String, String> {
        keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_is_asked_for_is_told_by_which_keys_are_there() {
        let asked = |keys: &[(&str, &str)]| wish(&post(keys), false);
        let link: LinkName = "west".parse().unwrap();
        let (name, token) = (("name", "west"), ("token", "t"));
        assert_eq!(asked(&[name, ("type", "bidirectional")]).unwrap(), Wish::Pending(link.clone()));
        assert_eq!(asked(&[name, ("type", "unidirectional")]).unwrap(), Wish::PendingCaller(link.clone()));
        assert_eq!(
            asked(&[name, token, ("type", "unidirectional")]).unwrap(),
            Wish::WithToken(link.clone(), LinkType::Unidirectional)
        );
        assert_eq!(
            asked(&[token, ("type", "bidirectional"), (VOLATILE_ADDRESSES, "a:1")]).unwrap(),
            Wish::Activation
        );
        let public = ("type", "public");
        assert_eq!(
            asked(&[name, public, ("address", "h")]).unwrap(),
            Wish::Offer(link.clone(), "h:8443".to_owned())
        );
        assert_eq!(asked(&[name, public, ("certificate", "c")]).unwrap(), Wish::Confirm(link));
        for (keys, status, says) in [
            (&[name][..], 400, "type must be provided"),
            (&[name, ("type", "one-way")], 400, "Unknown cluster link type"),
            (&[("type", "bidirectional")], 403, "Trust token required"),
            (&[token, ("type", "bidirectional")], 400, "expected one of pending creation"),
            (&[name, ("type", "bidirectional"), ("address", "h")], 400, "remote address"),
            (&[name, public], 400, "Public cluster links require remote_address"),
            (&[name, public, token, ("address", "h")], 400, "trust token"),
            (&[name, public, ("group", "g"), ("address", "h")], 400, "auth group"),
            (&[name, public, ("address", "h:0")], 400, "Invalid remote_address"),
        ] {
            let error = asked(keys).unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{keys:?}");
            assert!(error.message.contains(says), "{}", error.message);
        }
    }

    #[test]
    fn names_are_lxds() {
        for good in ["primary", "backup-cluster", "link123"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "link..bad", "a/b", "link?param=1", "link&other", "lïnk"] {
            assert!(name(bad).unwrap_err().message.starts_with("Invalid cluster link name: "), "{bad}");
        }
    }

    #[test]
    fn addresses_and_keys_are_lxds() {
        let addresses = |value: &str| created_config(&config(&[(VOLATILE_ADDRESSES, value)]));
        for good in ["1.2.3.4:8443", "[::1]:8443", "server.example.com:8443", "", "a:1,b:2"] {
            assert!(addresses(good).is_ok(), "{good}");
        }
        for bad in ["1.2.3.4", ":8443", "a:1,", "a:0"] {
            let message = addresses(bad).unwrap_err().message;
            assert!(
                message.starts_with("Invalid cluster link configuration key \"volatile.addresses\" value: "),
                "{message}"
            );
        }
        for bad in ["invalid.key", "foo", "user.", "volatile.uuid"] {
            let message = created_config(&config(&[(bad, "x")])).unwrap_err().message;
            assert_eq!(message, format!("Invalid cluster link configuration key {bad:?}"));
        }
        let kept = created_config(&config(&[(VOLATILE_ADDRESSES, "a:1"), ("user.a", "b")])).unwrap();
        assert_eq!(kept, config(&[("user.a", "b")]));
    }

    #[test]
    fn what_is_the_agents_to_set_stays_as_it_is() {
        let current = config(&[(VOLATILE_ADDRESSES, "a:1"), ("user.a", "1")]);
        let refused = "Volatile configuration keys cannot be modified";
        let put =
            |given: &[(&str, &str)]| put_config(&current, &config(given)).map_err(|error| error.message);
        assert_eq!(put(&[(VOLATILE_ADDRESSES, "a:1"), ("user.b", "2")]), Ok(config(&[("user.b", "2")])));
        for given in [
            &[(VOLATILE_ADDRESSES, "99.99.99.99:8443")][..],
            &[("user.b", "2")],
            &[(VOLATILE_ADDRESSES, "a:1"), (VOLATILE_PENDING_ADDRESS, "b:1")],
        ] {
            assert_eq!(put(given), Err(refused.to_owned()), "{given:?}");
        }
        let patch =
            |given: &[(&str, &str)]| patch_config(&current, &config(given)).map_err(|error| error.message);
        let both = config(&[("user.a", "1"), ("user.b", "2")]);
        assert_eq!(patch(&[("user.b", "2")]), Ok(both.clone()));
        assert_eq!(patch(&[(VOLATILE_ADDRESSES, "a:1"), ("user.b", "2")]), Ok(both));
        for given in [&[(VOLATILE_ADDRESSES, "b:1")][..], &[(VOLATILE_PENDING_ADDRESS, "b:1")]] {
            assert_eq!(patch(given), Err(refused.to_owned()), "{given:?}");
        }
    }
}
