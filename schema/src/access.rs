//! Who may reach what: intentions, their precedence, and an explanation of each decision.
