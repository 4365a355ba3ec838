//! What the black-box tests stand on: real agents as child processes, an operator with remotes of its own, servers
//! to talk to, and waiting for a condition instead of for a time.
//!
//! Every test makes all it needs, in a temporary folder, on ports of its own, and shares nothing; whatever it
//! started dies with it. What an agent logged is shown when its test fails.

mod agent;
pub mod authority;
pub mod binary;
pub mod certificate;
mod clusters;
mod command;
mod consul;
pub mod golden;
mod host;
pub mod http;
pub mod leaf;
pub mod liar;
mod lxc;
mod lxd;
mod manager;
pub mod measure;
pub mod oidc;
mod pebble;
pub mod peer;
mod port;
pub mod process;
mod proxy;
mod server;
pub mod tree;
mod wait;

pub use agent::Agent;
pub use authority::Authority;
pub use clusters::Clusters;
pub use command::Operator;
pub use consul::{Consul, ConsulCommand};
pub use host::{Host, Hosts};
pub use http::{Answer, Http};
pub use lxc::{Lxc, Transcript, consul, openmetrics, own_only, py_consul, pylxd, python};
pub use lxd::Lxd;
pub use manager::Manager;
pub use oidc::Provider;
pub use pebble::{Pebble, PebbleOptions};
pub use port::free_port;
pub use process::{Done, Running};
pub use proxy::Proxy;
pub use server::{Server, shout};
pub use wait::{LIMIT, wait_for};
