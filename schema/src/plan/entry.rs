//! A plan by entries: what a user wrote as one block, where the plan itself is by record.
