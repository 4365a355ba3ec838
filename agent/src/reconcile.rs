//! The watch loop: the same plan and apply as the command line's.
