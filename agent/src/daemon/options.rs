//! What an agent is told at its start: the command line's flags over a file's keys over what is usual.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema::name::ClusterName;
use serde::{Deserialize, Deserializer};

use super::logging::LogFormat;
use crate::files;
pub use crate::settings::{DEFAULT_PORT, Listen, Loopback};
use crate::trust::server_identity::PairFiles;

/// Larger than any configuration; a wrong path may lead to anything.
const MOST_BYTES: usize = 1024 * 1024;

pub const DEFAULT_DATA_DIR: &str = "/var/lib/comity";
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(10);

/// What was said, by flags or by a file. Every key of the file has a flag of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    pub name: Option<ClusterName>,
    pub data_dir: Option<PathBuf>,
    pub listen: Option<Listen>,
    pub advertise: Option<Vec<String>>,
    pub consul_http: Option<Loopback>,
    pub server_cert: Option<PathBuf>,
    pub server_key: Option<PathBuf>,
    pub cluster_ca: Option<PathBuf>,
    pub watch: Option<PathBuf>,
    pub worker_threads: Option<usize>,
    pub log_format: Option<LogFormat>,
    #[serde(default, deserialize_with = "read_duration")]
    pub drain_timeout: Option<Duration>,
}

/// What an agent runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Needed at the first start only, and must not change after it.
    pub name: Option<ClusterName>,
    pub data_dir: PathBuf,
    /// Where to listen; `None`: where the settings say, and where they do not, on every address.
    pub listen: Option<Listen>,
    /// Where others reach it, `host:port`; empty: worked out from what it listens on.
    pub advertise: Vec<String>,
    /// Where to serve Consul's API in the clear; `None`: nowhere.
    pub consul_http: Option<Loopback>,
    /// What clients are shown; `None`: `server.crt` of the data folder, and where there is none, the cluster's own.
    pub server: Option<PairFiles>,
    /// The authority that `comity ca initialize` made, whose users and nodes are known by their certificates.
    pub cluster_ca: Option<PathBuf>,
    pub watch: Option<PathBuf>,
    pub worker_threads: usize,
    pub log_format: LogFormat,
    pub drain_timeout: Duration,
}

/// Why an agent cannot be started as it was told.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    #[error("{} could not be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than 1 MiB: this is no configuration", .0.display())]
    TooLarge(PathBuf),
    #[error("{}: the name must end in .hcl or .toml", .0.display())]
    Language(PathBuf),
    #[error("{}{}: {reason}", path.display(), place.map(|(line, column)| format!(":{line}:{column}")).unwrap_or_default())]
    Malformed { path: PathBuf, place: Option<(usize, usize)>, reason: String },
    #[error("worker_threads must be from 1 to 1024, not {0}")]
    Threads(usize),
    #[error("{0:?} is not an address: write HOST:PORT")]
    Advertise(String),
    #[error("server_cert and server_key go together: give both, or neither")]
    HalfPair,
}

impl Given {
    /// Reads a configuration file; relative paths in it are relative to its folder.
    pub fn read(path: &Path) -> Result<Self, OptionsError> {
        let unreadable = |source| OptionsError::Unreadable { path: path.to_owned(), source };
        let bytes = files::contents(path).map_err(unreadable)?;
        if bytes.len() > MOST_BYTES {
            return Err(OptionsError::TooLarge(path.to_owned()));
        }
        let text = String::from_utf8(bytes)
            .map_err(|_| unreadable(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
        let mut settings = match path.extension().and_then(|e| e.to_str()) {
            Some("toml") => from_toml(&text),
            Some("hcl") => from_hcl(&text),
            _ => return Err(OptionsError::Language(path.to_owned())),
        }
        .map_err(|(place, reason)| OptionsError::Malformed {
            path: path.to_owned(),
            place,
            reason,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Given { data_dir, watch, server_cert, server_key, cluster_ca, .. } = &mut settings;
        for inner in [data_dir, watch, server_cert, server_key, cluster_ca].into_iter().flatten() {
            *inner = folder.join(&*inner);
        }
        Ok(settings)
    }

    /// These settings, with `under` for what they leave open.
    #[must_use]
    pub fn over(self, under: Self) -> Self {
        Self {
            name: self.name.or(under.name),
            data_dir: self.data_dir.or(under.data_dir),
            listen: self.listen.or(under.listen),
            advertise: self.advertise.or(under.advertise),
            consul_http: self.consul_http.or(under.consul_http),
            server_cert: self.server_cert.or(under.server_cert),
            server_key: self.server_key.or(under.server_key),
            cluster_ca: self.cluster_ca.or(under.cluster_ca),
            watch: self.watch.or(under.watch),
            worker_threads: self.worker_threads.or(under.worker_threads),
            log_format: self.log_format.or(under.log_format),
            drain_timeout: self.drain_timeout.or(under.drain_timeout),
        }
    }

    /// With what is usual for everything left open.
    pub fn finish(self) -> Result<Options, OptionsError> {
        let usual_threads = || std::thread::available_parallelism().map_or(1, usize::from);
        let worker_threads = self.worker_threads.unwrap_or_else(usual_threads);
        if !(1..=1024).contains(&worker_threads) {
            return Err(OptionsError::Threads(worker_threads));
        }
        let advertise = self.advertise.unwrap_or_default();
        let server = match (self.server_cert, self.server_key) {
            (Some(certificate), Some(key)) => Some(PairFiles { certificate, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(OptionsError::HalfPair),
        };
        Ok(Options {
            server,
            cluster_ca: self.cluster_ca,
            name: self.name,
            data_dir: self.data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR)),
            listen: self.listen,
            consul_http: self.consul_http,
            advertise: advertise.iter().map(|text| advertised(text)).collect::<Result<_, _>>()?,
            watch: self.watch,
            worker_threads,
            log_format: self.log_format.unwrap_or_default(),
            drain_timeout: self.drain_timeout.unwrap_or(DEFAULT_DRAIN),
        })
    }
}

/// A time as people write it: `10s`, `500ms`, `1h 30m`, `2d` (of 24 hours).
pub fn duration(text: &str) -> Result<Duration, String> {
    let explain = || "a time is a number and a unit, such as 500ms, 10s, 5m, 1h or 2d".to_owned();
    let span: jiff::Span = text.parse().map_err(|_| explain())?;
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| explain())?;
    Duration::try_from(signed).map_err(|_| explain())
}

fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| duration(&text)).transpose().map_err(serde::de::Error::custom)
}

fn advertised(text: &str) -> Result<String, OptionsError> {
    let wrong = || OptionsError::Advertise(text.to_owned());
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::from((ip, DEFAULT_PORT)).to_string());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "8443"));
    let named = !host.is_empty() && (host.starts_with('[') == host.ends_with(']'));
    if named && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port != 0) {
        Ok(format!("{host}:{port}"))
    } else {
        Err(wrong())
    }
}

