//! The truth table: what a certificate counts for, by who signed it, what was revoked, what the trust store says and
//! what the administrator has set. Pure, and LXD's row by row; the roles of a cluster's own authority are ours.

use uuid::Uuid;

use super::role::Role;

/// What the authorities say of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// None of them has signed it, or not so that it counts.
    Unsigned,
    /// One of `server.ca` has signed it.
    Signed,
    /// The cluster's own authority has, for this role (and perhaps `server.ca`'s, being the same).
    Role(Role),
    /// One has signed it and taken that back.
    Revoked,
    /// One has signed it, but not so that it counts now: out of time, without a role that makes sense, or nobody can
    /// tell what was revoked.
    Void,
}

/// Whether there is a `server.ca`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No: the trust store alone counts.
    Store,
    /// Yes: what is in the trust store counts if an authority has signed it (LXD: PKI mode).
    Authorities,
}

/// What the trust store says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    None,
    /// A client's or a metrics certificate.
    Client,
    /// A user of the cluster, who is one by the word of its own authority alone.
    User,
    /// A linked cluster's: pinned, whoever signed it.
    Pinned,
}

/// What `core.trust_ca_certificates` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknowns {
    /// Who is signed for and not in the store is nobody.
    AreNobody,
    /// They may do everything.
    AreTrusted,
}

/// What a certificate counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// As the store says.
    Entry,
    /// It may do everything, though the store knows nothing of it (LXD: method `pki`).
    Everything,
    /// A user of the cluster whom the store does not know yet.
    Newcomer(String),
    /// A node of the cluster: no client.
    Node(Uuid),
    Nobody(Why),
}

/// Why a certificate counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    #[error("nobody knows it")]
    Unknown,
    #[error("it is trusted here, but no authority has signed it, and there is a server.ca")]
    Unsigned,
    #[error("it is trusted here as a user's of the cluster, and this agent's --cluster-ca has not signed it")]
    Unvouched,
    #[error("the authority that signed it has revoked it")]
    Revoked,
    #[error("an authority has signed it, but not so that it counts")]
    Void,
    #[error("it is the control service's, which is no client")]
    ControlService,
}

/// The whole table.
pub fn standing(mode: Mode, word: &Word, entry: Entry, unknowns: Unknowns) -> Standing {
    match (word, entry) {
        // Links are outside the rule: each side holds to the certificate that it pinned.
        (_, Entry::Pinned)
        | (Word::Role(Role::User(_)) | Word::Signed, Entry::Client)
        | (Word::Role(Role::User(_)), Entry::User) => Standing::Entry,
        (Word::Signed | Word::Unsigned, Entry::User) => Standing::Nobody(Why::Unvouched),
        (Word::Revoked, _) => Standing::Nobody(Why::Revoked),
        (Word::Void, _) => Standing::Nobody(Why::Void),
        (Word::Role(Role::Node(id)), _) => Standing::Node(*id),
        (Word::Role(Role::ControlService), _) => Standing::Nobody(Why::ControlService),
        // A user has no rights until it is given some, whatever is set.
        (Word::Role(Role::User(name)), Entry::None) => Standing::Newcomer(name.clone()),
        (Word::Signed, Entry::None) => match unknowns {
            Unknowns::AreTrusted => Standing::Everything,
            Unknowns::AreNobody => Standing::Nobody(Why::Unknown),
        },
        (Word::Unsigned, Entry::Client) => match mode {
            Mode::Store => Standing::Entry,
            Mode::Authorities => Standing::Nobody(Why::Unsigned),
        },
        (Word::Unsigned, Entry::None) => Standing::Nobody(Why::Unknown),
    }
}

