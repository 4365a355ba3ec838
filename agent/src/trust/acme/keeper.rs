//! The task that has a certificate and has it renewed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::attempt::{Attempt, Means};
use super::fault::Fault;
use super::ours::{Issued, Ours};
use super::schedule::{Life, Schedule};
use super::{Acme, Wanted, Wish, status, unfit};
use crate::audit::{Action, Actor, Record};
use crate::trust::Fingerprint;
use crate::trust::certificate::{self, KeyPair, next};
use crate::trust::server_identity::{InstallError, STEM, Source};
use crate::web::Web;
use crate::wire::acme::{AcmeError, AcmeState, AcmeStatus};

/// How long an attempt may take in all.
const ATTEMPT: Duration = Duration::from_secs(300);
/// The longest sleep: after it the clock is looked at again, which may have been set meanwhile.
const LOOK: Duration = Duration::from_secs(60);
/// How often a certificate that is in the way is looked for.
const LOOK_AWAY: Duration = Duration::from_secs(5);

pub(super) struct Keeper {
    acme: Arc<Acme>,
    /// What the schedule was made for.
    kept: Option<Wanted>,
    schedule: Option<Schedule>,
    /// One that was issued and could not be put in place: it is not asked for twice.
    obtained: Option<Arc<KeyPair>>,
    last_error: Option<AcmeError>,
}

impl Keeper {
    pub fn new(acme: Arc<Acme>) -> Self {
        Self { acme, kept: None, schedule: None, obtained: None, last_error: None }
    }

    pub async fn run(mut self, mut wish: watch::Receiver<Wish>) {
        loop {
            let wished = wish.borrow_and_update().clone();
            let more = match wished {
                Wish::Nothing => {
                    self.rest();
                    wish.changed().await
                }
                Wish::Lacks(setting) => {
                    self.lack(setting);
                    wish.changed().await
                }
                // Nothing is half done wherever it is cut off: what is put in place is put there without a pause.
                Wish::Certificate(wanted) => tokio::select! {
                    more = wish.changed() => more,
                    never = self.keep(&wanted) => match never {},
                },
            };
            if more.is_err() {
                return;
            }
        }
    }

    /// Nothing is wanted any more. What is shown stays.
    fn rest(&mut self) {
        let issued = self.shown().ok().flatten();
        let note = issued.map(|issued| {
            let shown = issued.fingerprint;
            format!("{shown} for {} is still shown to clients, and is not renewed", issued.domain)
        });
        if let Some(kept) = self.kept.take() {
            if let Some(schedule) = &self.schedule {
                // Whoever wants one again does not wait for what failed before.
                Ours::of(&self.acme.parts.dir)
                    .keep_past(&kept.directory, &schedule.past().clone().forgiven());
            }
            let left = note.as_deref().unwrap_or("clients are shown what they were shown before");
            tracing::info!("acme.domain is not set any more: {left}");
        }
        (self.schedule, self.obtained, self.last_error) = (None, None, None);
        self.acme.status.send_replace(AcmeStatus { note, ..status(AcmeState::Off) });
    }

    fn lack(&mut self, setting: &str) {
        let note = match setting {
            "acme.agree_tos" => {
                "acme.agree_tos must be true: without the terms of the ACME server agreed to, it is not asked"
                    .to_owned()
            }
            other => format!("{other} is not set, and the ACME server is not asked without it"),
        };
        tracing::warn!("no certificate is asked for: {note}");
        self.acme.status.send_replace(AcmeStatus { note: Some(note), ..status(AcmeState::Incomplete) });
    }

