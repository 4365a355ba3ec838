//! The walk of the article on remotes and migration, word for word as far as no instance has to run: with our command,
//! and with LXD's own where the article types it.

use std::fs;
use std::path::PathBuf;

use integration::{Agent, Lxc, Operator, own_only};

/// The machine that the article is typed on, the one that it calls foo, and somebody known to both.
struct Walk {
    here: Agent,
    foo: Agent,
    operator: Operator,
}

impl Walk {
    fn begin() -> Self {
        let (here, there) = (Agent::start("here"), Agent::start("foo"));
        let mut operator = Operator::new();
        operator.set_env("COMITY_SOCKET", here.socket().to_str().expect("temporary paths are UTF-8"));
        Self { here, foo: there, operator }
    }

    /// Runs a line of the article.
    fn types(&self, line: &str) -> integration::Done {
        self.operator.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// The names of an agent's instances.
    fn instances(&self, remote: &str) -> Vec<String> {
        let listed = self.operator.run(&["list", remote, "--format", "json"]).success().json();
        let names = listed.as_array().expect("a list").iter();
        names.map(|instance| instance["name"].as_str().expect("a name").to_owned()).collect()
    }
}

fn root(agent: &Agent, instance: &str) -> PathBuf {
    agent.data_dir().join("pools/default/containers").join(instance).join("rootfs")
}

#[test]
fn the_article_is_walked_through() {
    let walk = Walk::begin();
    // "The only real remote configured is local:, which also happens to be the default remote."
    assert_eq!(walk.types("remote get-default").success().stdout.trim(), "local");
    let token = Lxc::token(&walk.foo, "laptop");
    walk.types(&format!("remote add foo {token}")).success();
    let listed = walk.types("remote list").success().stdout;
    let rows: Vec<Vec<&str>> =
        listed.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()).collect();
    let row = |name: &str| rows.iter().find(|row| row.get(1) == Some(&name)).expect("the remote is listed");
    assert!(row("foo")[2].starts_with("https://"), "{listed}");
    assert_eq!(row("foo")[5..7], ["NO", "NO"], "{listed}");
    assert!(row("local (default)")[2].starts_with("unix://"), "{listed}");
    assert_eq!(row("local (default)")[5..7], ["NO", "YES"], "{listed}");
    assert_eq!(
        walk.types("remote remove local").exits(1).stderr.lines().next(),
        Some("Error: Remote local is static and cannot be modified")
    );

    // There are no images, and nothing runs: both are said.
    for line in ["launch ubuntu:14.04 c1", "launch ubuntu:14.04 foo:c1", "exec foo:c1 bash"] {
        let not_yet = walk.types(line).exits(1);
        assert!(not_yet.stderr.contains("not there yet"), "{line}: {}", not_yet.stderr);
    }
    walk.types("init foo:c1 --empty").success();
    let table = walk.types("list foo:").success().stdout;
    let head: Vec<&str> = table.lines().nth(1).expect("a head").split('|').map(str::trim).collect();
    assert_eq!(head[1..7], ["NAME", "STATE", "IPV4", "IPV6", "TYPE", "SNAPSHOTS"]);
    let first: Vec<&str> = table.lines().nth(3).expect("a row").split('|').map(str::trim).collect();
    assert_eq!(first[1..7], ["c1", "STOPPED", "", "", "CONTAINER", "0"]);
    fs::write(root(&walk.foo, "c1").join("hostname"), "c1\n").expect("a file");

    walk.types("copy foo:c1 c2").success();
    assert_eq!(fs::read_to_string(root(&walk.here, "c2").join("hostname")).expect("the copy"), "c1\n");
    walk.types("snapshot foo:c1 current").success();
    fs::write(root(&walk.foo, "c1").join("hostname"), "changed\n").expect("a file");
    walk.types("copy foo:c1/current c3").success();
    assert_eq!(fs::read_to_string(root(&walk.here, "c3").join("hostname")).expect("the copy"), "c1\n");

    let stopped = walk.types("stop foo:c1").exits(1);
    assert!(stopped.stderr.contains("already stopped"), "{}", stopped.stderr);
    walk.types("move foo:c1 local:").success();
    assert_eq!(walk.instances("local:"), ["c1", "c2", "c3"]);
    assert_eq!(walk.instances("foo:"), Vec::<String>::new());
    assert_eq!(fs::read_to_string(root(&walk.here, "c1").join("hostname")).expect("the move"), "changed\n");
    // "This example is functionally identical to": back, and by name.
    walk.types("move c1 foo:").success();
    walk.types("move foo:c1 c1").success();
    assert_eq!(walk.instances("foo:"), Vec::<String>::new());
    let there = walk.types("copy c2 c3").exits(1);
    assert!(there.stderr.contains("already exists"), "{}", there.stderr);
}

#[test]
fn lxd_s_own_command_walks_the_same_way() {
    if own_only() {
        return;
    }
    let walk = Walk::begin();
    let lxc = Lxc::new();
    lxc.add(&walk.foo);
    let types = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = lxc.command(&words);
        // Its local: is the agent of this machine.
        command.env("LXD_DIR", walk.here.data_dir());
        integration::process::run(&mut command, &format!("lxc {line}"), "")
    };
    types("init --empty foo:c1").success();
    types("snapshot foo:c1 current").success();
    fs::write(root(&walk.foo, "c1").join("hostname"), "c1\n").expect("a file");
    types("copy foo:c1 c2").success();
    types("copy foo:c1/current c3").success();
    types("move foo:c1 local:").success();
    let listed = types("list -c n -f csv").success().stdout;
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["c1", "c2", "c3"]);
    assert_eq!(types("list foo: -c n -f csv").success().stdout.trim(), "");
    assert_eq!(fs::read_to_string(root(&walk.here, "c1").join("hostname")).expect("the move"), "c1\n");
}
