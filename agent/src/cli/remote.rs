//! `comity remote`: the clusters that this command line knows.

use std::time::Duration;

use clap::Subcommand;
use schema::name::RemoteName;

use super::context::name;
use super::remotes::Listed;
use super::{CliError, Context, ExitCode, Format, Table};
use crate::client::{Client, ClientError};
use crate::trust::certificate::fingerprint;

mod add;

/// How long an address may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add a cluster, with a trust token from it or by its address.
    Add(add::Args),
    /// List the clusters that are known.
    #[command(alias = "ls")]
    List,
    /// Choose the cluster that is talked to by default.
    #[command(alias = "set-default")]
    Switch { name: String },
    /// Print the name of the default one.
    GetDefault,
    /// Say where one is reached from now on; it must show the same certificate there.
    SetUrl { name: String, address: String },
    /// Rename one.
    #[command(alias = "mv")]
    Rename { name: String, new: String },
    /// Forget one.
    #[command(alias = "rm")]
    Remove { name: String },
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let (folder, output) = (&context.folder, &context.output);
    match args.command {
        Command::Add(args) => return add::run(args, context).await,
        Command::List => {
            let listed = folder.load()?.list(&context.local_url());
            match output.format() {
                Format::Json => output.json(&listed),
                Format::Text => output.table(&table(&listed)),
            }
        }
        Command::Switch { name: wanted } => {
            let wanted: RemoteName = name("NAME", &wanted)?;
            folder.change(|remotes| remotes.switch(wanted))?;
        }
        Command::GetDefault => {
            let remotes = folder.load()?;
            match output.format() {
                Format::Json => output.json(&remotes.default_name()),
                Format::Text => output.line(remotes.default_name()),
            }
        }
        Command::SetUrl { name: changed, address } => {
            let (changed, address) = (name("NAME", &changed)?, add::address(&address)?);
            same_cluster(context, &changed, &address).await?;
            folder.change(|remotes| remotes.set_addresses(&changed, vec![address]))?;
        }
        Command::Rename { name: old, new } => folder.rename(&name("NAME", &old)?, &name("NEW", &new)?)?,
        Command::Remove { name: gone } => folder.remove(&name("NAME", &gone)?)?,
    }
    Ok(ExitCode::Done)
}

/// Refuses an address where another certificate is shown. One where nobody answers may be where it will be.
async fn same_cluster(context: &Context, changed: &RemoteName, address: &str) -> Result<(), CliError> {
    context.folder.load()?.get(changed).map_err(|error| CliError::failed(error).code("unknown-remote"))?;
    let pin = fingerprint(&context.folder.certificate(changed)?);
    let identity = context.folder.client()?;
    let client = Client::pinned(changed.as_str(), vec![address.to_owned()], pin, Some(identity));
    match client.with_timeout(PATIENCE).server().await {
        Err(error @ ClientError::Mismatch { .. }) => Err(error.into()),
        Err(ClientError::Unreachable { .. }) => {
            context.output.note(format!("Nobody answers at {address} now; it is kept all the same."));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn table(listed: &[Listed]) -> Table {
    let yes = |yes: bool| if yes { "YES" } else { "NO" }.to_owned();
    let mut table = Table::new(["NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC"]);
    for remote in listed {
        let current = if remote.current { " (current)" } else { "" };
        table.row([
            format!("{}{current}", remote.name),
            remote.url.clone(),
            remote.protocol.to_owned(),
            remote.auth_type.to_owned(),
            yes(remote.public),
            yes(remote.fixed),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::remotes::{Remote, Remotes};
    use super::*;

    #[test]
    fn the_list_looks_as_lxds() {
        let mut remotes = Remotes::default();
        let socket = "unix:///var/lib/comity/unix.socket";
        let east = Remote { addresses: vec!["10.0.0.1:8443".to_owned()] };
        remotes.add("east".parse().unwrap(), east, socket).unwrap();
        let drawn = table(&remotes.list(socket)).to_string();
        assert_eq!(
            drawn,
            "\
+----------------+------------------------------------+----------+-------------+--------+--------+
| NAME           | URL                                | PROTOCOL | AUTH TYPE   | PUBLIC | STATIC |
+----------------+------------------------------------+----------+-------------+--------+--------+
| east (current) | https://10.0.0.1:8443              | comity   | tls         | NO     | NO     |
+----------------+------------------------------------+----------+-------------+--------+--------+
| local          | unix:///var/lib/comity/unix.socket | comity   | file access | NO     | YES    |
+----------------+------------------------------------+----------+-------------+--------+--------+"
        );
    }
}
