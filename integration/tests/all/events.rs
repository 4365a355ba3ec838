//! `/1.0/events`, heard by our own command line and by `lxc`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use integration::{Agent, Http, Lxc, Operator, own_only, wait_for};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// A command that prints events as lines of JSON.
struct Listener {
    child: Child,
    lines: Receiver<Value>,
}

impl Listener {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send(event).is_err()
                {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// The next event of this action; `cause` is done again and again, since nobody can see whether it listens yet.
    fn next(&self, action: &str, mut cause: impl FnMut()) -> Value {
        wait_for(&format!("{action} is heard"), LIMIT, || {
            cause();
            let deadline = std::time::Instant::now() + Duration::from_millis(500);
            while let Ok(event) =
                self.lines.recv_timeout(deadline.saturating_duration_since(std::time::Instant::now()))
            {
                if event["metadata"]["action"] == action {
                    return Some(event);
                }
            }
            None
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_happens_is_told_to_lxc_and_to_comity() {
    let east = Agent::start("east");
    let admin = Http::socket(&east);
    let mut number = 0;
    let mut change = || {
        number += 1;
        admin.patch("/1.0", &json!({"config": {"user.n": number.to_string()}})).expect(200);
    };
    let mut command = Command::new(integration::binary::comity());
    command.args(["monitor", "--type", "lifecycle", "--format", "json", "--socket"]).arg(east.socket());
    let heard = Listener::new(command).next("config-updated", &mut change);
    assert_eq!((&heard["type"], &heard["location"]), (&json!("lifecycle"), &json!("none")));
    assert_eq!(heard["metadata"]["source"], "/1.0");
    assert_eq!(heard["metadata"]["requestor"]["protocol"], "unix");
    if own_only() {
        return;
    }
    let lxc = Lxc::trusted_by(&east);
    let heard = Listener::new(lxc.command(&["monitor", "--format", "json"]));
    heard.next("config-updated", &mut change);
    // A listener that is trusted no more hears no more.
    let clients = admin.get("/1.0/certificates?recursion=1").metadata();
    let fingerprint = clients[0]["fingerprint"].as_str().expect("a fingerprint").to_owned();
    admin.delete(&format!("/1.0/certificates/{fingerprint}")).expect(200);
    let mut heard = heard;
    wait_for("the listener is cut off", LIMIT, || heard.child.try_wait().expect("a child can be asked"));
}

#[test]
fn what_is_no_socket_or_no_type_is_refused() {
    let east = Agent::start("east");
    let admin = Http::trusted(&east);
    admin.get("/1.0/events").refused(400, "websocket");
    admin.get("/1.0/events?type=operation,x").refused(400, "\"x\" is not a supported event type");
    admin.get("/1.0/events?project=nowhere").refused(404, "Project not found");
    Http::stranger(&east).get("/1.0/events").refused(403, "Forbidden");
    let refused = Operator::new().run_on(&east, &["monitor", "--type", "x"]).exits(1);
    assert!(refused.stderr.contains("is not a supported event type"), "{}", refused.stderr);
}
