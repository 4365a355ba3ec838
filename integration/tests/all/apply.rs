//! Apply, one side at a time: the token printed once or written to a file, and taken by the other side.

use std::os::unix::fs::PermissionsExt as _;

use integration::Clusters;

fn west(token: &str) -> String {
    format!(
        "manifest \"shop\" {{ cluster = \"west\" }}\nauth_group \"clusters\" {{ permissions = [] }}\n\
         cluster_link \"east\" {{\n  auth_groups = [\"clusters\"]\n  {token}\n}}\n"
    )
}

#[test]
fn one_side_alone_prints_the_token_once_and_the_other_takes_it_from_the_environment() {
    let mut clusters = Clusters::start();
    clusters.declare("east", "");
    let applied = clusters.run(&["apply", "east", "--yes"]).success();
    let token = applied.stdout.split_whitespace().find(|word| word.len() > 100).expect("a token").to_owned();
    assert_eq!(applied.stdout.matches(&token).count(), 1, "{}", applied.stdout);

    clusters.write("west/shop.hcl", &west("token_env = \"EAST_TOKEN\""));
    let missing = clusters.run(&["apply", "west", "--yes"]).exits(1);
    assert!(missing.stderr.contains("EAST_TOKEN"), "{}", missing.stderr);
    clusters.operator.set_env("EAST_TOKEN", &token);
    let taken = clusters.run(&["apply", "west", "--yes"]).success();
    assert!(!taken.stdout.contains(&token) && !taken.stderr.contains(&token), "the token was echoed");
    clusters.wait_active();
    clusters.run(&["plan", "east", "west", "--detailed-exitcode"]).exits(0);
}

#[test]
fn a_token_file_is_private_and_taken_from_beneath_the_folder() {
    let clusters = Clusters::start();
    clusters.declare("east", "");
    let file = clusters.path("west/east.token");
    clusters.write("west/shop.hcl", &west("token_file = \"east.token\""));
    let out = file.to_str().expect("temporary paths are UTF-8");
    let applied = clusters.run(&["apply", "east", "--yes", "--token-out", out]).success();
    let token = std::fs::read_to_string(&file).expect("the token's file");
    assert!(!applied.stdout.contains(token.trim()), "the token was shown as well");
    let mode = file.metadata().expect("the token's file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    clusters.run(&["apply", "west", "--yes"]).success();
    clusters.wait_active();
}

#[test]
fn without_yes_and_without_a_terminal_nothing_is_applied() {
    let clusters = Clusters::start();
    clusters.declare("east", "");
    clusters.declare("west", "");
    let refused = clusters.run(&["apply", "east", "west"]).exits(1);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    clusters.run(&["plan", "east", "west", "--detailed-exitcode"]).exits(2);
}

#[test]
fn one_cluster_that_is_down_is_named_and_the_other_stays_as_it_was() {
    let mut clusters = Clusters::start();
    clusters.declare("east", "");
    clusters.declare("west", "");
    clusters.west.kill9();
    let failed = clusters.apply().exits(1);
    assert!(failed.stderr.contains("west"), "{}", failed.stderr);
    assert_eq!(clusters.ask("east", &["link", "list"]), serde_json::json!([]));
    clusters.west.restart();
    clusters.apply().success();
    clusters.wait_active();
}
