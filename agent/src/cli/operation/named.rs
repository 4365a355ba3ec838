//! Operations by name: an id, or as much of its beginning as only one has.

use uuid::Uuid;

use crate::cli::CliError;

/// Fewer digits are a slip of the keyboard.
pub const FEWEST: usize = 4;
/// As much as tables show.
const SHOWN: usize = 8;

/// What was typed for an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Whole(Uuid),
    Beginning(String),
}

impl Named {
    pub fn read(text: &str) -> Result<Self, CliError> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Whole(id));
        }
        if text.len() >= FEWEST && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-') {
            return Ok(Self::Beginning(text.to_ascii_lowercase()));
        }
        Err(CliError::usage("ID: an operation's id is a UUID, or at least four digits of its beginning")
            .hint("`comity operation list` shows those that run or have just ended."))
    }
}

/// The one id that begins so.
pub fn only(beginning: &str, ids: impl Iterator<Item = Uuid>) -> Result<Uuid, CliError> {
    let mut found: Vec<Uuid> = ids.filter(|id| id.to_string().starts_with(beginning)).collect();
    found.sort_unstable();
    found.dedup();
    match found[..] {
        [id] => Ok(id),
        [] => Err(CliError::failed(format!("no operation's id begins with {beginning}")).code("not_found")),
        [..] => {
            let all: Vec<String> = found.iter().map(ToString::to_string).collect();
            let message = format!("several operations' ids begin with {beginning}: {}", all.join(", "));
            Err(CliError::failed(message).code("ambiguous"))
        }
    }
}

/// As much of an id as tables show.
pub fn short(id: Uuid) -> String {
    id.to_string().chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_named_by_its_beginning_if_no_other_has_that() {
        let ids = [
            "5c0a13f2-0000-4000-8000-000000000001",
            "5c0a13f2-0000-4000-8000-000000000002",
            "77770000-0000-4000-8000-000000000003",
        ]
        .map(|id| id.parse::<Uuid>().unwrap());
        assert_eq!(Named::read(&ids[0].to_string()).unwrap(), Named::Whole(ids[0]));
        assert_eq!(Named::read(&short(ids[2])).unwrap(), Named::Beginning("77770000".to_owned()));
        // The same one may be listed twice.
        assert_eq!(only("7777", ids.into_iter().chain(ids)).unwrap(), ids[2]);
        assert_eq!(only("5c0a13f2", ids.into_iter()).unwrap_err().code, "ambiguous");
        assert_eq!(only("dead", ids.into_iter()).unwrap_err().code, "not_found");
        for bad in ["", "777", "orders", "not-an-id"] {
            assert_eq!(Named::read(bad).unwrap_err().code, "usage", "{bad}");
        }
    }
}