type Fault = (Option<(usize, usize)>, String);

fn from_toml(text: &str) -> Result<Given, Fault> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let place = error.span().map(|span| line_and_column(text, span.start));
        (place, error.message().to_owned())
    })
}

fn from_hcl(text: &str) -> Result<Given, Fault> {
    hcl::from_str(text).map_err(|error| match error {
        hcl::Error::Parse(error) => {
            let at = error.location();
            (Some((at.line(), at.column())), error.message().to_owned())
        }
        // The decoder knows no places, but it names an unknown key between backticks.
        error => {
            let message = error.to_string();
            let key = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
            let at = key.and_then(|key| {
                let line = text.lines().find(|line| line.trim_start().starts_with(key))?;
                let line = line.trim_start();
                Some(line_and_column(text, line.as_ptr() as usize - text.as_ptr() as usize))
            });
            (at, message)
        }
    })
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Given, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let shown = format!("{}/", folder.path().display());
        Given::read(&path).map_err(|error| error.to_string().replace(&shown, ""))
    }

    #[test]
    fn hcl_and_toml_say_the_same() {
        let keys = "name = \"east\"\nlisten = \":9443\"\nadvertise = [\"east.example\"]\nworker_threads = 2\n\
                    log_format = \"json\"\ndrain_timeout = \"1m\"\ndata_dir = \"/srv/east\"\n";
        let settings = read("agent.toml", keys).unwrap();
        assert_eq!(read("agent.hcl", keys).unwrap(), settings);
        let options = settings.finish().unwrap();
        assert_eq!(options.listen, Some(Listen::Everywhere(9443)));
        assert_eq!(options.advertise, ["east.example:8443"]);
        assert_eq!(options.drain_timeout, Duration::from_secs(60));
    }

    #[test]
    fn faults_have_their_place() {
        let wrong = "name = \"east\"\n lisen = \":9443\"\n";
        for file in ["agent.hcl", "agent.toml"] {
            let message = read(file, wrong).unwrap_err();
            assert!(message.starts_with(&format!("{file}:2:2: unknown field `lisen`")), "{message}");
        }
        assert!(read("agent.hcl", "name = \n").unwrap_err().starts_with("agent.hcl:1:"));
        assert!(read("agent.json", "{}").unwrap_err().contains(".hcl or .toml"));
        let threads = Given { worker_threads: Some(0), ..Given::default() };
        assert!(matches!(threads.finish(), Err(OptionsError::Threads(0))));
    }

    #[test]
    fn what_never_ends_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let endless = folder.path().join("agent.toml");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        for path in [&endless, Path::new("/dev/zero")] {
            let message = Given::read(path).unwrap_err().to_string();
            assert!(message.ends_with("it is not a regular file"), "{message}");
        }
        std::fs::remove_file(&endless).unwrap();
        std::fs::File::create(&endless).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(Given::read(&endless), Err(OptionsError::TooLarge(_))));
    }

    #[test]
    fn flags_go_before_the_file() {
        let flags = Given { worker_threads: Some(1), ..Given::default() };
        let file = Given { worker_threads: Some(4), watch: Some("/etc/x".into()), ..Given::default() };
        let both = flags.over(file);
        assert_eq!((both.worker_threads, both.watch), (Some(1), Some("/etc/x".into())));
    }

    #[test]
    fn times_and_addresses_are_read_as_people_write_them() {
        for (text, milliseconds) in [("500ms", 500), ("10s", 10_000), ("1h", 3_600_000), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        assert!(duration("soon").is_err() && duration("-1s").is_err());
        assert_eq!(advertised("[::1]:9").unwrap(), "[::1]:9");
        assert_eq!(advertised("::1").unwrap(), "[::1]:8443");
        assert!(advertised("https://x:8443").is_err() && advertised("x:0").is_err());
    }
}
