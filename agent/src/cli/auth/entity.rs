//! The entity that a permission is on, as LXD's commands take it: `TYPE [NAME] ENTITLEMENT [key=value…]`.

use std::fmt::Write as _;

use schema::diagnostic::nearest::suggestion;
use schema::kind::auth_group::entitlements::{ENTITY_TYPES, EntityType, entity_type};

use crate::cli::CliError;
use crate::wire::lxd::auth::Permission;
use crate::wire::lxd::entity_url::Named;

/// The permission that the words after the group's name mean. `verb` is `add` or `remove`.
pub fn permission(verb: &str, group: &str, words: &[String]) -> Result<Permission, CliError> {
    let command = format!("comity auth group permission {verb}");
    let (plain, pairs) = split(words)?;
    let Some(kind) = plain.first() else {
        return Err(four(&command).hint(types()));
    };
    let Some(known) = entity_type(kind) else {
        // What is no type here may be one that the agent knows more about.
        return unknown(&command, &plain, &pairs);
    };
    let (entity, entitlement) = match (known.name, &plain[1..]) {
        ("server", [entitlement]) => (None, entitlement),
        ("server", _) => {
            return Err(CliError::usage(format!(
                "Expected three arguments: `{command} [<remote>:]<group> server <entitlement>`"
            )));
        }
        // There is one list of exports.
        ("exported_services", [entitlement]) => (Some("default".to_owned()), entitlement),
        (_, [entity, entitlement]) => (Some(entity.clone()), entitlement),
        (_, rest) => return Err(nameless(&command, group, known, rest)),
    };
    let named = Named {
        entity_type: known.name,
        entity,
        project: value(&pairs, "project"),
        pool: value(&pairs, "pool"),
    };
    check(&named, &pairs)?;
    Ok(Permission { entity_type: known.name.to_owned(), url: named.url(), entitlement: entitlement.clone() })
}

/// Words, and pairs of key and value, which come last.
type Split = (Vec<String>, Vec<(String, String)>);

fn split(words: &[String]) -> Result<Split, CliError> {
    // The name of an entity may hold a `=`; the first four words are never pairs, unless the type needs no name.
    let at = words.iter().position(|word| {
        word.split_once('=').is_some_and(|(key, _)| ["project", "type", "pool", "location"].contains(&key))
    });
    let (plain, pairs) = words.split_at(at.unwrap_or(words.len()));
    let pairs = pairs.iter().map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(CliError::usage("Supplementary arguments must be of the form <key>=<value>")),
    });
    let pairs = pairs.collect::<Result<_, _>>()?;
    if plain.len() > 3 {
        return Err(CliError::usage("Supplementary arguments must be of the form <key>=<value>"));
    }
    Ok((plain.to_vec(), pairs))
}

fn value(pairs: &[(String, String)], key: &str) -> Option<String> {
    pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
}

fn check(named: &Named, pairs: &[(String, String)]) -> Result<(), CliError> {
    let known = ["project", "type", "pool", "location"];
    if let Some((key, _)) = pairs.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        let near = suggestion(key, known);
        return Err(CliError::usage(format!("Unknown supplementary argument {key:?}{near}")));
    }
    let kind = named.entity_type;
    let needs = |key: &str, value: &str| {
        let message =
            format!("Entities of type {kind:?} require a supplementary {key} argument `{key}={value}`");
        Err(CliError::usage(message).hint(format!("Add {key}=NAME at the end of the line.")))
    };
    let (project, pool) = named.lacks();
    if project {
        return needs("project", "<project_name>");
    }
    if kind == "storage_volume" {
        match value(pairs, "type").as_deref() {
            None => return needs("type", "<storage volume type>"),
            Some("custom") => {}
            Some(_) => {
                return Err(CliError::usage("Storage volumes of this type do not exist here: type=custom"));
            }
        }
    }
    if pool {
        return needs("pool", "<storage_pool_name>");
    }
    Ok(())
}

fn four(command: &str) -> CliError {
    CliError::usage(format!(
        "Expected at least four arguments: `{command} [<remote>:]<group> <entity_type> <entity_name> <entitlement> \
         [<key>=<value>...]`"
    ))
}

