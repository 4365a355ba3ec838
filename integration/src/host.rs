//! Machines of their own, as far as the network goes: namespaces joined by a router with a firewall.
//!
//! Needs root. Names carry the process's id, and everything goes when it is dropped, also by a panic.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process;

/// A router, and hosts around it, each in a network of its own.
#[derive(Debug)]
pub struct Hosts {
    router: String,
    hosts: Vec<Host>,
}

/// One of the hosts.
#[derive(Debug, Clone)]
pub struct Host {
    namespace: String,
    address: String,
}

impl Hosts {
    /// `None` where this user may not make any.
    pub fn start(count: u8) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: network namespaces are root's to make");
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // Filled as it is made, so that a panic leaves nothing behind.
        let mut made = Self { router: format!("comity-{id}-r"), hosts: Vec::new() };
        ip(&["netns", "add", &made.router]);
        made.on_router(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
        for number in 1..=count {
            let host =
                Host { namespace: format!("comity-{id}-{number}"), address: format!("10.77.{number}.2") };
            let (own, far) = (format!("10.77.{number}.2/24"), format!("10.77.{number}.1/24"));
            made.hosts.push(host.clone());
            ip(&["netns", "add", &host.namespace]);
            let port = format!("to{number}");
            ip(&[
                "link",
                "add",
                "eth0",
                "netns",
                &host.namespace,
                "type",
                "veth",
                "peer",
                "name",
                &port,
                "netns",
                &made.router,
            ]);
            for line in [
                vec!["addr", "add", &own, "dev", "eth0"],
                vec!["link", "set", "eth0", "up"],
                vec!["link", "set", "lo", "up"],
            ] {
                ip(&[&["-n", &host.namespace], line.as_slice()].concat());
            }
            ip(&["-n", &made.router, "addr", "add", &far, "dev", &port]);
            ip(&["-n", &made.router, "link", "set", &port, "up"]);
            let gateway = format!("10.77.{number}.1");
            ip(&["-n", &host.namespace, "route", "add", "default", "via", &gateway]);
        }
        ip(&["-n", &made.router, "link", "set", "lo", "up"]);
        Some(made)
    }

    pub fn host(&self, number: usize) -> &Host {
        &self.hosts[number]
    }

    /// The namespace between the hosts: whoever is in it reaches all of them, whatever the firewall says.
    pub fn router(&self) -> &str {
        &self.router
    }

    /// What passes between the hosts from now on: nftables' statements, asked in order; what none settles passes.
    pub fn firewall(&self, rules: &[&str]) {
        let table = format!(
            "flush ruleset\ntable ip between {{\n  chain forward {{\n    type filter hook forward priority 0; \
             policy accept;\n    {}\n  }}\n}}\n",
            rules.join("\n    ")
        );
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.router, "nft", "-f", "-"]);
        process::run(&mut command, "nft", &table).success();
    }

    fn on_router(&self, command: &[&str]) {
        ip(&[&["netns", "exec", &self.router], command].concat());
    }
}

impl Host {
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Runs `work` on this host. Sockets that it makes stay there, wherever they are used.
    pub fn on<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.namespace)).expect("the namespace is there");
        // A thread of its own, which ends with the work: threads do not go back.
        std::thread::scope(|scope| {
            let there = scope.spawn(move || {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may go there");
                work()
            });
            there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.hosts.iter().map(|host| &host.namespace).chain([&self.router]) {
            // What is in it goes with it. A panic in a panic would hide the first.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

fn ip(arguments: &[&str]) {
    process::run(Command::new("ip").args(arguments), &format!("ip {}", arguments.join(" ")), "").success();
}
