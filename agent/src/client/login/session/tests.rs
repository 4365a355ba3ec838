//! Logins against a provider that says what the test wants.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;

/// What a provider answers a form: status and body.
type Answer = dyn Fn(&HashMap<String, String>) -> (u16, Value) + Send + Sync;

/// A provider on loopback, with a discovery document of its own; everything else is `answer`'s.
async fn provider(answer: Arc<Answer>) -> String {
    serving(move |issuer, path, form| match path {
        "/.well-known/openid-configuration" => (
            200,
            json!({
                "issuer": issuer, "token_endpoint": format!("{issuer}/token"),
                "device_authorization_endpoint": format!("{issuer}/device"),
            }),
        ),
        _ => answer(form),
    })
    .await
}

/// A server that answers with JSON; where that is a string and the status says so, it is where to go instead.
async fn serving(
    answer: impl Fn(&str, &str, &HashMap<String, String>) -> (u16, Value) + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let (own, answer) = (issuer.clone(), Arc::new(answer));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (own, answer) = (own.clone(), answer.clone());
            tokio::spawn(async move {
                let mut reader = BufReader::new(socket);
                let (mut line, mut length) = (String::new(), 0);
                reader.read_line(&mut line).await.unwrap();
                let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                while line.trim() != "" {
                    line.clear();
                    reader.read_line(&mut line).await.unwrap();
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                        length = value.trim().parse().unwrap();
                    }
                }
                let mut body = vec![0; length];
                reader.read_exact(&mut body).await.unwrap();
                let form = String::from_utf8(body).unwrap();
                let form = form.split('&').filter_map(|pair| pair.split_once('='));
                let form = form.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
                let (status, body) = answer(&own, &path, &form);
                let (to, body) = match body {
                    Value::String(to) => (format!("location: {to}\r\n"), String::new()),
                    body => (String::new(), body.to_string()),
                };
                let text = format!(
                    "HTTP/1.1 {status} X\r\n{to}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = reader.get_mut().write_all(text.as_bytes()).await;
            });
        }
    });
    issuer
}

