//! What a command costs, with those who work for it: time, processor time, memory, and bytes on the wire.
//!
//! Bytes are counted outside of those who send them: the benchmark runs in a network of its own, whose firewall counts
//! what goes from or to the ports of encrypted connections (whole packets, with their headers).

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use integration::measure::memory_mib;
use serde_json::Value;

/// Hundredths: what Linux has for user space on every architecture.
const TICKS_A_SECOND: f64 = 100.0;
/// Set once this process has a network of its own.
const ALONE: &str = "COMITY_BENCH_NETWORK";
const TABLE: &str = "table inet transfer {
  counter wire {}
  set ports { type inet_service; }
  chain sent {
    type filter hook output priority 0; policy accept;
    tcp dport @ports counter name wire
    tcp sport @ports counter name wire
  }
}
";

/// What one run cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    pub wall_s: f64,
    pub cpu_s: f64,
    /// `None` where nobody counts.
    pub bytes: Option<f64>,
    /// The most that any of those who work for it had.
    pub peak_mib: f64,
}

/// Goes on in a network of its own, where this user may make one; otherwise says why bytes are not counted.
pub fn enter_network() {
    if std::env::var_os(ALONE).is_some() || !rustix::process::geteuid().is_root() {
        return;
    }
    let program = std::env::current_exe().expect("the benchmark knows its own path");
    // Mounts stay: LXD wants to see them.
    let error = Command::new("unshare")
        .args(["--net", "--", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
        .arg(program)
        .args(std::env::args().skip(1))
        .env(ALONE, "1")
        .exec();
    eprintln!("transfer: unshare: {error}: bytes on the wire are not counted");
}

/// The firewall's counter.
pub struct Wire {
    counts: bool,
}

impl Wire {
    pub fn start() -> Self {
        let counts = std::env::var_os(ALONE).is_some() && nft(&["-f", "-"], TABLE).is_some();
        Self { counts }
    }

    /// Whether nothing but loopback is to be reached from here.
    pub fn is_alone() -> bool {
        std::env::var_os(ALONE).is_some()
    }

    /// Counts what goes from or to this port, too.
    pub fn count(&self, port: u16) {
        if self.counts {
            let added = nft(&["add", "element", "inet", "transfer", "ports", &format!("{{ {port} }}")], "");
            added.expect("nft takes a port");
        }
    }

    fn bytes(&self) -> Option<f64> {
        if !self.counts {
            return None;
        }
        let said = nft(&["-j", "list", "counter", "inet", "transfer", "wire"], "")?;
        let said: Value = serde_json::from_str(&said).ok()?;
        said["nftables"].as_array()?.iter().find_map(|item| item["counter"]["bytes"].as_f64())
    }

    /// Runs what costs something, on account of these processes and of all children that it waits for.
    pub fn measure(
        &self,
        processes: &[u32],
        settle: &Path,
        run: impl FnOnce() -> Result<(), String>,
    ) -> Result<Cost, String> {
        // What others have still to write is not on this one's account.
        sync(settle);
        for pid in processes {
            // The highest mark of its memory begins anew.
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
        let (bytes, cpu) = (self.bytes(), cpu_s(processes));
        let began = Instant::now();
        run()?;
        let wall_s = began.elapsed().as_secs_f64();
        Ok(Cost {
            wall_s,
            cpu_s: cpu_s(processes) - cpu,
            bytes: self.bytes().zip(bytes).map(|(after, before)| after - before),
            peak_mib: processes.iter().filter_map(|pid| memory_mib(*pid, "VmHWM")).fold(0.0, f64::max),
        })
    }
}

/// Has the file system that a path is on written to the disk.
pub fn sync(path: &Path) {
    let folder = File::open(path).expect("a folder");
    rustix::fs::syncfs(folder).expect("a file system can be synced");
}

/// Runs a command to its end; how it failed, if it did.
pub fn run(command: &mut Command) -> Result<(), String> {
    let said = tempfile::NamedTempFile::new().expect("a temporary file");
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said.reopen().expect("a second handle"))
        .status()
        .map_err(|error| format!("{program}: {error}; integration/bench installs what is needed"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", std::fs::read_to_string(said.path()).unwrap_or_default().trim()))
}

fn nft(arguments: &[&str], input: &str) -> Option<String> {
    let done = integration::process::run(Command::new("nft").args(arguments), "nft", input);
    if !done.succeeded() {
        eprintln!("transfer: nft: {}: bytes on the wire are not counted", done.stderr.trim());
    }
    done.succeeded().then_some(done.stdout)
}

/// Processor time of these with their children that have ended, and of this process's children that have ended.
fn cpu_s(processes: &[u32]) -> f64 {
    let own = fields("/proc/self/stat").map_or(0.0, |[_, _, user, system]| user + system);
    let others: f64 = processes.iter().filter_map(|pid| fields(&format!("/proc/{pid}/stat"))).flatten().sum();
    (own + others) / TICKS_A_SECOND
}

/// User and system time of a process, and of its children that it has waited for.
fn fields(path: &str) -> Option<[f64; 4]> {
    let stat = std::fs::read_to_string(path).ok()?;
    // The name, in brackets, may hold anything; after it come fields 3 and on.
    let rest = stat.rsplit_once(')')?.1;
    let mut fields = rest.split_ascii_whitespace().skip(11).map(|field| field.parse::<u32>().map(f64::from));
    let mut next = || fields.next()?.ok();
    Some([next()?, next()?, next()?, next()?])
}
