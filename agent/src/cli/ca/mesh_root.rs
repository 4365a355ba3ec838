//! `comity ca mesh-roots` and `rotate-mesh-root`: what vouches for the certificates of a cluster's services. The agent has
//! its keys, so it is asked.

use jiff::Timestamp;

use crate::cli::{CliError, Context, ExitCode, Format, Table};
use crate::wire::mesh_root::{MeshRoots, RotateRoot};

#[derive(Debug, Clone, clap::Args)]
pub struct Rotate {
    /// The key of a root may be in other hands: nothing that was signed before is trusted any more, and every open
    /// connection that was made with such a certificate is cut.
    #[arg(long)]
    compromised: bool,
    /// Do not ask before --compromised.
    #[arg(long, short)]
    yes: bool,
}

pub async fn list(context: &Context) -> Result<ExitCode, CliError> {
    let roots = context.client(None).await?.mesh_roots().await?;
    show(context, &roots);
    Ok(ExitCode::Done)
}

pub async fn rotate(args: Rotate, context: &Context) -> Result<ExitCode, CliError> {
    let output = &context.output;
    if args.compromised && !args.yes {
        let question =
            "Every service that speaks for itself needs a new certificate before it is trusted again. Go on?";
        if !output.confirm(question, "--yes")? {
            return Err(CliError::failed("nothing was changed").code("declined"));
        }
    }
    let request = RotateRoot { compromised: args.compromised };
    let roots = context.client(None).await?.rotate_mesh_root(&request).await?;
    show(context, &roots);
    let now = Timestamp::now();
    if let Some(next) = roots.roots.last().filter(|root| root.active_from > now) {
        output.note(format!(
            "The new root signs from {} on; what is signed already stays good until it ends.",
            next.active_from
        ));
    }
    Ok(ExitCode::Done)
}

fn show(context: &Context, roots: &MeshRoots) {
    let output = &context.output;
    match output.format() {
        Format::Json => output.json(roots),
        Format::Text => {
            let mut table = Table::new(["ROOT", "SIGNS", "FROM", "TRUSTED UNTIL"]);
            for root in &roots.roots {
                table.row([
                    root.fingerprint.clone(),
                    if root.active { "yes" } else { "no" }.to_owned(),
                    root.active_from.to_string(),
                    root.trusted_until.to_string(),
                ]);
            }
            output.table(&table);
        }
    }
}
