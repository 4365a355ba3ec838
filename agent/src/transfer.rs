//! Moving volumes between clusters.
