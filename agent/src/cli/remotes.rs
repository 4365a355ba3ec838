//! The clusters that this command line knows (LXD: remotes): which there are and which is the default.
//!
//! Pure: what is on disk is `folder`'s business. `local`, the agent of this machine by its unix socket, is always
//! there and never changed. Messages are LXD's where LXD has one.

use std::collections::BTreeMap;

use schema::name::{ProjectName, RemoteName};
use serde::{Deserialize, Serialize};

pub mod folder;
mod login_files;

pub use folder::{Folder, FolderError};
pub use login_files::LoginFiles;

/// The remote that is always there.
pub const LOCAL: &str = "local";

/// The port of an agent, where an address names none.
pub const DEFAULT_PORT: u16 = 8443;

/// What `config.toml` holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remotes {
    /// `None`, before a remote was added or chosen: `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default: Option<RemoteName>,
    #[serde(default)]
    remotes: BTreeMap<RemoteName, Remote>,
}

/// A cluster reached over the network. Its certificate is in `servercerts/NAME.crt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// `host:port`; raced when it is called.
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub auth_type: AuthType,
    #[serde(default, skip_serializing_if = "is_usual")]
    pub protocol: Protocol,
    /// Where what belongs to a project is looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
}

/// How this command line is known there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthType {
    /// By its certificate.
    #[default]
    Tls,
    /// By a login: `oidctokens/NAME.json`, `jars/NAME`.
    Oidc,
    /// Not at all: only what anybody may do is asked of it (LXD: a public remote).
    None,
}

/// The agent of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// As lists show it.
    pub url: String,
    /// Whether its socket is there.
    pub answers: bool,
}

/// What answers there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Comity,
    /// A stock LXD: what goes beyond its API does not work with it.
    Lxd,
}

fn is_usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why the list of remotes cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemotesError {
    #[error("Remote {0} does not exist")]
    Unknown(RemoteName),
    #[error("Remote {name} exists as <{url}>")]
    ExistsAs { name: RemoteName, url: String },
    #[error("Remote {0} already exists")]
    Exists(RemoteName),
    #[error("Remote {0} is static and cannot be modified")]
    Static(RemoteName),
    #[error("Cannot remove the default remote")]
    RemovesDefault,
}

/// A remote as `remote list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    pub name: String,
    pub url: String,
    pub protocol: &'static str,
    pub auth_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectName>,
    pub public: bool,
    #[serde(rename = "static")]
    pub fixed: bool,
    pub current: bool,
}

impl AuthType {
    /// As lists show it.
    pub fn word(self) -> &'static str {
        match self {
            AuthType::Tls => "tls",
            AuthType::Oidc => "oidc",
            AuthType::None => "none",
        }
    }
}

impl Protocol {
    /// As lists show it.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Comity => "comity",
            Protocol::Lxd => "lxd",
        }
    }
}

impl Remote {
    /// As lists show it: the first address.
    pub fn url(&self) -> String {
        format!("https://{}", self.addresses.first().map_or("", String::as_str))
    }
}

impl Remotes {
    /// The remote that is talked to unless another is asked for; `None` for `local`.
    pub fn chosen(&self) -> Option<&RemoteName> {
        self.default.as_ref().filter(|name| name.as_str() != LOCAL)
    }

