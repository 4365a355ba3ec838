//! `GET /1.0/resources`: the processors and the memory of the machine, in the form that LXD's extension `resources` has.

use std::num::NonZero;

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Serialize;

use super::answer::{self, LxdError};
use crate::api::ApiState;
use crate::authorize::{Entitlement, Entity, require_trust};
use crate::trust::Caller;
use crate::wire::volume::Usage;

pub fn router() -> Router<ApiState> {
    Router::new().route("/resources", get(show))
}

#[derive(Debug, Serialize)]
struct Resources {
    cpu: Processors,
    memory: Usage,
}

#[derive(Debug, Serialize)]
struct Processors {
    sockets: Vec<Socket>,
    total: usize,
}

/// Which processor is in which socket is not looked at: they are told of as one.
#[derive(Debug, Serialize)]
struct Socket {
    cores: usize,
    threads: usize,
    #[serde(rename = "socket")]
    number: usize,
}

async fn show(
    State(state): State<ApiState>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, LxdError> {
    require_trust(&caller)?;
    state.permit(&caller, Entitlement::CanViewResources, Entity::Server)?;
    let total = std::thread::available_parallelism().map_or(1, NonZero::get);
    let told = std::fs::read_to_string("/proc/meminfo").map_err(|error| LxdError::internal(&error))?;
    let sockets = vec![Socket { cores: total, threads: total, number: 0 }];
    Ok(answer::sync(Resources { cpu: Processors { sockets, total }, memory: memory(&told) }))
}

/// What `/proc/meminfo` says, in bytes. What could be had at once is not counted as used.
fn memory(told: &str) -> Usage {
    let of = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let count = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        count.unwrap_or_default().saturating_mul(1024)
    };
    let total = of("MemTotal");
    Usage { used: total.saturating_sub(of("MemAvailable")), total }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_the_kernel_says() {
        let told = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    6000000 kB\n";
        let used = memory(told);
        assert_eq!((used.total, used.used), (16_000_000 * 1024, 10_000_000 * 1024));
        assert_eq!(memory("nothing of it"), Usage::default());
    }
}
