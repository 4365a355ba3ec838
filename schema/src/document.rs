//! One document tree with spans for HCL, TOML and JSON.

/// What values may ask of the world outside the files. The world is the caller's: this crate does no I/O.
pub trait Inputs {
    /// The environment variable `name`, or why it cannot be had.
    fn env(&self, name: &str) -> Result<String, String>;
    /// The text of `wanted`, a path relative to the folder of `declaring_path`, or why it cannot be had.
    fn file(&self, declaring_path: &str, wanted: &str) -> Result<String, String>;
}

/// Inputs of a place that has none, such as a test or an editor: each request is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInputs;

impl Inputs for NoInputs {
    fn env(&self, _name: &str) -> Result<String, String> {
        Err("environment variables cannot be read here".to_owned())
    }

    fn file(&self, _declaring_path: &str, _wanted: &str) -> Result<String, String> {
        Err("files cannot be read here".to_owned())
    }
}
