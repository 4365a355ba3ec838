//! A real identity provider: npm's `oidc-provider` as a child process, and the person who logs in there.
//!
//! `integration/oidc/install` puts it into `target/oidc`; `integration/run` calls that.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::wait::{LIMIT, wait_for};
use crate::{free_port, own_only};

mod browser;
mod device;
mod hostile;

pub use browser::{Browser, Page, escaped, form};
pub use device::{DeviceCode, Tokens};
pub use hostile::{Hostile, Reply};

/// The client for command lines, which has no secret.
pub const DEVICE_CLIENT: &str = "comity-device";
/// The client for pages, and its secret.
pub const WEB_CLIENT: &str = "comity-web";
pub const WEB_SECRET: &str = "a-secret-of-the-provider";
/// A client of the same provider that has nothing to do with us.
pub const OTHER_CLIENT: &str = "another-application";

/// Lines of its log that a failed test shows.
const SHOWN: usize = 20;

/// A provider with a port and a folder that stay when it is stopped and started again: its keys and what it issued
/// are the same then. Killed when dropped.
#[derive(Debug)]
pub struct Provider {
    folder: TempDir,
    port: u16,
    told: Value,
    accounts: BTreeMap<String, Value>,
    child: Option<Child>,
}

impl Provider {
    /// Whether tests that need it can run.
    pub fn is_installed() -> bool {
        !own_only() && place().join("installed").exists() && place().join("run").exists()
    }

    /// One that runs and gives opaque access tokens that live for an hour.
    pub fn start() -> Self {
        let mut provider = Self::prepare();
        provider.launch();
        provider
    }

    /// One that is still to be launched.
    pub fn prepare() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let told = json!({
            "access": 3600, "device": 600, "refresh": 86400, "jwt": null, "algorithm": "RS256", "bare": false,
        });
        Self { folder, port: free_port(), told, accounts: BTreeMap::new(), child: None }
    }

    /// How many seconds its access tokens live.
    #[must_use]
    pub fn access_tokens_live(mut self, seconds: u32) -> Self {
        self.told["access"] = seconds.into();
        self
    }

    /// How many seconds a user has to approve a device's code.
    #[must_use]
    pub fn device_codes_live(mut self, seconds: u32) -> Self {
        self.told["device"] = seconds.into();
        self
    }

    /// How many seconds its refresh tokens live.
    #[must_use]
    pub fn refresh_tokens_live(mut self, seconds: u32) -> Self {
        self.told["refresh"] = seconds.into();
        self
    }

    /// Its access tokens are JWTs for this audience, a URI, with mail address and groups in them. It does not tell about the
    /// user (userinfo) for such a token, as the standard has it.
    #[must_use]
    pub fn jwt(mut self, audience: &str) -> Self {
        self.told["jwt"] = audience.into();
        self
    }

    /// Its JWTs are signed by this algorithm: RS256 or ES256.
    #[must_use]
    pub fn algorithm(mut self, algorithm: &str) -> Self {
        self.told["algorithm"] = algorithm.into();
        self
    }

    /// Its JWTs say nothing about the user but `sub`.
    #[must_use]
    pub fn bare(mut self) -> Self {
        self.told["bare"] = true.into();
        self
    }

    /// Somebody with an account, now or from now on.
    pub fn account(&mut self, login: &str, email: &str, groups: &[&str]) {
        let claims = json!({ "name": login, "email": email, "email_verified": true, "groups": groups });
        self.account_with(login, &claims);
    }

    /// The same with these claims: none are added.
    pub fn account_with(&mut self, login: &str, claims: &Value) {
        self.accounts.insert(login.to_owned(), claims.clone());
        let text = serde_json::to_string(&self.accounts).expect("JSON can be written");
        // Renamed into place: the provider may be reading.
        let (path, new) = (self.folder.path().join("accounts.json"), self.folder.path().join("accounts.new"));
        std::fs::write(&new, text).and_then(|()| std::fs::rename(new, path)).expect("a file");
    }

    /// Starts it, and waits until it answers.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the provider runs already");
        self.told["issuer"] = self.issuer().into();
        self.told["port"] = self.port.into();
        self.told["folder"] = self.folder.path().to_str().into();
        let modules = place().join("node_modules");
        self.told["modules"] = format!("{}/", modules.display()).into();
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let child = Command::new(place().join("run"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc/provider.mjs"))
            .arg(self.told.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle of the log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("the identity provider: {error}; run integration/oidc/install"));
        self.child = Some(child);
        wait_for("the identity provider is ready", LIMIT, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child can be asked"));
            assert!(ended.is_none(), "the identity provider ended: {ended:?}");
            let page = Browser::new().try_get(&format!("{}/.well-known/openid-configuration", self.issuer()));
            page.is_ok_and(|page| page.status == 200).then_some(())
        });
    }

    /// Stops it. Its port stays its own.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Gives it new keys, at once and without a trace of the old ones. Tokens that the old ones signed are no good.
    pub fn replace_keys(&mut self) {
        self.stop();
        std::fs::remove_file(self.folder.path().join("keys.json")).expect("it has keys");
        self.launch();
    }

    /// Its name: what `oidc.issuer` is set to.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }
}

/// Where it is installed.
fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/oidc")
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the end of the identity provider's log");
            for line in &lines[lines.len().saturating_sub(SHOWN)..] {
                eprintln!("{line}");
            }
        }
    }
}
