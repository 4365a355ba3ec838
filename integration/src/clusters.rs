//! Two clusters that one operator applies declarations to: what most tests begin with.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{LIMIT, wait_for};
use crate::{Agent, Done, Operator};

/// Agents `east` and `west`, an operator known to both, and a folder of declarations.
#[derive(Debug)]
pub struct Clusters {
    pub east: Agent,
    pub west: Agent,
    pub operator: Operator,
    folder: TempDir,
}

impl Clusters {
    /// Two agents that know nothing of each other yet.
    pub fn start() -> Self {
        Self::between(Agent::prepare("east"), Agent::prepare("west"))
    }

    /// Two agents that are still to be launched.
    pub fn between(east: Agent, west: Agent) -> Self {
        Self::run_by(Operator::new(), east, west)
    }

    /// Two agents that are still to be launched, and who is to operate them.
    pub fn run_by(operator: Operator, mut east: Agent, mut west: Agent) -> Self {
        // Both at once: most of a start is making a key and a store.
        east.launch();
        west.launch();
        east.wait_ready();
        west.wait_ready();
        operator.trusted_by(&east);
        operator.trusted_by(&west);
        Self { east, west, operator, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The same, linked, with each side's `services` declared beside its half of the link, and the link ACTIVE.
    pub fn linked(east: &str, west: &str) -> Self {
        let clusters = Self::start();
        clusters.declare("east", east);
        clusters.declare("west", west);
        clusters.apply().success();
        clusters.wait_active();
        clusters
    }

    /// Writes one side's declarations: its manifest, group and half of the link, then `services`.
    pub fn declare(&self, side: &str, services: &str) {
        let other = if side == "east" { "west" } else { "east" };
        self.write(
            &format!("{side}/shop.hcl"),
            &format!(
                r#"
manifest "shop" {{
  cluster = "{side}"
}}
auth_group "clusters" {{
  description = "What linked clusters may do here"
  permissions = [{{ entity_type = "server", entitlement = "can_view_metrics" }}]
}}
cluster_link "{other}" {{
  auth_groups = ["clusters"]
}}
{services}
"#
            ),
        );
    }

    /// Writes a file of declarations.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Applies both sides' folders in one command.
    pub fn apply(&self) -> Done {
        self.run(&["apply", "east", "west", "--yes"])
    }

    /// Runs `comity ARGUMENTS` in the folder of declarations.
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.operator.run_in(self.folder.path(), arguments)
    }

    /// Runs `comity --remote SIDE ARGUMENTS --format json` and gives what it prints, `null` if it failed.
    pub fn ask(&self, side: &str, arguments: &[&str]) -> Value {
        let done = self.run(&[&["--remote", side, "--format", "json"], arguments].concat());
        if done.succeeded() { done.json() } else { Value::Null }
    }

    /// Waits until both halves of the link are ACTIVE.
    #[track_caller]
    pub fn wait_active(&self) {
        for (side, link) in [("east", "west"), ("west", "east")] {
            self.wait_state(side, link, "ACTIVE");
        }
    }

    /// Waits until `side` says that its half of `link` is in `state`.
    #[track_caller]
    pub fn wait_state(&self, side: &str, link: &str, state: &str) {
        let mut last = Value::Null;
        wait_for(&format!("link {link} of {side} is {state}"), LIMIT, || {
            last = self.ask(side, &["link", "list"]);
            let links = last.as_array()?;
            links.iter().any(|row| row["name"] == link && row["state"] == state).then_some(())
        });
    }

    /// A path beneath the folder of declarations.
    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }
}
