//! What the settings want of an ACME server, in the words of who asks it: `trust` knows no settings.

use std::sync::Arc;

use tokio::sync::watch;

use crate::settings::{self, AcmeConfig, ChallengeKind, Config, Settings};
use crate::task::Tasks;
use crate::trust::acme::{Method, Wanted, Wish};

/// The wish of this moment, and of every later one that is another.
pub(super) fn follow(settings: &Arc<Settings>, tasks: &Tasks) -> watch::Receiver<Wish> {
    let mut changed = settings.changed();
    let (sender, receiver) = watch::channel(wish(&changed.borrow_and_update().config));
    let ending = tasks.ending();
    tasks.spawn("acme-settings", async move {
        while let Some(Ok(())) = ending.run_until_cancelled(changed.changed()).await {
            let new = wish(&changed.borrow_and_update().config);
            sender.send_if_modified(|wish| {
                let other = *wish != new;
                *wish = new;
                other
            });
        }
    });
    receiver
}

fn wish(config: &Config) -> Wish {
    match config.acme() {
        settings::Acme::Off => Wish::Nothing,
        settings::Acme::Lacks(key) => Wish::Lacks(key),
        settings::Acme::On(AcmeConfig { domain, email, directory, challenge, http }) => {
            let method = match challenge {
                ChallengeKind::TlsAlpn01 => Method::TlsAlpn01,
                ChallengeKind::Http01 => Method::Http01,
            };
            // Authorities issue for names in lower case.
            let domain = domain.to_ascii_lowercase();
            Wish::Certificate(Wanted { domain, email, directory, method, http: http.addresses() })
        }
    }
}
