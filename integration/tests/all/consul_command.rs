//! Consul's own command, unmodified, against an agent: over the unix socket and over mutual TLS, every command that
//! shares a noun with ours. What it prints and ends with is kept in `testdata/consul/commands.txt`, and `comity` must
//! say the same to the same command line; where it does not, `DIFFERENT` says why.

mod lines;

use std::collections::HashMap;
use std::path::PathBuf;

use integration::golden::{self, testdata};
use integration::{Agent, ConsulCommand, Done, LIMIT, Operator, Transcript, own_only, wait_for};

use lines::{DIFFERENT, LINES, NOT_BUILT, ONLY_CONSUL};

/// The cluster whose agent is asked, and another that gives it a token for a link.
struct World {
    east: Agent,
    south: Agent,
    token: String,
}

impl World {
    fn start() -> Self {
        let (mut east, mut south) = (Agent::prepare("east"), Agent::prepare("south"));
        east.launch();
        south.launch();
        east.wait_ready();
        south.wait_ready();
        let generate = ["peering", "generate-token", "-name", "east"];
        let token = Operator::new().run_on(&south, &generate).success().stdout.trim().to_owned();
        Self { east, south, token }
    }

    /// Runs every line but those that are skipped with `command`, which is given the arguments and the standard input,
    /// and keeps what came out.
    fn walk(&self, skipped: impl Fn(&str) -> bool, command: impl Fn(&[&str], &str) -> Done) -> String {
        let mut shown = Transcript::of(&[&self.east, &self.south]);
        shown.call(&self.token, "TOKEN");
        for &line in LINES {
            if skipped(line) {
                continue;
            }
            let (awaited, run) = match line.strip_prefix("until ") {
                Some(rest) => rest.split_once(": ").expect("what is awaited, then the line"),
                None => ("", line),
            };
            let run = run.split_once(" (").map_or(run, |(run, _)| run);
            let (run, input) = match run.split_once(" <") {
                Some((run, file)) => (run, std::fs::read_to_string(folder().join(file)).expect("a file")),
                None => (run, String::new()),
            };
            let arguments: Vec<&str> =
                run.split(' ').map(|word| if word == "TOKEN" { self.token.as_str() } else { word }).collect();
            let mut done = command(&arguments, &input);
            if !awaited.is_empty() {
                done = wait_for(line, LIMIT, || {
                    let done = command(&arguments, &input);
                    done.stdout.contains(awaited).then_some(done)
                });
            }
            if NOT_BUILT.iter().any(|(not_built, _)| *not_built == line) && done.command.is_empty() {
                continue;
            }
            line.clone_into(&mut done.command);
            (done.stdout, done.stderr) = (steady(&done.stdout), steady(&done.stderr));
            shown.add(done);
        }
        shown.text()
    }

    /// The same with Consul's command. What our build of it lacks is done by `comity` and not kept, so that what follows
    /// finds the same.
    fn walk_consul(&self, consul: &ConsulCommand) -> String {
        self.walk(
            |_| false,
            |arguments, input| {
                if arguments.starts_with(&["services", "export"]) {
                    return Done {
                        command: String::new(),
                        ..self.comity(&Operator::new(), arguments, input)
                    };
                }
                consul.run_with(&folder(), arguments, input)
            },
        )
    }

    fn comity(&self, operator: &Operator, arguments: &[&str], input: &str) -> Done {
        let socket = self.east.socket().display().to_string();
        operator.run_with(&folder(), &[&["--socket", &socket], arguments].concat(), input)
    }
}

/// Where the files are that the lines name.
fn folder() -> PathBuf {
    testdata().join("consul/commands")
}

