//! `comity config` on instances: LXD's verbs beside Consul's, and the same words as stock `lxc` prints.

use integration::{Agent, Lxc, Operator, own_only};

#[test]
fn an_instance_is_configured_as_with_lxc() {
    let east = Agent::start("east");
    let operator = Operator::new();
    let ok = |line: &str| operator.run_on(&east, &line.split(' ').collect::<Vec<_>>()).success().stdout;
    let refused = |line: &str, words: &str| {
        let done = operator.run_on(&east, &line.split(' ').collect::<Vec<_>>()).exits(1);
        assert!(done.stderr.contains(words), "{line}: {}", done.stderr);
    };
    ok("init c1 --empty -c limits.cpu=2");
    assert_eq!(ok("config get c1 limits.cpu"), "2\n");
    ok("config set c1 user.a=1 user.b=x=y");
    ok("config set c1 user.c value");
    let read = ["user.a", "user.b", "user.c"].map(|key| ok(&format!("config get c1 {key}")));
    assert_eq!(read, ["1\n", "x=y\n", "value\n"]);
    ok("config unset c1 user.a");
    assert_eq!(ok("config get c1 user.a"), "\n");
    refused("config set c1 no.such.key=1", "Unknown configuration key: no.such.key");
    refused("config get none user.a", "instance none does not exist");

    ok("config device add c1 eth0 nic name=eth0");
    refused("config device add c1 eth0 nic", "already exists");
    ok("config device set c1 eth0 mtu=1400");
    assert_eq!(ok("config device get c1 eth0 mtu"), "1400\n");
    ok("config device unset c1 eth0 mtu");
    refused("config device remove c1 root", "cannot be modified for individual instance");
    refused("config device remove c1 none", "Device doesn't exist");
    ok("config device override c1 root size=1GiB");
    assert_eq!(ok("config device list c1"), "eth0\nroot\n");
    assert_eq!(ok("config device get c1 root size"), "1GiB\n");
    ok("config device remove c1 root");

    ok("snapshot c1 s0");
    ok("config set c1 user.c=later");
    assert!(ok("config show c1/s0").contains("user.c: value"));
    assert!(ok("config show c1 --expanded").contains("pool: default"));
    refused("config show c1/none", "instance c1 has no snapshot none");
    // Without an instance it is the server's, and Consul's verbs are as they were.
    ok("config set user.note=here");
    assert_eq!(ok("config get user.note"), "here\n");
    assert!(ok("config show").contains("user.note: here"));
    ok("config unset user.note");
    assert_eq!(ok("config get user.note"), "\n");
    refused("config read --kind service-defaults --name none", "Error reading config entry");

    if own_only() {
        return;
    }
    let lxc = Lxc::trusted_by(&east);
    for line in
        ["config show c1", "config device list c1", "config get c1 limits.cpu", "config device show c1"]
    {
        let theirs = lxc.run(&line.split(' ').collect::<Vec<_>>()).success().stdout;
        assert_eq!(ok(line).trim_end(), theirs.trim_end(), "{line}");
    }
}