/// What several commands share.
#[derive(Default)]
struct Shared {
    kept: Unkept,
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl Shelf for Shared {
    fn read(&self) -> Result<Kept, String> {
        self.kept.read()
    }

    fn keep_tokens(&self, tokens: &Tokens) -> Result<(), String> {
        self.kept.keep_tokens(tokens)
    }

    fn keep_cookie(&self, cookie: Option<&Cookie>) -> Result<(), String> {
        self.kept.keep_cookie(cookie)
    }

    fn alone(&self) -> Result<Box<dyn Any + Send>, String> {
        Ok(Box::new(self.alone.clone().blocking_lock_owned()))
    }
}

/// A login whose access token has ended.
fn ended(issuer: &str) -> Arc<Shared> {
    let shelf = Shared::default();
    let tokens = Tokens {
        issuer: issuer.to_owned(),
        client_id: "cli".to_owned(),
        access_token: Secret::new("old".to_owned()),
        id_token: None,
        refresh_token: Some(Secret::new("first".to_owned())),
        expiry: Some(Timestamp::UNIX_EPOCH),
    };
    shelf.keep_tokens(&tokens).unwrap();
    Arc::new(shelf)
}

fn session(shelf: &Arc<Shared>) -> Session {
    Session::new("east", shelf.clone(), None)
}

/// What a request of this login brings.
async fn sent(session: &Session) -> Result<(Option<String>, Option<String>), LoginError> {
    let mut headers = HeaderMap::new();
    session.introduce(&mut headers).await?;
    let value = |name| {
        let value = headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        value.filter(|value| value != "Bearer")
    };
    Ok((value(header::AUTHORIZATION), value(header::COOKIE)))
}

/// Each refresh token is taken once, as providers do that rotate them.
fn rotating(asked: Arc<AtomicUsize>) -> Arc<Answer> {
    Arc::new(move |form| {
        let nth = asked.fetch_add(1, Ordering::SeqCst);
        if nth > 0 || form.get("refresh_token").map(String::as_str) != Some("first") {
            return (400, json!({ "error": "invalid_grant" }));
        }
        (
            200,
            json!({ "access_token": "new", "token_type": "Bearer", "refresh_token": "second", "expires_in": 60 }),
        )
    })
}

#[tokio::test]
async fn several_commands_at_once_renew_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let shelf = ended(&provider(rotating(asked.clone())).await);
    let commands: Vec<Session> = (0..4).map(|_| session(&shelf)).collect();
    for one in futures::future::join_all(commands.iter().map(sent)).await {
        assert_eq!(one.unwrap().0.as_deref(), Some("Bearer new"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the second use of a refresh token would end the login");
    assert_eq!(shelf.read().unwrap().tokens.unwrap().refresh_token.unwrap().expose(), "second");
}

#[tokio::test]
async fn a_refused_token_is_renewed_and_a_renewed_one_that_is_refused_is_not() {
    let asked = Arc::new(AtomicUsize::new(0));
    let shelf = ended(&provider(rotating(asked)).await);
    let mut tokens = shelf.read().unwrap().tokens.unwrap();
    tokens.expiry = None;
    shelf.keep_tokens(&tokens).unwrap();
    let session = session(&shelf);
    let mut headers = HeaderMap::new();
    let used = session.introduce(&mut headers).await.unwrap();
    assert_eq!(headers[header::AUTHORIZATION], "Bearer old");
    session.renew(&used, &HeaderMap::new(), "expired").await.unwrap();
    // Another request of the same command, which was sent with the old one, needs nothing more.
    session.renew(&used, &HeaderMap::new(), "expired").await.unwrap();
    let used = session.introduce(&mut headers).await.unwrap();
    assert_eq!(headers[header::AUTHORIZATION], "Bearer new");
    let error = session.renew(&used, &HeaderMap::new(), "no email\u{1b}[2J").await.unwrap_err();
    assert_eq!(error.to_string(), "east does not accept the login: no email [2J");
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_has_ended_and_its_refresh_token_is_not_sent_again() {
    let asked = Arc::new(AtomicUsize::new(1));
    let shelf = ended(&provider(rotating(asked.clone())).await);
    for _ in 0..2 {
        let session = session(&shelf);
        // Without a token the agent says how to begin anew; nobody looks on here.
        assert_eq!(sent(&session).await.unwrap(), (None, None));
        let error = session.renew(&Used::default(), &HeaderMap::new(), "").await.unwrap_err();
        assert!(matches!(error, LoginError::Ended { .. }), "{error}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2, "it was asked once");
}

#[tokio::test]
async fn a_session_goes_on_while_the_provider_is_away() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let shelf = ended(&format!("http://{closed}"));
    let error = sent(&session(&shelf)).await.unwrap_err();
    assert!(matches!(error, LoginError::Unreachable { .. }), "{error}");
    // With a cookie nobody asks the provider.
    let headers = [(header::SET_COOKIE, HeaderValue::from_static("session=s; Max-Age=60"))];
    session(&shelf).heed(&headers.into_iter().collect()).await.unwrap();
    assert_eq!(sent(&session(&shelf)).await.unwrap(), (None, Some("session=s".to_owned())));
}

#[tokio::test]
async fn a_refresh_token_goes_to_no_other_provider() {
    let other = |document: Value, status: u16| async move {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let issuer = serving(move |_, path, _| {
            if path != "/.well-known/openid-configuration" {
                count.fetch_add(1, Ordering::SeqCst);
            }
            (status, document.clone())
        })
        .await;
        let error = sent(&session(&ended(&issuer))).await.unwrap_err();
        assert_eq!(asked.load(Ordering::SeqCst), 0);
        error
    };
    let evil = json!({ "issuer": "http://127.0.0.1:1", "token_endpoint": "http://127.0.0.1:1/token" });
    assert!(matches!(other(evil, 200).await, LoginError::OtherIssuer { .. }));
    assert!(matches!(other(json!("https://evil.example/"), 302).await, LoginError::Redirected { .. }));
}

#[tokio::test]
async fn a_login_waits_until_the_code_is_approved() {
    let polls = AtomicUsize::new(0);
    let issuer = provider(Arc::new(move |form| {
        if !form.contains_key("device_code") {
            assert_eq!(form["scope"], "openid+offline_access");
            assert_eq!((form["audience"].as_str(), form["prompt"].as_str()), ("comity", "consent"));
            return (
                200,
                json!({
                    "device_code": "dc", "user_code": "1234", "verification_uri": "https://idp/device",
                    "expires_in": 60, "interval": 1,
                }),
            );
        }
        match polls.fetch_add(1, Ordering::SeqCst) {
            0 => (400, json!({ "error": "authorization_pending" })),
            _ => (200, json!({ "access_token": "a", "token_type": "Bearer" })),
        }
    }))
    .await;
    let provider = Provider {
        issuer,
        client_id: "cli".to_owned(),
        audience: Some("comity".to_owned()),
        scopes: ["openid", "offline_access"].map(str::to_owned).to_vec(),
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let keep = seen.clone();
    let show =
        move |invited: &crate::client::login::Invitation| keep.lock().unwrap().push(invited.code.clone());
    let tokens = log_in(&Web::new().unwrap(), &provider, &show).await.unwrap();
    assert_eq!(tokens.access_token.expose(), "a");
    assert_eq!(*seen.lock().unwrap(), ["1234"]);
}

#[tokio::test]
async fn no_login_begins_by_itself_at_another_provider_or_for_another_client() {
    let shelf = ended("http://127.0.0.1:1");
    let tokens = Tokens { refresh_token: None, ..shelf.read().unwrap().tokens.unwrap() };
    shelf.keep_tokens(&tokens).unwrap();
    let show = |_: &crate::client::login::Invitation| panic!("nobody is to approve this");
    for (issuer, client) in [("http://127.0.0.1:2", "cli"), ("http://127.0.0.1:1", "bank")] {
        let session = Session::new("east", shelf.clone(), Some(Box::new(show)));
        let headers = [("x-lxd-oidc-issuer", issuer), ("x-lxd-oidc-clientid", client)]
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let error = session.renew(&Used::default(), &headers.into_iter().collect(), "").await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "east has logins judged by {issuer} (client {client}) now; \
                 this one was made at http://127.0.0.1:1 (client cli)"
            )
        );
        assert!(error.hint(Some("east")).unwrap().contains("`comity remote login east`"));
    }
}
