//! Snapshots, in LXD's writing: when they are taken, how long they stay, and what they are called.

mod lifetime;
mod pattern;
mod schedule;

pub use lifetime::{Lifetime, LifetimeError};
pub use pattern::{Moment, Pattern, PatternError};
pub use schedule::{Cron, Schedule, ScheduleError};
