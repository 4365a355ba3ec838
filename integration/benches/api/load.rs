//! h2load, from Debian's nghttp2-client, with a client certificate.
//!
//! It has no option for one, and OpenSSL's own configuration file takes none for all programs; so a library that is
//! loaded before OpenSSL gives each of its contexts one.

use std::path::{Path, PathBuf};
use std::process::Command;

const CONNECTIONS: u32 = 64;
const SECONDS: f64 = 3.0;

const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
extern int SSL_CTX_use_certificate_file(void *, const char *, int);
extern int SSL_CTX_use_PrivateKey_file(void *, const char *, int);
void *SSL_CTX_new(const void *method) {
  void *(*real)(const void *) = (void *(*)(const void *))dlsym(RTLD_NEXT, "SSL_CTX_new");
  void *ctx = real(method);
  if (ctx && (SSL_CTX_use_certificate_file(ctx, getenv("CLIENT_CRT"), 1) != 1
      || SSL_CTX_use_PrivateKey_file(ctx, getenv("CLIENT_KEY"), 1) != 1)) abort();
  return ctx;
}
"#;

/// h2load, ready to be run with the pair `client.crt` and `client.key` of a folder.
pub struct Load {
    folder: PathBuf,
    shim: PathBuf,
}

/// What it did.
pub struct Done {
    pub requests: f64,
    pub seconds: f64,
    /// Protocol, cipher and key exchange, as it says them.
    pub agreed: Vec<String>,
}

impl Load {
    pub fn new(folder: &Path) -> Self {
        let (source, shim) = (folder.join("shim.c"), folder.join("shim.so"));
        std::fs::write(&source, SHIM).expect("a file");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&shim).arg(&source).arg("-ldl").status();
        assert!(built.expect("a C compiler is there, as Rust needs one").success(), "the shim was not built");
        Self { folder: folder.to_owned(), shim }
    }

    /// Asks for `/1.0` over kept-alive connections for a while.
    pub fn run(&self, address: &str, protocol: &str) -> Done {
        let output = Command::new("h2load")
            .args(["--clients", &CONNECTIONS.to_string(), "--threads", "1"])
            .args(["--duration", &SECONDS.to_string(), "--warm-up-time", "1"])
            .args(["--npn-list", protocol, "--groups", "X25519"])
            .args(["--tls13-ciphers", "TLS_AES_128_GCM_SHA256"])
            .arg(format!("https://{address}/1.0"))
            .env("LD_PRELOAD", &self.shim)
            .env("CLIENT_CRT", self.folder.join("client.crt"))
            .env("CLIENT_KEY", self.folder.join("client.key"))
            .output()
            .expect("h2load is installed by integration/bench");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |prefix: &str| {
            let line = text.lines().find(|line| line.starts_with(prefix)).unwrap_or_default();
            line.split([' ', ',']).find_map(|word| word.parse::<f64>().ok())
        };
        let lines = |prefix: &str| text.lines().find(|line| line.starts_with(prefix)).map(str::to_owned);
        // requests: T total, S started, D done, K succeeded, …
        let status = lines("status codes:").unwrap_or_default();
        let requests = number("status codes:").unwrap_or(0.0);
        assert!(
            requests > 0.0 && status.contains(" 0 3xx, 0 4xx, 0 5xx"),
            "not every answer was good:\n{text}\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let agreed = ["TLS Protocol", "Cipher", "Server Temp Key", "Application protocol"];
        Done {
            requests,
            seconds: SECONDS,
            agreed: agreed.iter().filter_map(|prefix| lines(prefix)).collect(),
        }
    }
}