    async fn keep(&mut self, wanted: &Wanted) -> Infallible {
        self.turn_to(wanted);
        let mut said = None;
        loop {
            if let Some(obstacle) = self.obstacle() {
                if said.as_ref() != Some(&obstacle) {
                    tracing::warn!("no certificate is asked for: {obstacle}");
                }
                self.tell(wanted, AcmeState::Blocked, Some(obstacle.clone()));
                said = Some(obstacle);
                tokio::time::sleep(LOOK_AWAY).await;
                continue;
            }
            said = None;
            let now = Timestamp::now();
            let due = self.schedule.as_ref().map_or(now, Schedule::due);
            if now < due {
                let failing = self.last_error.is_some();
                self.tell(wanted, if failing { AcmeState::Failing } else { AcmeState::Waiting }, None);
                let left = Duration::try_from(due.duration_since(now)).unwrap_or(LOOK);
                tokio::time::sleep(left.min(LOOK)).await;
                continue;
            }
            self.schedule = self.schedule.take().map(|schedule| schedule.begun(now));
            self.keep_past(wanted);
            let attempted = self.attempt(wanted).await;
            self.conclude(wanted, attempted);
        }
    }

    /// Begins with `wanted` at once, unless there is such a certificate already.
    fn turn_to(&mut self, wanted: &Wanted) {
        let (now, life) = (Timestamp::now(), self.life(wanted));
        let same = |kept: &Wanted| (&kept.domain, &kept.directory) == (&wanted.domain, &wanted.directory);
        let same_authority =
            self.kept.as_ref().is_some_and(|kept: &Wanted| kept.directory == wanted.directory);
        if !self.kept.as_ref().is_some_and(same) {
            (self.obtained, self.last_error) = (None, None);
        }
        self.schedule = Some(if let Some(schedule) = self.schedule.take() {
            schedule.changed(life, same_authority, now, chance())
        } else {
            let past = Ours::of(&self.acme.parts.dir).past(&wanted.directory);
            Schedule::new(life, past, now, chance())
        });
        self.kept = Some(wanted.clone());
        self.keep_past(wanted);
    }

    /// What keeps us from showing anything of our own.
    fn obstacle(&self) -> Option<String> {
        let parts = &self.acme.parts;
        if parts.server.source() == Source::Given {
            return Some(
                "this agent was started with --server-cert, which goes before any other certificate; start it without \
                 to have one from the ACME server, or unset acme.domain"
                    .to_owned(),
            );
        }
        let shown = parts.dir.join(format!("{STEM}.crt"));
        match next::current(&parts.dir, STEM) {
            Ok(None) => None,
            Ok(Some(pair)) => match self.issued(&pair.fingerprint) {
                Ok(Some(_)) => None,
                Ok(None) => Some(format!(
                    "{} is not from an ACME server, and is not written over: move it and its key away to have one that \
                     is, or unset acme.domain",
                    shown.display()
                )),
                Err(fault) => Some(fault.to_string()),
            },
            Err(error) => Some(format!("{error}; nothing is written over it")),
        }
    }

    async fn attempt(&mut self, wanted: &Wanted) -> Result<(Fingerprint, Life), Fault> {
        let pair = match self.obtained.take().filter(|pair| is_good(pair, Timestamp::now())) {
            Some(pair) => pair,
            None => Arc::new(self.obtain(wanted).await?),
        };
        self.obtained = Some(pair.clone());
        let parts = &self.acme.parts;
        let old = parts.server.own().map(|pair| pair.fingerprint);
        let (life, _) = unfit::read(&pair.certificate)?;
        let issued = Issued {
            fingerprint: pair.fingerprint,
            domain: wanted.domain.clone(),
            directory: wanted.directory.clone(),
        };
        Ours::of(&parts.dir).note(issued, old)?;
        parts.server.install(pair.clone()).map_err(|error| match error {
            InstallError::Certificate(error) => Fault::Install(error),
            InstallError::Given => Fault::Given,
        })?;
        self.obtained = None;
        let record = Record::new(Actor::agent(), Action::ServerCertificateReplaced, Timestamp::now())
            .on("/1.0")
            .with("domain", wanted.domain.as_str())
            .with("directory", wanted.directory.as_str())
            .with("fingerprint", pair.fingerprint.to_string())
            .with("valid_until", life.until.to_string());
        let record = match old {
            Some(old) => record.with("replaced", old.to_string()),
            None => record,
        };
        parts.audit.record(record);
        Ok((pair.fingerprint, life))
    }

