//! Where a field is within its declaration, as messages spell it.

/// The two spellings of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Snake case, exact.
    Block,
    /// A config entry in Consul's form: camel case or snake case, in any case.
    Entry,
}

impl Form {
    /// True if `key`, as the file has it, means `name`.
    pub fn spells(self, key: &str, name: &str) -> bool {
        match self {
            Form::Block => key == name,
            Form::Entry => {
                key.eq_ignore_ascii_case(name)
                    || key.bytes().map(|b| b.to_ascii_lowercase()).eq(name.bytes().filter(|b| *b != b'_'))
            }
        }
    }

    /// `name` as a message spells it.
    pub fn spell(self, name: &str) -> String {
        match (self, name) {
            (Form::Block, _) => name.to_owned(),
            (Form::Entry, "http") => "HTTP".to_owned(),
            (Form::Entry, "jwt") => "JWT".to_owned(),
            (Form::Entry, "legacy_id") => "LegacyID".to_owned(),
            (Form::Entry, _) => name
                .split('_')
                .map(|word| {
                    let mut chars = word.chars();
                    chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
                })
                .collect(),
        }
    }
}

/// A place within a declaration. It lives on the stack of whoever reads the place above, and becomes text only for
/// a fault.
#[derive(Debug, Clone, Copy)]
pub enum Place<'p> {
    Root(Form),
    /// An object under a key.
    Field(&'p Place<'p>, &'static str),
    /// An element of the list under a key.
    Item(&'p Place<'p>, &'static str, usize),
}

impl Place<'_> {
    pub fn form(&self) -> Form {
        match self {
            Place::Root(form) => *form,
            Place::Field(parent, _) | Place::Item(parent, ..) => parent.form(),
        }
    }

    /// `Sources[0].Permissions[1]`; empty for the root.
    pub fn path(&self) -> String {
        match self {
            Place::Root(_) => String::new(),
            Place::Field(parent, name) => parent.field(name),
            Place::Item(parent, name, index) => format!("{}[{index}]", parent.field(name)),
        }
    }

    /// The path of the field `name` here.
    pub fn field(&self, name: &str) -> String {
        self.spelled(&self.form().spell(name))
    }

    /// The path of a key here, in the key's own spelling.
    pub fn spelled(&self, key: &str) -> String {
        match self.path() {
            path if path.is_empty() => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_as_each_form_does() {
        let root = Place::Root(Form::Entry);
        let source = Place::Item(&root, "sources", 0);
        let permission = Place::Item(&source, "permissions", 1);
        let http = Place::Field(&permission, "http");
        assert_eq!(http.field("path_exact"), "Sources[0].Permissions[1].HTTP.PathExact");
        assert_eq!(Place::Root(Form::Block).field("auth_groups"), "auth_groups");
        for key in ["PathExact", "pathexact", "path_exact", "PATHEXACT"] {
            assert!(Form::Entry.spells(key, "path_exact"), "{key}");
        }
        assert!(!Form::Block.spells("Description", "description"));
    }
}
