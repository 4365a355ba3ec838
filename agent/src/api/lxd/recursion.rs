//! Whether a list is to hold entries instead of their places (LXD: recursion).

use serde::{Deserialize, Deserializer};

/// How deep a list goes: 0 is places, 1 is entries, and a few lists know 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recursion(pub u8);

impl Recursion {
    /// Whether whole entries are wanted.
    pub fn whole(self) -> bool {
        self.0 > 0
    }
}

/// What is no number is none, as for LXD.
impl<'de> Deserialize<'de> for Recursion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(text.parse().unwrap_or_default()))
    }
}

/// The query of a list that takes nothing else.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Depth {
    #[serde(default)]
    pub recursion: Recursion,
}
