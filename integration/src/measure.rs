//! What a process costs, as the kernel accounts it, and numbers that many runs come to.
//!
//! Read from `/proc`: the kernel's account of a child that has ended is there until it is waited for, and the most
//! memory that it ever had is kept up to date while it runs. `wait4` would tell both at once, but has no safe binding
//! among the crates that are used here. Processor time comes in hundredths of a second.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};

use crate::binary;

/// Hundredths: what Linux has for user space on every architecture.
const TICKS_A_SECOND: f64 = 100.0;
const KIB_A_MIB: f64 = 1024.0;
/// How often the memory of a running command is looked at: its highest mark is kept by the kernel, so that only
/// what it gains in its last moment is missed.
const LOOKED_AT_EVERY: Duration = Duration::from_micros(500);

/// What a command cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub wall_s: f64,
    pub cpu_s: f64,
    pub peak_mib: f64,
    pub code: Option<i32>,
}

/// Runs `comity ARGUMENTS` with a configuration folder, and measures it.
pub fn command(config_dir: &Path, folder: &Path, arguments: &[&str]) -> Cost {
    let began = Instant::now();
    let mut child = Command::new(binary::comity())
        .args(arguments)
        .current_dir(folder)
        .env("COMITY_CONFIG_DIR", config_dir)
        .env_remove("COMITY_SOCKET")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("the command starts");
    let pid = child.id();
    let mut peak_mib = 0.0_f64;
    while !has_ended(&child) {
        peak_mib = peak_mib.max(memory_mib(pid, "VmHWM").unwrap_or(0.0));
        std::thread::sleep(LOOKED_AT_EVERY);
    }
    let wall_s = began.elapsed().as_secs_f64();
    let cpu_s = cpu_s(pid).unwrap_or(0.0);
    let code = child.wait().expect("a child can be waited for").code();
    Cost { wall_s, cpu_s, peak_mib, code }
}

/// Whether it has ended; its account stays until it is waited for.
fn has_ended(child: &Child) -> bool {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(pid), options).expect("a child can be asked").is_some()
}

/// Processor time of a process and its threads so far, seconds.
pub fn cpu_s(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything; after it come fields 3 and on.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u32 = fields.nth(11)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    Some((f64::from(user) + f64::from(system)) / TICKS_A_SECOND)
}

/// A field of `/proc/PID/status`, such as `VmRSS` (resident now) or `VmHWM` (the most ever), in MiB.
pub fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u32 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(f64::from(kib) / KIB_A_MIB)
}

/// The middle one.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    percentile(values, 50)
}

/// The least value that so many of a hundred do not exceed.
pub fn percentile(values: impl IntoIterator<Item = f64>, percent: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(at).copied().unwrap_or(f64::NAN)
}

/// A result beside its goal; nothing is made of whether it was met, since machines differ.
pub fn beside(value: f64, goal: f64, unit: &str) -> Value {
    json!({ "value": rounded(value), "goal": goal, "unit": unit })
}

/// A result that has no goal of its own.
pub fn alone(value: f64, unit: &str) -> Value {
    json!({ "value": rounded(value), "unit": unit })
}

fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

/// Whether the program under test is what users get; a debug build's numbers mean nothing.
pub fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug" } else { "release" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let values = || (1..=100).map(f64::from);
        assert!((median(values()) - 50.0).abs() < f64::EPSILON);
        assert!((percentile(values(), 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile([3.0], 99) - 3.0).abs() < f64::EPSILON);
        assert!(median([]).is_nan());
    }

    #[test]
    fn this_process_has_an_account() {
        let pid = std::process::id();
        assert!(cpu_s(pid).is_some_and(|cpu| cpu >= 0.0));
        let (now, most) = (memory_mib(pid, "VmRSS").unwrap(), memory_mib(pid, "VmHWM").unwrap());
        assert!(now > 0.1 && most > 0.1);
    }
}
