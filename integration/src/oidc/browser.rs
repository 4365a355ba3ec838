//! As much of a web browser as a login page needs: cookies, forms, and following redirects by GET.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use crate::http::read_answer;
use crate::wait::LIMIT;

/// Redirects in a row.
const MOST_REDIRECTS: usize = 10;

/// Somebody who looks at pages, with cookies.
#[derive(Debug, Default)]
pub struct Browser {
    cookies: BTreeMap<String, String>,
}

/// What came back in the end.
#[derive(Debug)]
pub struct Page {
    pub url: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Page {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", self.url, self.body))
    }

    /// The page, if it is one.
    #[track_caller]
    #[allow(clippy::return_self_not_must_use)] // many callers want no more than that it was so
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}: {}", self.url, self.body);
        self
    }

    /// The value of the input of this name.
    #[track_caller]
    pub fn input(&self, name: &str) -> String {
        let found = self.body.split(&format!("name=\"{name}\" value=\"")).nth(1);
        let value = found.and_then(|rest| rest.split('"').next());
        value.unwrap_or_else(|| panic!("{}: there is no input {name}: {}", self.url, self.body)).to_owned()
    }

    /// Where its form goes.
    #[track_caller]
    pub fn action(&self) -> String {
        let found = self.body.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
        found.unwrap_or_else(|| panic!("{}: there is no form: {}", self.url, self.body)).to_owned()
    }
}

impl Browser {
    pub fn new() -> Self {
        Self::default()
    }

    #[track_caller]
    pub fn get(&mut self, url: &str) -> Page {
        self.try_get(url).unwrap_or_else(|error| panic!("GET {url}: {error}"))
    }

    /// Fills in a form and sends it off.
    #[track_caller]
    pub fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Page {
        let body = form(fields);
        self.follow("POST", url, &body).unwrap_or_else(|error| panic!("POST {url}: {error}"))
    }

    pub fn try_get(&mut self, url: &str) -> io::Result<Page> {
        self.follow("GET", url, "")
    }

    fn follow(&mut self, method: &str, url: &str, body: &str) -> io::Result<Page> {
        let mut page = self.send(method, url, body)?;
        for _ in 0..MOST_REDIRECTS {
            let location = page.headers.iter().find(|(name, _)| name == "location");
            let (300..400, Some((_, location))) = (page.status, location) else { return Ok(page) };
            let (host, _) = split(&page.url)?;
            let next =
                if location.starts_with('/') { format!("http://{host}{location}") } else { location.clone() };
            page = self.send("GET", &next, "")?;
        }
        Err(io::Error::other("redirects without an end"))
    }

    fn send(&mut self, method: &str, url: &str, body: &str) -> io::Result<Page> {
        let (host, path) = split(url)?;
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
        if !self.cookies.is_empty() {
            let cookies: Vec<String> =
                self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            text.extend(["cookie: ", &cookies.join("; "), "\r\n"]);
        }
        if method == "POST" {
            let length = body.len().to_string();
            text.extend([
                "content-type: application/x-www-form-urlencoded\r\ncontent-length: ",
                &length,
                "\r\n",
            ]);
        }
        text = text + "\r\n" + body;
        let mut stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(text.as_bytes())?;
        let (status, headers, body) = read_answer(&mut BufReader::new(stream))?;
        for (name, value) in &headers {
            let pair = value.split(';').next().and_then(|pair| pair.split_once('='));
            if let ("set-cookie", Some((cookie, value))) = (name.as_str(), pair) {
                // An empty one is one to forget.
                if value.is_empty() {
                    self.cookies.remove(cookie);
                } else {
                    self.cookies.insert(cookie.to_owned(), value.to_owned());
                }
            }
        }
        Ok(Page { url: url.to_owned(), status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

/// The host with its port, and the path with its query.
fn split(url: &str) -> io::Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| io::Error::other(format!("no http: {url}")))?;
    let at = rest.find('/').unwrap_or(rest.len());
    Ok((&rest[..at], if at == rest.len() { "/" } else { &rest[at..] }))
}

/// Fields as a form sends them.
pub fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Text as a URL holds it.
pub fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let parts = text.bytes().map(|byte| match byte {
        _ if plain(byte) => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    });
    parts.collect()
}
