//! Black-box tests against the real binary, all in one program: linking the agent's library once takes as long as
//! running most of them.

mod access;
mod acme;
mod apply;
mod ca;
mod ca_faults;
mod consul_cases;
mod consul_command;
mod crash;
mod declarations;
mod events;
mod failures;
mod groups;
mod hostile;
mod identities;
mod known_servers;
mod link_types;
mod links;
mod login;
mod lxc;
mod lxd_cases;
mod oidc;
mod oidc_hostile;
mod operations;
mod pki;
mod projects;
mod py_consul;
mod pylxd;
mod rotate;
mod seed_001;
mod server;
mod server_certificate;
mod traffic;
mod transfers;
mod trust;
mod watch;
