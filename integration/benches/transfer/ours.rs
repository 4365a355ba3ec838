//! Two agents, and the command as an operator types it.

use std::path::{Path, PathBuf};
use std::process::Command;

use integration::{Clusters, binary};

use super::contender::{Contender, Deed};
use super::cost::{self, Wire};

const SOURCE: &str = "east:default/data";
const TARGET: &str = "west:default/data";

/// East has the source, west is where it goes.
pub struct Ours {
    clusters: Clusters,
    source: PathBuf,
}

impl Ours {
    pub fn start(wire: &Wire) -> Self {
        let clusters = Clusters::start();
        for agent in [&clusters.east, &clusters.west] {
            let address = agent.address();
            let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
            wire.count(port.expect("an address ends with its port"));
        }
        clusters.run(&["volume", "create", SOURCE]).success();
        let source = clusters.east.data_dir().join("pools/default/custom/data");
        assert!(source.is_dir(), "the volume's tree is where it was: {}", source.display());
        Self { clusters, source }
    }

    fn comity(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(binary::comity());
        command
            .args(arguments)
            .env("COMITY_CONFIG_DIR", self.clusters.operator.config_dir())
            .env_remove("COMITY_SOCKET")
            .env("NO_COLOR", "1");
        cost::run(&mut command)
    }
}

impl Contender for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn source(&self) -> &Path {
        &self.source
    }

    fn target(&self) -> PathBuf {
        self.clusters.west.data_dir().join("pools/default/custom/data")
    }

    fn processes(&self) -> Vec<u32> {
        [&self.clusters.east, &self.clusters.west].map(|agent| agent.pid().expect("the agent runs")).to_vec()
    }

    fn clear(&mut self) -> Result<(), String> {
        if self.target().exists() {
            return self.comity(&["volume", "delete", TARGET]);
        }
        Ok(())
    }

    fn does(&self, _deed: Deed) -> bool {
        true
    }

    fn run(&mut self, deed: Deed) -> Result<(), String> {
        match deed {
            Deed::Copy => self.comity(&["volume", "copy", SOURCE, TARGET]),
            Deed::Refresh => self.comity(&["volume", "copy", SOURCE, TARGET, "--refresh"]),
            Deed::Snapshot(name) => self.comity(&["volume", "snapshot", SOURCE, name]),
            Deed::Forget(name) => self.comity(&["volume", "delete", &format!("{SOURCE}/{name}")]),
        }
    }
}
