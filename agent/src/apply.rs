//! One commit and its follow-up steps: the only writer of declared state.