/// Whether a certificate may become an entry of the store: by a token, or by somebody who may make entries.
pub fn may_enter(mode: Mode, word: &Word) -> bool {
    match word {
        Word::Signed | Word::Role(Role::User(_)) => true,
        Word::Revoked | Word::Void | Word::Role(Role::Node(_) | Role::ControlService) => false,
        Word::Unsigned => mode == Mode::Store,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// LXD's table (`server.ca` is there), one row a line.
    #[test]
    fn lxds_table_row_by_row() {
        use Entry::{Client, None as Absent, Pinned};
        use Unknowns::{AreNobody, AreTrusted};
        use Word::{Revoked, Signed, Unsigned, Void};
        let nobody = Standing::Nobody;
        let rows = [
            (Signed, Absent, AreNobody, nobody(Why::Unknown), true),
            (Signed, Client, AreNobody, Standing::Entry, true),
            (Signed, Absent, AreTrusted, Standing::Everything, true),
            (Signed, Client, AreTrusted, Standing::Entry, true),
            (Revoked, Absent, AreNobody, nobody(Why::Revoked), false),
            (Revoked, Absent, AreTrusted, nobody(Why::Revoked), false),
            (Revoked, Client, AreNobody, nobody(Why::Revoked), false),
            (Revoked, Client, AreTrusted, nobody(Why::Revoked), false),
            // A list that is not the authority's: no check of it succeeds.
            (Void, Absent, AreTrusted, nobody(Why::Void), false),
            (Void, Client, AreNobody, nobody(Why::Void), false),
            (Unsigned, Absent, AreNobody, nobody(Why::Unknown), false),
            (Unsigned, Absent, AreTrusted, nobody(Why::Unknown), false),
            (Unsigned, Client, AreNobody, nobody(Why::Unsigned), false),
            (Unsigned, Client, AreTrusted, nobody(Why::Unsigned), false),
            (Unsigned, Pinned, AreNobody, Standing::Entry, false),
            (Unsigned, Pinned, AreTrusted, Standing::Entry, false),
        ];
        for (word, entry, unknowns, expected, enters) in rows {
            let row = format!("{word:?}, {entry:?}, {unknowns:?}");
            assert_eq!(standing(Mode::Authorities, &word, entry, unknowns), expected, "{row}");
            assert_eq!(may_enter(Mode::Authorities, &word), enters, "{row}");
        }
    }

    #[test]
    fn without_a_server_ca_only_the_store_counts() {
        for unknowns in [Unknowns::AreNobody, Unknowns::AreTrusted] {
            let of = |word: &Word, entry| standing(Mode::Store, word, entry, unknowns);
            assert_eq!(of(&Word::Unsigned, Entry::Client), Standing::Entry);
            assert_eq!(of(&Word::Unsigned, Entry::None), Standing::Nobody(Why::Unknown));
            assert!(may_enter(Mode::Store, &Word::Unsigned));
        }
    }

    #[test]
    fn roles_are_what_they_say_in_either_mode_and_whatever_is_set() {
        let (user, node) = (Word::Role(Role::User("alice".to_owned())), Word::Role(Role::Node(Uuid::nil())));
        for mode in [Mode::Store, Mode::Authorities] {
            for unknowns in [Unknowns::AreNobody, Unknowns::AreTrusted] {
                let of = |word: &Word, entry| standing(mode, word, entry, unknowns);
                assert_eq!(of(&user, Entry::None), Standing::Newcomer("alice".to_owned()));
                assert_eq!(of(&user, Entry::Client), Standing::Entry);
                assert_eq!(of(&user, Entry::User), Standing::Entry);
                for word in [Word::Unsigned, Word::Signed] {
                    assert_eq!(of(&word, Entry::User), Standing::Nobody(Why::Unvouched));
                }
                for entry in [Entry::None, Entry::Client] {
                    assert_eq!(of(&node, entry), Standing::Node(Uuid::nil()));
                    let control = Word::Role(Role::ControlService);
                    assert_eq!(of(&control, entry), Standing::Nobody(Why::ControlService));
                    assert_eq!(of(&Word::Revoked, entry), Standing::Nobody(Why::Revoked));
                }
            }
            assert!(may_enter(mode, &user) && !may_enter(mode, &node) && !may_enter(mode, &Word::Revoked));
        }
    }
}
