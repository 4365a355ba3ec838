//! The device authorization grant (RFC 8628), both sides of it: what a command line asks for, and the person who
//! approves it elsewhere.

use serde_json::Value;

use super::{Browser, Page, Provider};

/// What a device asks for by default: what LXD's does.
const SCOPES: &str = "openid email offline_access profile";

/// A code that somebody is to approve.
#[derive(Debug, Clone)]
pub struct DeviceCode {
    /// What the device shows to the provider.
    pub secret: String,
    /// What the device shows to the user.
    pub user_code: String,
    pub client: String,
}

/// What a login ends with.
#[derive(Debug, Clone)]
pub struct Tokens {
    pub access: String,
    pub refresh: Option<String>,
    pub id: Option<String>,
}

impl Tokens {
    #[track_caller]
    fn of(answer: &Value) -> Self {
        let token = |name: &str| answer[name].as_str().map(str::to_owned);
        let access = token("access_token").unwrap_or_else(|| panic!("no access token: {answer}"));
        Self { access, refresh: token("refresh_token"), id: token("id_token") }
    }
}

/// An access token alone.
impl From<&str> for Tokens {
    fn from(access: &str) -> Self {
        Self { access: access.to_owned(), refresh: None, id: None }
    }
}

impl From<&String> for Tokens {
    fn from(access: &String) -> Self {
        access.as_str().into()
    }
}

impl From<&Tokens> for Tokens {
    fn from(tokens: &Tokens) -> Self {
        tokens.clone()
    }
}

impl Provider {
    /// The whole login of `login` by a device, as `client`.
    #[track_caller]
    pub fn tokens(&self, client: &str, login: &str) -> Tokens {
        let code = self.device_code(client);
        self.approve(&code.user_code, login).ok();
        self.poll(&code).expect("it is approved")
    }

    /// Asks for a code.
    #[track_caller]
    pub fn device_code(&self, client: &str) -> DeviceCode {
        let fields = [("client_id", client), ("scope", SCOPES), ("prompt", "consent")];
        let answer = Browser::new().post(&format!("{}/device/auth", self.issuer()), &fields).ok().json();
        let text = |name: &str| answer[name].as_str().expect("a code").to_owned();
        DeviceCode { secret: text("device_code"), user_code: text("user_code"), client: client.to_owned() }
    }

    /// Asks what has become of a code; the error's name if there is no token.
    pub fn poll(&self, code: &DeviceCode) -> Result<Tokens, String> {
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &code.secret),
            ("client_id", &code.client),
        ];
        self.token(&fields)
    }

    /// New tokens for a refresh token.
    pub fn refresh(&self, client: &str, token: &str) -> Result<Tokens, String> {
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", client)])
    }

    fn token(&self, fields: &[(&str, &str)]) -> Result<Tokens, String> {
        let page = Browser::new().post(&format!("{}/token", self.issuer()), fields);
        match page.status {
            200 => Ok(Tokens::of(&page.json())),
            _ => Err(page.json()["error"].as_str().unwrap_or_default().to_owned()),
        }
    }

    /// Logs in as `login` and approves the code that a device shows. Gives the last page: of who has no account, that
    /// is no success.
    #[track_caller]
    pub fn approve(&self, user_code: &str, login: &str) -> Page {
        let mut browser = Browser::new();
        let page = self.enter(&mut browser, user_code, "confirm");
        let fields = [("prompt", "login"), ("login", login), ("password", "any")];
        let page = browser.post(&page.ok().action(), &fields);
        if page.status != 200 || !page.body.contains("name=\"prompt\"") {
            return page;
        }
        browser.post(&page.action(), &[("prompt", "consent")])
    }

    /// Refuses the code that a device shows.
    #[track_caller]
    pub fn deny(&self, user_code: &str) {
        self.enter(&mut Browser::new(), user_code, "abort");
    }

    /// Types the code in, and presses a button.
    #[track_caller]
    fn enter(&self, browser: &mut Browser, user_code: &str, button: &str) -> Page {
        let url = format!("{}/device", self.issuer());
        let page = browser.get(&format!("{url}?{}", super::form(&[("user_code", user_code)])));
        let xsrf = page.ok().input("xsrf");
        browser.post(&url, &[("xsrf", &xsrf), ("user_code", user_code), (button, "yes")])
    }
}
