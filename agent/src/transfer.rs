//! Moving volumes between clusters, and between a cluster and the command line's machine.
