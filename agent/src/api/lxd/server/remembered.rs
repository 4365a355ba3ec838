//! Answers to `GET /1.0` that were given before: most of them say the same as the last one to the same caller.
//!
//! An answer is remembered with everything that it was made of and given again only while all of that is the very
//! same, so nothing has to be told to forget it. Each thread remembers its own, so that none waits for another.

use std::cell::RefCell;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt as _;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use schema::name::ClusterName;

use crate::settings::Current;
use crate::trust::certificate::KeyPair;

/// So many callers in turn; who comes less often is answered anew.
const MOST: usize = 16;

/// Everything that an answer depends on.
pub struct Basis {
    pub settings: Arc<Current>,
    /// The certificate that clients are shown.
    pub shown: Arc<KeyPair>,
    pub addresses: Arc<[String]>,
    pub server: ClusterName,
    pub edits: bool,
    pub trusted: bool,
    pub client_certificate: bool,
    /// Whether the identity provider is there to log in by.
    pub logins: bool,
    pub method: Option<&'static str>,
    pub name: Option<String>,
}

struct Remembered {
    basis: Basis,
    headers: HeaderMap,
    body: Bytes,
}

thread_local! {
    static ANSWERS: RefCell<Vec<Remembered>> = const { RefCell::new(Vec::new()) };
}

impl Basis {
    fn is(&self, other: &Self) -> bool {
        // What is held cannot be freed, so no other can come to be at its place.
        Arc::ptr_eq(&self.settings, &other.settings)
            && Arc::ptr_eq(&self.shown, &other.shown)
            && Arc::ptr_eq(&self.addresses, &other.addresses)
            && (self.edits, self.trusted, self.client_certificate, self.logins, self.method)
                == (other.edits, other.trusted, other.client_certificate, other.logins, other.method)
            && self.name == other.name
            && self.server == other.server
    }
}

/// The answer that was given on this basis before, or the one that is made now.
pub fn answer(basis: Basis, make: impl FnOnce(&Basis) -> Response) -> Response {
    let before = ANSWERS.with_borrow(|answers| {
        let found = answers.iter().find(|one| one.basis.is(&basis))?;
        let mut response = Response::new(Body::from(found.body.clone()));
        *response.headers_mut() = found.headers.clone();
        Some(response)
    });
    before.unwrap_or_else(|| {
        let (head, body) = make(&basis).into_parts();
        // A body that was made whole is there at once.
        let Some(Ok(body)) = body.collect().now_or_never() else {
            return Response::from_parts(head, Body::empty());
        };
        let body = body.to_bytes();
        if head.status.is_success() {
            ANSWERS.with_borrow_mut(|answers| {
                if answers.len() >= MOST {
                    answers.remove(0);
                }
                answers.push(Remembered { basis, headers: head.headers.clone(), body: body.clone() });
            });
        }
        Response::from_parts(head, Body::from(body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Current;

    #[test]
    fn an_answer_is_given_again_only_on_the_very_same_basis() {
        let settings = Arc::new(Current::default());
        let shown = Arc::new(KeyPair::generate("east", &[]).unwrap());
        let addresses: Arc<[String]> = Arc::new(["127.0.0.1:1".to_owned()]);
        let basis = |name: &str, addresses: &Arc<[String]>| Basis {
            settings: settings.clone(),
            shown: shown.clone(),
            addresses: addresses.clone(),
            server: "east".parse().unwrap(),
            edits: true,
            trusted: true,
            client_certificate: true,
            logins: false,
            method: Some("tls"),
            name: Some(name.to_owned()),
        };
        let mut made = 0;
        let mut ask = |basis: Basis| {
            let response = answer(basis, |basis| {
                made += 1;
                Response::new(Body::from(format!("{:?}", basis.name)))
            });
            let body = response.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
            (String::from_utf8(body.to_vec()).unwrap(), made)
        };
        assert_eq!(ask(basis("a", &addresses)), ("Some(\"a\")".to_owned(), 1));
        assert_eq!(ask(basis("a", &addresses)), ("Some(\"a\")".to_owned(), 1));
        assert_eq!(ask(basis("b", &addresses)), ("Some(\"b\")".to_owned(), 2));
        // Equal is not the same: what was replaced is looked at again.
        let replaced: Arc<[String]> = addresses.to_vec().into();
        assert_eq!(ask(basis("a", &replaced)), ("Some(\"a\")".to_owned(), 3));
    }
}
