//! Who a provider says that somebody is.

use serde_json::Value;

use super::token::Claims;
use crate::trust::IdentityId;
use crate::trust::unseen::is_unseen;

/// Longest name, in characters.
const MAX_NAME: usize = 128;
/// Most groups of a claim, and the longest name of one, in bytes.
const MAX_GROUPS: usize = 1000;
const MAX_GROUP: usize = 255;

/// Somebody as the provider describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// By which they are known here.
    pub email: String,
    /// As lists show them.
    pub name: String,
}

/// Why somebody cannot be known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PersonFault {
    #[error(
        "the identity provider tells no mail address of this user, by which they would be known here: it must be \
         among what the scope \"email\" gives"
    )]
    NoEmail,
    #[error("the identity provider says that this user's mail address has not been verified")]
    Unverified,
    #[error("what the identity provider gives as this user's mail address is none")]
    NotAnEmail,
}

impl Person {
    /// From the claims of a token, or of what the provider says about its user.
    pub fn of(claims: &Claims) -> Result<Self, PersonFault> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let email = text("email").ok_or(PersonFault::NoEmail)?;
        // Some write it as a text. What is neither says nothing that could be relied on.
        if claims.get("email_verified").is_some_and(|value| value != true && value != "true") {
            return Err(PersonFault::Unverified);
        }
        let email = &address(email).ok_or(PersonFault::NotAnEmail)?;
        let name = text("name").or_else(|| text("preferred_username")).unwrap_or(email);
        let name: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        let name = if name.trim().is_empty() { email.clone() } else { name };
        Ok(Self { email: email.clone(), name })
    }
}

/// A mail address as it names somebody here: no two that look alike to people or are the same to mail servers. Only
/// ASCII is folded, since other letters may become another domain's.
fn address(text: &str) -> Option<String> {
    let (local, domain) = text.split_once('@')?;
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !is_unseen(c) && !matches!(c, '/' | '@');
    let good = !local.is_empty()
        && !domain.is_empty()
        && !local.starts_with('-')
        && local.chars().chain(domain.chars()).all(plain);
    let address = format!("{local}@{}", domain.to_ascii_lowercase());
    (good && matches!(address.parse(), Ok(IdentityId::Email(_)))).then_some(address)
}

/// Adds what the provider tells about a token's user to what the token says. What is said about an address being
/// verified counts for that address alone.
pub fn add_told(claims: &mut Claims, mut told: Claims) {
    match told.get("email") {
        None => {
            told.remove("email_verified");
        }
        other if other != claims.get("email") => {
            claims.remove("email_verified");
        }
        Some(_) => {}
    }
    claims.extend(told);
}

/// The groups that a claim lists; `None` where the claim is not there. What is no name is passed over.
pub fn groups(claims: &Claims, claim: &str) -> Option<Vec<String>> {
    let listed = match claims.get(claim)? {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        Value::String(one) => vec![one.as_str()],
        _ => Vec::new(),
    };
    let good = listed.into_iter().filter(|name| !name.is_empty() && name.len() <= MAX_GROUP);
    let mut groups: Vec<String> = good.take(MAX_GROUPS).map(str::to_owned).collect();
    groups.sort_unstable();
    groups.dedup();
    Some(groups)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { unreachable!() };
        claims
    }

    #[test]
    fn somebody_is_known_by_a_mail_address_that_the_provider_stands_behind() {
        let person = |value| Person::of(&claims(value));
        let alice = person(json!({ "email": "alice@example.com", "name": "Alice\u{1b}[1m" })).unwrap();
        assert_eq!((alice.email.as_str(), alice.name.as_str()), ("alice@example.com", "Alice[1m"));
        let named = |value| person(value).unwrap().name;
        assert_eq!(named(json!({ "email": "a@b", "name": " ", "email_verified": true })), "a@b");
        assert_eq!(named(json!({ "email": "a@b", "preferred_username": "al" })), "al");
        for (value, fault) in [
            (json!({ "name": "Alice" }), PersonFault::NoEmail),
            (json!({ "email": "" }), PersonFault::NoEmail),
            (json!({ "email": ["a@b"] }), PersonFault::NoEmail),
            (json!({ "email": "a@b", "email_verified": false }), PersonFault::Unverified),
            (json!({ "email": "a@b", "email_verified": "false" }), PersonFault::Unverified),
            (json!({ "email": "a@b", "email_verified": null }), PersonFault::Unverified),
            (json!({ "email": "a@b", "email_verified": "no" }), PersonFault::Unverified),
            (json!({ "email": "a b@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a@b@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a@" }), PersonFault::NotAnEmail),
            (json!({ "email": "-a@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a/b@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a\u{200b}@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a\u{202e}@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "a@c\u{2060}" }), PersonFault::NotAnEmail),
            (json!({ "email": "\u{feff}a@c" }), PersonFault::NotAnEmail),
            (json!({ "email": "0".repeat(64) }), PersonFault::NotAnEmail),
        ] {
            assert_eq!(person(value), Err(fault));
        }
    }

    #[test]
    fn a_domain_is_the_same_however_it_is_written() {
        let email = |text: &str| Person::of(&claims(json!({ "email": text }))).unwrap().email;
        assert_eq!(email("Alice@EXAMPLE.com"), "Alice@example.com");
        // The sign of kelvins is no k.
        assert_eq!(email("a@ban\u{212a}.example"), "a@ban\u{212a}.example");
    }

    #[test]
    fn what_is_said_of_one_address_is_not_said_of_another() {
        let person = |own, told| {
            let mut all = claims(own);
            add_told(&mut all, claims(told));
            Person::of(&all).map(|person| person.email)
        };
        let told = |value: Value| json!({ "email": "ceo@b", "email_verified": value });
        assert_eq!(
            person(json!({ "email": "a@b", "email_verified": true }), told(false.into())),
            Err(PersonFault::Unverified)
        );
        assert_eq!(
            person(told(false.into()), json!({ "email_verified": true })),
            Err(PersonFault::Unverified)
        );
        assert_eq!(person(told(false.into()), json!({ "email": "ceo@b" })), Err(PersonFault::Unverified));
        assert_eq!(
            person(told(false.into()), json!({ "email": "a@b", "email_verified": true })),
            Ok("a@b".to_owned())
        );
        assert_eq!(person(told(false.into()), json!({ "email": "a@b" })), Ok("a@b".to_owned()));
    }

    #[test]
    fn groups_are_names() {
        let of = |value| groups(&claims(json!({ "groups": value })), "groups").unwrap();
        assert_eq!(of(json!(["b", "a", 7, "", "a", { "x": 1 }])), ["a", "b"]);
        assert_eq!(of(json!("ops")), ["ops"]);
        assert!(of(json!({ "ops": true })).is_empty());
        assert_eq!(groups(&Claims::new(), "groups"), None);
        assert_eq!(of(json!((0..2000).map(|n| n.to_string()).collect::<Vec<_>>())).len(), 1000);
    }
}
