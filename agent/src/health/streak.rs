//! How many outcomes in a row it takes, without I/O (Consul: its status handler).

use schema::kind::service::Thresholds;

use super::Status;

/// Outcomes of one check so far.
#[derive(Debug)]
pub(super) struct Streak {
    thresholds: Thresholds,
    successes: u32,
    failures: u32,
}

impl Streak {
    pub(super) fn new(thresholds: Thresholds) -> Self {
        Self { thresholds, successes: 0, failures: 0 }
    }

    /// The status that one more outcome makes; `None` for one that does not decide yet.
    pub(super) fn next(&mut self, outcome: Status) -> Option<Status> {
        let Thresholds { success_before_passing, failures_before_warning, failures_before_critical } =
            self.thresholds;
        if outcome < Status::Critical {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            return (self.successes >= success_before_passing).then_some(outcome);
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let warning =
            if failures_before_warning == 0 { failures_before_critical } else { failures_before_warning };
        if self.failures >= failures_before_critical {
            Some(Status::Critical)
        } else {
            (self.failures >= warning).then_some(Status::Warning)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(thresholds: Thresholds, outcomes: &[Status]) -> Vec<Option<Status>> {
        let mut streak = Streak::new(thresholds);
        outcomes.iter().map(|outcome| streak.next(*outcome)).collect()
    }

    #[test]
    fn it_takes_as_many_in_a_row_as_are_asked_for() {
        use Status::{Critical, Passing, Warning};
        assert_eq!(all(Thresholds::default(), &[Critical, Passing]), [Some(Critical), Some(Passing)]);
        let patient =
            Thresholds { success_before_passing: 2, failures_before_warning: 2, failures_before_critical: 3 };
        assert_eq!(
            all(patient, &[Passing, Passing, Critical, Critical, Critical, Critical, Passing, Warning]),
            [None, Some(Passing), None, Some(Warning), Some(Critical), Some(Critical), None, Some(Warning)]
        );
        // An outcome of the other kind begins anew.
        assert_eq!(all(patient, &[Critical, Passing, Critical]), [None, None, None]);
        // Without a word about warning there is none.
        let strict = Thresholds { failures_before_critical: 2, ..Thresholds::default() };
        assert_eq!(all(strict, &[Critical, Critical]), [None, Some(Critical)]);
    }
}