/// `text` without what is new in every run, which is indexes and times, and without blanks at the end.
fn steady(text: &str) -> String {
    let line = |line: &str| {
        let begins = line.trim_start();
        if begins.contains("Index") {
            return line.replace(|c: char| c.is_ascii_digit(), "").trim_end().to_owned() + " N";
        }
        let timed = ["Last Heartbeat:", "Last Send:", "Last Receive:", "Created At:", "DeletedAt:"];
        if let Some(time) = timed.iter().find(|time| begins.starts_with(**time)) {
            return format!("{time} TIME");
        }
        // The trust domain is each cluster's own.
        if let Some((name, _)) = line.split_once(".peering.") {
            return format!("{name}.peering.TRUST-DOMAIN");
        }
        line.trim_end().to_owned()
    };
    let lines: Vec<String> = text.lines().map(line).collect();
    let text = lines.join("\n");
    let text = text.trim_end();
    if text.is_empty() { String::new() } else { text.to_owned() + "\n" }
}

/// What a transcript says to each line.
fn blocks(text: &str) -> HashMap<&str, &str> {
    let starts = text.split_inclusive('\n').scan(0, |at, line| {
        let start = *at;
        *at += line.len();
        Some((start, line))
    });
    let starts: Vec<usize> = starts.filter(|(_, line)| line.starts_with("$ ")).map(|(at, _)| at).collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).filter_map(|(start, end)| text[*start..end][2..].split_once('\n')).collect()
}

#[test]
fn consuls_own_command_works_over_the_unix_socket() {
    let world = World::start();
    let (false, Some(consul)) = (own_only(), ConsulCommand::socket(&world.east)) else { return };
    let text = world.walk_consul(&consul);
    golden::matches("consul/commands.txt", &text);
}

#[test]
fn consuls_own_command_works_over_mutual_tls() {
    let world = World::start();
    let keys = tempfile::tempdir().expect("a temporary folder");
    let (false, Some(consul)) = (own_only(), ConsulCommand::mutual(&world.east, keys.path())) else { return };
    let text = world.walk_consul(&consul);
    let expected = std::fs::read_to_string(testdata().join("consul/commands.txt")).expect("a file");
    assert_eq!(text, expected);
}

#[test]
fn comity_says_what_consul_says() {
    let world = World::start();
    let operator = Operator::new();
    let skipped = |line: &str| ONLY_CONSUL.contains(&line);
    let text = world.walk(skipped, |arguments, input| {
        let mut done = world.comity(&operator, arguments, input);
        // Ours may end a failure with what to do next.
        let lines: Vec<&str> = done.stderr.lines().filter(|line| !line.starts_with("Hint: ")).collect();
        done.stderr = if lines.is_empty() { String::new() } else { lines.join("\n") + "\n" };
        done
    });
    let consul = std::fs::read_to_string(testdata().join("consul/commands.txt")).expect("a file");
    let (mut consul, ours) = (blocks(&consul), blocks(&text));
    consul.extend(NOT_BUILT.iter().copied());
    let mut faults = Vec::new();
    let mut different = String::new();
    for &line in LINES.iter().filter(|line| !ONLY_CONSUL.contains(line)) {
        // Ours begins every failure with a word, theirs some.
        let theirs = consul.get(line).map(|text| text.replace("! Error: ", "! "));
        let own = ours.get(line).map(|text| text.replace("! Error: ", "! "));
        match DIFFERENT.iter().find(|(different, _)| *different == line) {
            Some((line, why)) if theirs != own => {
                different.extend(["# ", why, "\n$ ", line, "\n", &own.unwrap_or_default()]);
            }
            Some((line, _)) => faults.push(format!("$ {line}\nis listed as different, and is not")),
            None if theirs != own => faults.push(format!(
                "$ {line}\n--- consul\n{}--- comity\n{}",
                theirs.unwrap_or_default(),
                own.unwrap_or_default()
            )),
            None => {}
        }
    }
    assert!(faults.is_empty(), "{} of {} lines differ\n{}", faults.len(), LINES.len(), faults.join("\n"));
    golden::matches("consul/differences.txt", &different);
}
