//! `comity remote`: the clusters that this command line knows.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use schema::name::RemoteName;

use super::context::name;
use super::remotes::{AuthType, Listed, LoginFiles, changeable};
use super::{CliError, Context, ExitCode, Format, Table, login};
use crate::client::login::{LoginError, Session, Shelf as _, Unkept, log_in};
use crate::client::{Client, ClientError};
use crate::trust::certificate::fingerprint;
use crate::web::Web;
use crate::wire::printable;

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
    /// Log in again to one that is known by a login.
    Login { name: String },
    /// Forget one, and the login there.
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
            changeable(&changed).map_err(|error| CliError::failed(error).code("unknown-remote"))?;
            same_cluster(context, &changed, &address).await?;
            folder.change(|remotes| remotes.set_addresses(&changed, vec![address]))?;
        }
        Command::Rename { name: old, new } => folder.rename(&name("NAME", &old)?, &name("NEW", &new)?)?,
        Command::Login { name: wanted } => login(context, &name("NAME", &wanted)?).await?,
        Command::Remove { name: gone } => folder.remove(&name("NAME", &gone)?)?,
    }
    Ok(ExitCode::Done)
}

/// Refuses an address where another certificate is shown. One where nobody answers may be where it will be.
async fn same_cluster(context: &Context, changed: &RemoteName, address: &str) -> Result<(), CliError> {
    context.folder.load()?.get(changed).map_err(|error| CliError::failed(error).code("unknown-remote"))?;
    let pin = fingerprint(&context.folder.certificate(changed)?);
    let client = Client::pinned(changed.as_str(), vec![address.to_owned()], pin, None);
    match client.with_timeout(PATIENCE).server().await {
        Err(error @ ClientError::Mismatch { .. }) => Err(error.into()),
        Err(ClientError::Unreachable { .. }) => {
            context.output.note(format!("Nobody answers at {address} now; it is kept all the same."));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// A login that was just made, and is not kept yet.
struct Login {
    client: Client,
    shelf: Arc<Unkept>,
    user: String,
}

/// Has somebody log in at the agent that `nobody` calls, whose certificate is settled.
async fn logged_in(called: &RemoteName, nobody: &Client) -> Result<Login, ClientError> {
    let hinted = |error: LoginError| ClientError::Login { remote: called.to_string(), error };
    let provider = nobody.provider().await?;
    login::announce(called.as_str(), &provider);
    let web = Web::new().map_err(|error| hinted(LoginError::Kept(error.to_string())))?;
    let tokens = log_in(&web, &provider, &login::show).await.map_err(hinted)?;
    let shelf = Arc::new(Unkept::of(tokens));
    let client = nobody.clone().logged_in(Arc::new(Session::begun(called.as_str(), shelf.clone())));
    let server = client.server().await?;
    if server.auth != "trusted" {
        let reason = "it does not know who this is after the login".to_owned();
        return Err(hinted(LoginError::NotAccepted { agent: client.agent(), reason }));
    }
    let user = server.auth_user_name.as_deref().map_or_else(|| "somebody".to_owned(), printable);
    Ok(Login { client, shelf, user })
}

/// Says so, if somebody is known now and may do nothing: it looks like a fault otherwise.
async fn tell_of_rights(context: &Context, called: &RemoteName, login: &Login) {
    let Ok(current) = login.client.current_identity().await else { return };
    if current.fine_grained && current.effective_permissions.is_empty() {
        context.output.note(format!(
            "This login may do nothing on {called} yet. There, an administrator lets it: `comity auth identity group add oidc/{} GROUP`.",
            login.user
        ));
    }
}

/// Logs in again to a remote that is known by a login.
async fn login(context: &Context, called: &RemoteName) -> Result<(), CliError> {
    let remotes = context.folder.load()?;
    let remote = remotes.get(called).map_err(|error| CliError::failed(error).code("unknown-remote"))?;
    if remote.auth_type != AuthType::Oidc {
        return Err(CliError::failed(format!("Remote {called} is not one that is logged in to"))
            .code("no-login")
            .hint("Remove it, and add it again with --auth-type oidc."));
    }
    let pin = fingerprint(&context.folder.certificate(called)?);
    let nobody = Client::pinned(called.as_str(), remote.addresses.clone(), pin, None);
    let login = logged_in(called, &nobody.following(|_| {})).await?;
    let kept = |error: String| CliError::failed(error).code("config");
    let (files, new) = (LoginFiles::new(&context.folder, called), login.shelf.kept());
    files.keep_cookie(new.cookie.as_ref()).map_err(kept)?;
    if let Some(tokens) = &new.tokens {
        files.keep_tokens(tokens).map_err(kept)?;
    }
    tell_of_rights(context, called, &login).await;
    if !context.output.quiet() {
        context.output.line(format!("Logged in to {called} as {}", login.user));
    }
    Ok(())
}

fn table(listed: &[Listed]) -> Table {
    let yes = |yes: bool| if yes { "YES" } else { "NO" }.to_owned();
    let mut table = Table::new(["NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC"]);
    for remote in listed {
        let current = if remote.current { " (default)" } else { "" };
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
    use super::super::remotes::{Local, Remote, Remotes};
    use super::*;

    #[test]
    fn the_list_looks_as_lxds() {
        let mut remotes = Remotes::default();
        let socket = "unix:///var/lib/comity/unix.socket";
        let east = Remote { addresses: vec!["10.0.0.1:8443".to_owned()], ..Remote::default() };
        let local = Local { url: socket.to_owned(), answers: false };
        remotes.add("east".parse().unwrap(), east, &local).unwrap();
        let drawn = table(&remotes.list(socket)).to_string();
        assert_eq!(
            drawn,
            "\
+----------------+------------------------------------+----------+-------------+--------+--------+
| NAME           | URL                                | PROTOCOL | AUTH TYPE   | PUBLIC | STATIC |
+----------------+------------------------------------+----------+-------------+--------+--------+
| east (default) | https://10.0.0.1:8443              | comity   | tls         | NO     | NO     |
+----------------+------------------------------------+----------+-------------+--------+--------+
| local          | unix:///var/lib/comity/unix.socket | comity   | file access | NO     | YES    |
+----------------+------------------------------------+----------+-------------+--------+--------+"
        );
    }
}