    /// The name of the default remote.
    pub fn default_name(&self) -> &str {
        self.default.as_ref().map_or(LOCAL, RemoteName::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.remotes.is_empty()
    }

    pub fn get(&self, name: &RemoteName) -> Result<&Remote, RemotesError> {
        self.remotes.get(name).ok_or_else(|| RemotesError::Unknown(name.clone()))
    }

    /// Fails, if `name` is taken.
    pub fn vacant(&self, name: &RemoteName, local_url: &str) -> Result<(), RemotesError> {
        let url = match self.remotes.get(name) {
            _ if name.as_str() == LOCAL => local_url.to_owned(),
            Some(remote) => remote.url(),
            None => return Ok(()),
        };
        Err(RemotesError::ExistsAs { name: name.clone(), url })
    }

    /// Adds a remote. The first becomes the default where there is no agent on this machine.
    pub fn add(&mut self, name: RemoteName, remote: Remote, local: &Local) -> Result<(), RemotesError> {
        self.vacant(&name, &local.url)?;
        if !local.answers {
            self.default.get_or_insert_with(|| name.clone());
        }
        self.remotes.insert(name, remote);
        Ok(())
    }

    pub fn rename(&mut self, from: &RemoteName, to: RemoteName) -> Result<(), RemotesError> {
        changeable(from)?;
        self.get(from)?;
        if to.as_str() == LOCAL || self.remotes.contains_key(&to) {
            return Err(RemotesError::Exists(to));
        }
        if self.default.as_ref() == Some(from) {
            self.default = Some(to.clone());
        }
        if let Some(remote) = self.remotes.remove(from) {
            self.remotes.insert(to, remote);
        }
        Ok(())
    }

    /// Says where a remote is reached from now on. Its certificate stays the one that it must show.
    pub fn set_addresses(&mut self, name: &RemoteName, addresses: Vec<String>) -> Result<(), RemotesError> {
        changeable(name)?;
        match self.remotes.get_mut(name) {
            Some(remote) => remote.addresses = addresses,
            None => return Err(RemotesError::Unknown(name.clone())),
        }
        Ok(())
    }

    pub fn remove(&mut self, name: &RemoteName) -> Result<(), RemotesError> {
        changeable(name)?;
        self.get(name)?;
        if self.default.as_ref() == Some(name) && self.remotes.len() > 1 {
            return Err(RemotesError::RemovesDefault);
        }
        self.remotes.remove(name);
        if self.default.as_ref() == Some(name) {
            // Nothing is left to choose from but `local`.
            self.default = None;
        }
        Ok(())
    }

    pub fn switch(&mut self, name: RemoteName) -> Result<(), RemotesError> {
        if name.as_str() != LOCAL {
            self.get(&name)?;
        }
        self.default = Some(name);
        Ok(())
    }

    /// Every remote in order of name, `local` among them.
    pub fn list(&self, local_url: &str) -> Vec<Listed> {
        let current = self.default_name();
        let local = Listed {
            name: LOCAL.to_owned(),
            url: local_url.to_owned(),
            protocol: Protocol::Comity.word(),
            auth_type: "file access",
            project: None,
            public: false,
            fixed: true,
            current: current == LOCAL,
        };
        let known = self.remotes.iter().map(|(name, remote)| Listed {
            name: name.to_string(),
            url: remote.url(),
            protocol: remote.protocol.word(),
            auth_type: remote.auth_type.word(),
            project: remote.project.clone(),
            public: remote.auth_type == AuthType::None,
            fixed: false,
            current: name.as_str() == current,
        });
        let mut all: Vec<Listed> = known.chain([local]).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// Refuses `local`, which is no entry of the list.
pub fn changeable(name: &RemoteName) -> Result<(), RemotesError> {
    if name.as_str() == LOCAL { Err(RemotesError::Static(name.clone())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOCKET: &str = "unix:///var/lib/comity/unix.socket";

    fn nobody() -> Local {
        Local { url: SOCKET.to_owned(), answers: false }
    }

    fn name(text: &str) -> RemoteName {
        text.parse().unwrap()
    }

    fn remote(address: &str) -> Remote {
        Remote { addresses: vec![address.to_owned()], ..Remote::default() }
    }

    #[test]
    fn the_first_remote_becomes_the_default_and_names_are_taken_once() {
        let mut remotes = Remotes::default();
        assert_eq!(remotes.default_name(), "local");
        remotes.add(name("east"), remote("10.0.0.1:8443"), &nobody()).unwrap();
        remotes.add(name("west"), remote("10.0.0.2:8443"), &nobody()).unwrap();
        assert_eq!(remotes.default_name(), "east");
        let taken = remotes.add(name("east"), remote("10.0.0.3:8443"), &nobody()).unwrap_err();
        assert_eq!(taken.to_string(), "Remote east exists as <https://10.0.0.1:8443>");
        // An agent on this machine stays the default.
        let mut beside = Remotes::default();
        beside.add(name("east"), remote("10.0.0.1:8443"), &Local { answers: true, ..nobody() }).unwrap();
        assert_eq!(beside.default_name(), "local");
        let fixed = remotes.add(name("local"), remote("10.0.0.3:8443"), &nobody()).unwrap_err();
        assert_eq!(fixed.to_string(), format!("Remote local exists as <{SOCKET}>"));
    }

    #[test]
    fn the_default_follows_a_rename_and_is_not_removed_while_there_is_a_choice() {
        let mut remotes = Remotes::default();
        remotes.add(name("east"), remote("a:1"), &nobody()).unwrap();
        remotes.add(name("west"), remote("b:1"), &nobody()).unwrap();
        remotes.rename(&name("east"), name("orient")).unwrap();
        assert_eq!(remotes.default_name(), "orient");
        assert_eq!(remotes.rename(&name("west"), name("orient")), Err(RemotesError::Exists(name("orient"))));
        assert_eq!(remotes.remove(&name("orient")), Err(RemotesError::RemovesDefault));
        remotes.switch(name("west")).unwrap();
        remotes.remove(&name("orient")).unwrap();
        remotes.remove(&name("west")).unwrap();
        assert_eq!(remotes.default_name(), "local");
        assert_eq!(remotes.remove(&name("local")), Err(RemotesError::Static(name("local"))));
        assert_eq!(remotes.switch(name("west")), Err(RemotesError::Unknown(name("west"))));
    }

    #[test]
    fn its_file_is_plain_and_a_key_too_many_is_refused() {
        let mut remotes = Remotes::default();
        remotes.add(name("eu.east-1"), remote("10.0.0.1:8443"), &nobody()).unwrap();
        let text = toml::to_string(&remotes).unwrap();
        assert_eq!(
            text,
            "default = \"eu.east-1\"\n\n[remotes.\"eu.east-1\"]\naddresses = [\"10.0.0.1:8443\"]\n"
        );
        assert_eq!(toml::from_str::<Remotes>(&text).unwrap(), remotes);
        assert!(toml::from_str::<Remotes>("[remotes.east]\naddress = \"x\"").is_err());
        let text = "[remotes.east]\naddresses = [\"a:1\"]\nauth_type = \"oidc\"\nprotocol = \"lxd\"\nproject = \"p\"\n";
        let mut remotes: Remotes = toml::from_str(text).unwrap();
        remotes.set_addresses(&name("east"), vec!["b:1".to_owned()]).unwrap();
        assert_eq!(toml::to_string(&remotes).unwrap(), text.replace("a:1", "b:1"));
        let listed = &remotes.list(SOCKET)[0];
        assert_eq!((listed.protocol, listed.auth_type, listed.public), ("lxd", "oidc", false));
    }
}
