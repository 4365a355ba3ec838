//! `comity pool`: where volumes and instances are kept.

use clap::Subcommand;
use http::{Method, StatusCode};
use indicatif::BinaryBytes;
use schema::name::RemoteName;
use schema::render::visible;
use serde_json::{Map, Value, json};

use super::operand::{at, pairs, split};
use super::operation::watch::finish;
use super::{CliError, Context, ExitCode, Format, Table, edit};
use crate::client::operation::Begun;
use crate::client::volume::pool_path;
use crate::client::{Client, ClientError};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a pool: a folder that the agent keeps volumes and instances in.
    Create {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
        /// The driver, `dir`; then keys and values, such as source=/srv/pool.
        #[arg(value_name = "DRIVER [KEY=VALUE]")]
        driver: Vec<String>,
        #[arg(long, default_value = "", value_name = "TEXT")]
        description: String,
    },
    /// List pools.
    #[command(visible_alias = "ls")]
    List {
        #[arg(value_name = "REMOTE:")]
        pool_remote: Option<String>,
    },
    /// Show a pool.
    Show {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
    },
    /// Show how much room a pool has.
    Info {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
    },
    /// Print the value of a key.
    Get {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
        key: String,
    },
    /// Set keys.
    Set {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
        #[arg(value_name = "KEY=VALUE", required = true)]
        pairs: Vec<String>,
    },
    /// Unset a key.
    Unset {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
        key: String,
    },
    /// Edit a pool as YAML.
    Edit {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
    },
    /// Delete a pool that holds nothing.
    #[command(visible_alias = "rm")]
    Delete {
        #[arg(value_name = "[REMOTE:]POOL")]
        pool: String,
    },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    match args.command {
        Command::Create { pool, driver, description } => {
            let (client, pool) = named(context, &pool).await?;
            let (driver, config) = match driver.split_first() {
                Some((first, rest)) if !first.contains('=') => (first.as_str(), rest),
                _ => ("dir", &driver[..]),
            };
            let config: Map<String, Value> =
                pairs(config)?.into_iter().map(|(key, value)| (key, json!(value))).collect();
            let body =
                json!({ "name": &*pool, "driver": driver, "description": description, "config": config });
            let made = client.begin_at(Method::POST, "/1.0/storage-pools", &body).await?;
            output.done(format!("Storage pool {pool} created"), &pool);
            if let (Begun::Done(told), Some(source)) = (made, body["config"]["source"].as_str())
                && told["made_source"] == json!(true)
            {
                output.note(format!("{source} was not there, and was made."));
            }
        }
        Command::List { pool_remote } => list(context, pool_remote.as_deref()).await?,
        Command::Show { pool } => {
            let (client, pool) = named(context, &pool).await?;
            let shown = client.pool(&pool).await.map_err(|error| missing(context, &pool, error))?;
            match output.format() {
                Format::Json => output.json(&shown),
                Format::Text => output.yaml(&shown),
            }
        }
        Command::Info { pool } => info(context, &pool).await?,
        Command::Get { pool, key } => {
            let (client, pool) = named(context, &pool).await?;
            let shown = client.pool(&pool).await.map_err(|error| missing(context, &pool, error))?;
            get(context, &shown.config, &key);
        }
        Command::Set { pool, pairs: given } => {
            let (client, pool) = named(context, &pool).await?;
            set(&client, &pool_path(&pool), &pairs(&given)?)
                .await
                .map_err(|error| missing(context, &pool, error))?;
        }
        Command::Unset { pool, key } => {
            let (client, pool) = named(context, &pool).await?;
            let emptied = [(key, String::new())];
            set(&client, &pool_path(&pool), &emptied)
                .await
                .map_err(|error| missing(context, &pool, error))?;
        }
        Command::Edit { pool } => {
            let (client, pool) = named(context, &pool).await?;
            edited(context, &client, &pool_path(&pool)).await?;
        }
        Command::Delete { pool } => {
            let (client, pool) = named(context, &pool).await?;
            let begun =
                client.delete_at(&pool_path(&pool)).await.map_err(|error| missing(context, &pool, error))?;
            if let Begun::Running(begun) = begun {
                finish(context, &client, None, *begun).await?;
            }
            output.done(format!("Storage pool {pool} deleted"), &pool);
        }
    }
    Ok(ExitCode::Done)
}

