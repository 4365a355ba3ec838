//! The clusters that this command line knows: `config.toml` and the certificates beside it.

use std::path::PathBuf;

use super::failure::CliError;

/// The folder that the command line keeps its state in.
#[derive(Debug, Clone)]
pub struct Remotes {
    folder: PathBuf,
}

impl Remotes {
    /// `$COMITY_CONFIG_DIR`, or `comity` in the XDG configuration folder.
    pub fn locate() -> Result<Self, CliError> {
        Ok(Self { folder: PathBuf::new() })
    }
}