/// LXD's own documentation leaves the name out in an example: say what the whole line is.
fn nameless(command: &str, group: &str, known: &EntityType, rest: &[String]) -> CliError {
    let kind = known.name;
    let entitlement = match rest {
        [word] if known.entitlement(word).is_some() => word.as_str(),
        _ => "ENTITLEMENT",
    };
    let more = match kind {
        "instance" => " project=default",
        "storage_volume" => " project=default type=custom pool=default",
        _ => "",
    };
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    let mut hint = format!(
        "A permission on {article} {kind} names the {kind}: `{command} {group} {kind} NAME {entitlement}{more}`"
    );
    if !more.is_empty() {
        // Writing to a String does not fail.
        let _ = write!(
            hint,
            "\nThe group must be able to view the project as well: `{command} {group} project default can_view`"
        );
    }
    four(command).hint(hint)
}

/// A type that is not known here is left to the agent, which may be newer, if it can be said at all where it is.
fn unknown(command: &str, plain: &[String], _pairs: &[(String, String)]) -> Result<Permission, CliError> {
    let [kind, rest @ ..] = plain else { return Err(four(command)) };
    let Some(entitlement) = rest.last() else { return Err(four(command).hint(types())) };
    Ok(Permission { entity_type: kind.clone(), url: "/1.0".to_owned(), entitlement: entitlement.clone() })
}

fn types() -> String {
    let types: Vec<&str> = ENTITY_TYPES.iter().map(|known| known.name).collect();
    format!("Entity types are {}.", types.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Permission, CliError> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        permission("add", "backup", &words)
    }

    #[test]
    fn entities_are_named_as_lxds_commands_name_them() {
        for (line, url) in [
            ("server admin", "/1.0"),
            ("project default viewer", "/1.0/projects/default"),
            ("instance c1 can_exec project=blah", "/1.0/instances/c1?project=blah"),
            (
                "storage_volume vol1 can_manage_backups project=default pool=p type=custom",
                "/1.0/storage-pools/p/volumes/custom/vol1?project=default",
            ),
            ("identity oidc/ada@example.com can_view", "/1.0/auth/identities/oidc/ada@example.com"),
            ("exported_services can_view", "/control/v1/exported-services/default"),
            ("exported_services default can_view", "/control/v1/exported-services/default"),
            ("service_intentions * can_edit", "/control/v1/service-intentions/*"),
        ] {
            let permission = read(line).unwrap();
            assert_eq!(permission.url, url, "{line}");
        }
    }

    #[test]
    fn what_lacks_is_said_with_the_whole_line() {
        let four = "Expected at least four arguments: `comity auth group permission add [<remote>:]<group> \
                    <entity_type> <entity_name> <entitlement> [<key>=<value>...]`";
        let refused = read("instance can_manage_backups").unwrap_err();
        assert_eq!(refused.message, four);
        assert_eq!(
            refused.hint.unwrap().lines().next().unwrap(),
            "A permission on an instance names the instance: \
             `comity auth group permission add backup instance NAME can_manage_backups project=default`"
        );
        let message = |line| read(line).unwrap_err().message;
        assert_eq!(
            message("server x admin"),
            "Expected three arguments: `comity auth group permission add [<remote>:]<group> server <entitlement>`"
        );
        assert_eq!(
            message("instance c1 can_exec"),
            "Entities of type \"instance\" require a supplementary project argument `project=<project_name>`"
        );
        assert_eq!(
            message("storage_volume v can_edit project=default type=custom"),
            "Entities of type \"storage_volume\" require a supplementary pool argument `pool=<storage_pool_name>`"
        );
        let form = "Supplementary arguments must be of the form <key>=<value>";
        assert_eq!(message("project default can_view nonsense"), form);
        assert_eq!(message("instance c1 can_exec project=default nonsense"), form);
        assert_eq!(read("not_an_entity_type x can_view").unwrap().entity_type, "not_an_entity_type");
    }
}
