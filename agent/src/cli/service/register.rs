//! `comity service register` and `deregister`, with Consul's flags and lines.

use std::collections::BTreeMap;
use std::path::PathBuf;

use http::Method;
use serde_json::Value;

use super::definition;
use crate::cli::{CliError, Context, ExitCode};
use crate::client::consul::told;
use crate::client::{Client, NO_BODY};
use crate::wire::consul::registration::{ServiceAddress, ServiceDefinition};

/// What is registered: files of definitions, or one service by flags.
#[derive(Debug, clap::Args)]
pub struct RegisterArgs {
    /// Files of service definitions, in HCL or JSON.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of the service.
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
    /// Id of the instance; the service's name if it is not given.
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
    /// IP address or host name that the instance listens at.
    #[arg(long, default_value = "", hide_default_value = true)]
    address: String,
    /// Port that it listens on.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Unix socket that it listens on: Consul's `-socket`. (`--socket` is the agent's.)
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PATH")]
    socket_path: String,
    /// Metadata, KEY=VALUE. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    meta: Vec<String>,
    /// A tag. May be given several times.
    #[arg(long)]
    tag: Vec<String>,
    /// Another address, NAME=ADDRESS or NAME=ADDRESS:PORT. May be given several times.
    #[arg(long, value_name = "NAME=ADDRESS")]
    tagged_address: Vec<String>,
    /// Kind of the service. Only ordinary services are registered.
    #[arg(long, default_value = "", hide_default_value = true)]
    kind: String,
}

/// What is deregistered: the instances that files define, or one by its id.
#[derive(Debug, clap::Args)]
pub struct DeregisterArgs {
    /// Files of service definitions, in HCL or JSON.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Id of the instance.
    #[arg(long, default_value = "", hide_default_value = true)]
    id: String,
}

pub async fn register(args: RegisterArgs, context: &Context) -> Result<ExitCode, CliError> {
    let definitions = if args.files.is_empty() {
        if args.name.is_empty() {
            let message = "Service registration requires at least one argument or flags.";
            return Err(CliError::failed(message).hint("comity service register --name web --port 80"));
        }
        vec![serde_json::to_value(by_flags(args)?).map_err(CliError::failed)?]
    } else {
        if !args.name.is_empty() || !args.id.is_empty() {
            return Err(CliError::failed("Service registration takes either files or flags, not both."));
        }
        read_all(&args.files)?
    };
    let client = context.client(None).await?;
    for definition in definitions {
        let name = name_of(&definition).to_owned();
        let path = "/v1/agent/service/register";
        let sent: Result<Value, _> = client.consul(Method::PUT, path, Some(&definition)).await;
        sent.map_err(|error| {
            CliError::failed(format!("Error registering service {name:?}: {}", told(&error)))
        })?;
        context.output.done(format!("Registered service: {name}"), &name);
    }
    Ok(ExitCode::Done)
}

pub async fn deregister(args: DeregisterArgs, context: &Context) -> Result<ExitCode, CliError> {
    let ids: Vec<String> = if args.id.is_empty() {
        if args.files.is_empty() {
            let message = "Service deregistration requires at least one argument or -id.";
            return Err(CliError::failed(message));
        }
        read_all(&args.files)?.iter().map(|definition| id_of(definition).to_owned()).collect()
    } else if args.files.is_empty() {
        vec![args.id]
    } else {
        return Err(CliError::failed("Service deregistration takes either files or -id, not both."));
    };
    let client = context.client(None).await?;
    for id in ids {
        remove(&client, &id).await?;
        context.output.done(format!("Deregistered service: {id}"), &id);
    }
    Ok(ExitCode::Done)
}

async fn remove(client: &Client, id: &str) -> Result<(), CliError> {
    let path = format!("/v1/agent/service/deregister/{}", escaped(id));
    let gone: Result<Value, _> = client.consul(Method::PUT, &path, NO_BODY).await;
    gone.map_err(|error| CliError::failed(format!("Error deregistering service {id:?}: {}", told(&error))))?;
    Ok(())
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Value>, CliError> {
    let mut all = Vec::new();
    for file in files {
        all.extend(definition::read(file)?);
    }
    Ok(all)
}

/// By flags it is `Name`, in files whatever they have, in lower case.
fn name_of(definition: &Value) -> &str {
    match definition::text_of(definition, "Name") {
        "" => definition::text_of(definition, "name"),
        name => name,
    }
}

fn id_of(definition: &Value) -> &str {
    match definition::text_of(definition, "id") {
        "" => name_of(definition),
        id => id,
    }
}

fn by_flags(args: RegisterArgs) -> Result<ServiceDefinition, CliError> {
    let mut tagged_addresses = BTreeMap::new();
    for text in &args.tagged_address {
        let Some((tag, address)) = text.split_once('=') else {
            return Err(CliError::failed("Invalid Tagged address: NAME=ADDRESS or NAME=ADDRESS:PORT is"));
        };
        let port = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        // An IPv6 address without brackets has no port.
        let (host, port) = match port {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => (host, port),
            _ => (address, 0),
        };
        let address = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        tagged_addresses.insert(tag.to_owned(), ServiceAddress { address, port: port.into() });
    }
    let mut meta = BTreeMap::new();
    for pair in &args.meta {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        meta.insert(key.to_owned(), value.to_owned());
    }
    Ok(ServiceDefinition {
        kind: args.kind,
        id: args.id,
        name: args.name,
        tags: args.tag,
        port: args.port.into(),
        address: args.address,
        socket_path: args.socket_path,
        tagged_addresses,
        meta,
        ..ServiceDefinition::default()
    })
}

/// An id as part of a path.
fn escaped(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    id.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn flags_say_what_a_definition_says() {
        let args = RegisterArgs {
            files: Vec::new(),
            name: "web".to_owned(),
            id: String::new(),
            address: "10.0.0.1".to_owned(),
            port: 80,
            socket_path: String::new(),
            meta: vec!["a=b=c".to_owned(), "bare".to_owned()],
            tag: vec!["v1".to_owned()],
            tagged_address: vec![
                "lan=10.0.0.1:8080".to_owned(),
                "wan=fe80::1".to_owned(),
                "six=[::1]:1".to_owned(),
            ],
            kind: String::new(),
        };
        let sent = serde_json::to_value(by_flags(args).unwrap()).unwrap();
        assert_eq!(
            sent,
            json!({
                "Name": "web", "Tags": ["v1"], "Port": 80, "Address": "10.0.0.1", "Meta": {"a": "b=c", "bare": ""},
                "TaggedAddresses": {
                    "lan": {"Address": "10.0.0.1", "Port": 8080},
                    "six": {"Address": "::1", "Port": 1},
                    "wan": {"Address": "fe80::1", "Port": 0},
                },
            })
        );
        assert_eq!((name_of(&sent), id_of(&sent)), ("web", "web"));
        assert_eq!(escaped("a b/ü:1"), "a%20b%2F%C3%BC%3A1");
    }
}
