//! ETags as LXD makes them: SHA-256 over the JSON of what can be changed, and a line end.

use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::answer::LxdError;

/// The tag of `content`, without quotes.
pub fn of(content: &impl Serialize) -> String {
    use std::fmt::Write as _;
    // What is tagged is made of derived types with text keys, which always serialise.
    let mut text = serde_json::to_vec(content).unwrap_or_default();
    text.push(b'\n');
    let mut tag = String::with_capacity(64);
    for byte in Sha256::digest(&text) {
        // Writing to a String does not fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag
}

/// Puts the tag of `content` on an answer.
pub fn put(mut response: Response, content: &impl Serialize) -> Response {
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", of(content))) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Whether the request is for `content` as it is: without `If-Match` it is for any.
pub fn check(headers: &HeaderMap, content: &impl Serialize) -> Result<(), LxdError> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(()) };
    let ours = of(content);
    let given = given.to_str().unwrap_or_default();
    let matches = given.split(',').map(str::trim).any(|tag| tag == "*" || tag.trim_matches('"') == ours);
    if matches {
        return Ok(());
    }
    let theirs: String = given.trim_matches('"').chars().take(100).collect();
    Err(LxdError::new(
        StatusCode::PRECONDITION_FAILED,
        format!(
            "ETag does not match: {ours} vs {theirs}. The configuration has been modified since this change began."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_holds_for_what_it_was_made_of() {
        let mut headers = HeaderMap::new();
        assert!(check(&headers, &"a").is_ok());
        let tag = format!("\"{}\"", of(&"a"));
        headers.insert(header::IF_MATCH, tag.parse().unwrap());
        assert!(check(&headers, &"a").is_ok());
        let refused = check(&headers, &"b").unwrap_err();
        assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
        assert!(refused.message.starts_with("ETag does not match: "));
        headers.insert(header::IF_MATCH, HeaderValue::from_static("*"));
        assert!(check(&headers, &"b").is_ok());
    }
}