    async fn obtain(&self, wanted: &Wanted) -> Result<KeyPair, Fault> {
        let parts = &self.acme.parts;
        let web = Web::new().map_err(Fault::setup)?;
        let told = |doing: &'static str| self.tell(wanted, AcmeState::Asking, Some(doing.to_owned()));
        let means =
            Means { dir: &parts.dir, web: &web, challenges: &self.acme.challenges, tasks: &parts.tasks };
        let attempt = Attempt::new(means, wanted, &told);
        let slow = Fault::Slow { doing: "asking for a certificate", seconds: ATTEMPT.as_secs() };
        tokio::time::timeout(ATTEMPT, attempt.run()).await.unwrap_or(Err(slow))
    }

    fn conclude(&mut self, wanted: &Wanted, attempted: Result<(Fingerprint, Life), Fault>) {
        let (now, domain) = (Timestamp::now(), &wanted.domain);
        let schedule = self.schedule.take();
        match attempted {
            Ok((fingerprint, life)) => {
                let schedule = schedule.map(|schedule| schedule.issued(life, now, chance()));
                let renewal = schedule.as_ref().map(|schedule| tracing::field::display(schedule.due()));
                tracing::info!(domain, %fingerprint, until = %life.until, renewal, "clients are shown a new certificate");
                (self.schedule, self.last_error) = (schedule, None);
            }
            Err(fault) => {
                let schedule = schedule.map(|schedule| schedule.failed(fault.setback(), now, chance()));
                let next = schedule.as_ref().map(|schedule| tracing::field::display(schedule.due()));
                let failures = schedule.as_ref().map(Schedule::failures);
                tracing::warn!(domain, failures, next, "no certificate was had: {fault}");
                self.last_error = Some(AcmeError { at: now, message: fault.to_string() });
                self.schedule = schedule;
            }
        }
        self.keep_past(wanted);
    }

    fn keep_past(&self, wanted: &Wanted) {
        if let Some(schedule) = &self.schedule {
            Ours::of(&self.acme.parts.dir).keep_past(&wanted.directory, schedule.past());
        }
    }

    fn tell(&self, wanted: &Wanted, state: AcmeState, note: Option<String>) {
        let schedule = self.schedule.as_ref();
        let due = schedule.map(Schedule::due).filter(|_| state != AcmeState::Blocked);
        self.acme.status.send_replace(AcmeStatus {
            state,
            note,
            domain: Some(wanted.domain.clone()),
            directory: Some(wanted.directory.clone()),
            challenge: Some(wanted.method.name().to_owned()),
            next_attempt: due,
            failures: schedule.map_or(0, Schedule::failures),
            last_error: self.last_error.clone(),
        });
    }

    /// The time of the certificate that is shown, if it is the one that is wanted.
    fn life(&self, wanted: &Wanted) -> Option<Life> {
        let issued = self.shown().ok().flatten()?;
        if issued.domain != wanted.domain || issued.directory != wanted.directory {
            return None;
        }
        let pair = self.acme.parts.server.own()?;
        unfit::read(&pair.certificate).ok().map(|(life, _)| life)
    }

    /// What is known of the certificate that is shown, if it is from an ACME server.
    fn shown(&self) -> Result<Option<Issued>, Fault> {
        match self.acme.parts.server.own() {
            Some(pair) => self.issued(&pair.fingerprint),
            None => Ok(None),
        }
    }

    fn issued(&self, fingerprint: &Fingerprint) -> Result<Option<Issued>, Fault> {
        Ours::of(&self.acme.parts.dir).find(fingerprint)
    }
}

fn is_good(pair: &KeyPair, now: Timestamp) -> bool {
    certificate::check_validity(&pair.certificate, now).is_ok()
}

/// One random byte is chance enough.
fn chance() -> u8 {
    let [random, ..] = uuid::Uuid::new_v4().into_bytes();
    random
}
