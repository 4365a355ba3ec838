//! Black-box tests against the real binary, all in one program: linking the agent's library once takes as long as
//! running most of them.

mod crash;
mod links;
mod traffic;