async fn list(context: &Context, remote: Option<&str>) -> Result<(), CliError> {
    let (client, _) = at(context, remote).await?;
    let pools = client.pools().await?;
    match context.output.format() {
        Format::Json => context.output.json(&pools),
        Format::Text => {
            let mut table = Table::new(["NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"]);
            for pool in pools {
                let source = pool.config.get("source").cloned().unwrap_or_default();
                let used = pool.used_by.len().to_string();
                table.row([
                    pool.name.to_string(),
                    pool.driver,
                    source,
                    pool.description,
                    used,
                    pool.status.to_uppercase(),
                ]);
            }
            context.output.table(&table);
        }
    }
    Ok(())
}

async fn info(context: &Context, operand: &str) -> Result<(), CliError> {
    let (client, pool) = named(context, operand).await?;
    let shown = client.pool(&pool).await.map_err(|error| missing(context, &pool, error))?;
    let resources = client.pool_resources(&pool).await?;
    if context.output.format() == Format::Json {
        context.output.json(&json!({ "pool": shown, "resources": resources }));
        return Ok(());
    }
    let (used, total) = (resources.space.used, resources.space.total);
    context.output.line(format!("Name:         {}", shown.name));
    context.output.line(format!("Driver:       {}", visible(&shown.driver)));
    context.output.line(format!("Description:  {}", visible(&shown.description)));
    context.output.line(format!("Space used:   {}", BinaryBytes(used)));
    context.output.line(format!("Total space:  {}", BinaryBytes(total)));
    context.output.line(format!("Used by:      {}", shown.used_by.len()));
    Ok(())
}

/// Prints a key's value; nothing, if it is not set.
pub fn get(context: &Context, config: &std::collections::BTreeMap<String, String>, key: &str) {
    let value = config.get(key).map_or("", String::as_str);
    match context.output.format() {
        Format::Json => context.output.json(&value),
        Format::Text => context.output.line(value),
    }
}

/// Sets keys of what is at `path`, and unsets those that are set to nothing, if nobody changes it meanwhile.
pub async fn set(client: &Client, path: &str, given: &[(String, String)]) -> Result<(), ClientError> {
    let found = client.document(path).await?;
    let mut body = writable(&found.content);
    if let Some(config) = body.get_mut("config").and_then(Value::as_object_mut) {
        for (key, value) in given {
            if value.is_empty() {
                config.remove(key);
            } else {
                config.insert(key.clone(), json!(value));
            }
        }
    }
    client.if_match(Method::PUT, path, &body, &found.tag).await
}

/// Has what is at `path` edited as YAML.
pub async fn edited(context: &Context, client: &Client, path: &str) -> Result<(), CliError> {
    let found = client.document(path).await?;
    let shown: Vec<&str> =
        found.content.keys().map(String::as_str).filter(|key| !WRITABLE.contains(key)).collect();
    let mut changed: Map<String, Value> =
        edit::changed(context, &writable(&found.content), &shown, "# What is left out is unset.")?;
    changed.retain(|key, _| WRITABLE.contains(&key.as_str()));
    Ok(client.if_match(Method::PUT, path, &changed, &found.tag).await?)
}

/// Keys of what of a pool or a volume can be set.
const WRITABLE: [&str; 2] = ["description", "config"];

/// What of a pool or a volume can be set.
fn writable(document: &Map<String, Value>) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("description".to_owned(), document.get("description").cloned().unwrap_or_else(|| json!("")));
    let config = document.get("config").filter(|config| config.is_object()).cloned();
    body.insert("config".to_owned(), config.unwrap_or_else(|| json!({})));
    body
}

/// A pool as it was called on the command line.
struct Called {
    remote: Option<RemoteName>,
    pool: String,
}

impl std::ops::Deref for Called {
    type Target = str;

    fn deref(&self) -> &str {
        &self.pool
    }
}

impl std::fmt::Display for Called {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.pool)
    }
}

async fn named(context: &Context, operand: &str) -> Result<(Client, Called), CliError> {
    let (remote, pool) = split(operand)?;
    if pool.is_empty() {
        return Err(CliError::usage("Missing pool name").hint("A pool is [REMOTE:]POOL."));
    }
    let pool = pool.to_owned();
    Ok((context.client(remote.as_ref()).await?, Called { remote, pool }))
}

fn missing(context: &Context, pool: &Called, error: ClientError) -> CliError {
    if error.status() != Some(StatusCode::NOT_FOUND) {
        return error.into();
    }
    let remote = pool.remote.as_ref().map(|remote| format!(" {remote}:")).unwrap_or_default();
    CliError::failed(format!("storage pool {:?} does not exist", &**pool))
        .code("not_found")
        .hint(format!("`{} pool list{remote}` shows those that there are.", context.command()))
}
