//! What somebody sees while logging in: where to go, the code to compare and, on a terminal, both as a QR code.
//!
//! On standard error, so that results stay alone on standard output, and also with `--quiet`: nobody could log in
//! without it.

use std::io::{self, IsTerminal as _, Write as _};

use schema::render::visible;

use super::output::visible_line;
use crate::client::login::{Invitation, Provider, Show};

mod qr;

/// Says with whom a login is about to begin, in the agent's words: one that has turned bad could name the provider and
/// the client of another service, for which whoever approves the code would log in.
pub fn announce(agent: &str, provider: &Provider) {
    let _ = writeln!(anstream::stderr(), "{}", visible(&format!("{agent} has logins judged by {provider}.")));
}

/// Shows the code to whoever started the command.
pub fn show(invitation: &Invitation) {
    let mut stderr = anstream::stderr().lock();
    // LXD's lines.
    let _ = write!(
        stderr,
        "URL: {}\nCode: {}\n\n",
        visible_line(&invitation.url),
        visible_line(&invitation.code)
    );
    if let Some(room) = room() {
        let colours = !matches!(anstream::stderr().current_choice(), anstream::ColorChoice::Never);
        let drawn = qr::draw(invitation.complete.as_ref().unwrap_or(&invitation.url), colours);
        if let Some(drawn) = drawn.filter(|drawn| drawn.width <= room) {
            let _ = writeln!(stderr, "{}", drawn.text);
        }
    }
    let same = if invitation.complete.is_some() { " Check that the page shows the same code." } else { "" };
    let _ = writeln!(stderr, "{}", visible(&format!("Waiting for the login in the browser.{same}")));
    let _ = stderr.flush();
}

/// Who can approve a code, where somebody looks on: a command that runs by itself is not to wait for minutes.
pub fn onlooker() -> Option<Box<Show>> {
    (io::stdin().is_terminal() && io::stderr().is_terminal()).then(|| Box::new(show) as Box<Show>)
}

/// How many columns there are for a QR code; `None` where none can be shown.
fn room() -> Option<usize> {
    if !io::stderr().is_terminal() || !speaks_utf8() {
        return None;
    }
    // One that does not say has the usual ones.
    let size = dialoguer::console::Term::stderr().size_checked();
    Some(size.map_or(80, |(_rows, columns)| usize::from(columns)))
}

/// Whether the terminal shows blocks: by the variable that counts of those that say so.
fn speaks_utf8() -> bool {
    let said = ["LC_ALL", "LC_CTYPE", "LANG"].map(|name| std::env::var(name).unwrap_or_default());
    let said = said.into_iter().find(|value| !value.is_empty()).unwrap_or_default().to_ascii_lowercase();
    // Nothing said: a bare container, whose terminal is somebody's modern one.
    said.is_empty() || said.contains("utf-8") || said.contains("utf8")
}
