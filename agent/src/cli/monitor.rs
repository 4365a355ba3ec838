//! `comity monitor`: what happens on the server, as it happens.

use super::auth::remote;
use super::output::visible_line;
use super::{CliError, Context, ExitCode, Format};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The remote to ask, with its colon.
    #[arg(id = "asked_remote", value_name = "REMOTE:")]
    remote: Option<String>,
    /// Only events of this type: operation, lifecycle or logging; may be given several times.
    #[arg(long = "type", short = 't', value_name = "TYPE")]
    types: Vec<String>,
    /// One line an event, for people.
    #[arg(long)]
    pretty: bool,
}

pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CliError> {
    let mut events = remote(context, args.remote.as_deref()).await?.events(&args.types).await?;
    while let Some(event) = events.next().await {
        if args.pretty {
            let said = |pointer: &str| {
                event.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
            };
            let what = match said("/type").as_str() {
                "operation" => format!(
                    "{} {} {}",
                    said("/metadata/id"),
                    said("/metadata/description"),
                    said("/metadata/status")
                ),
                "lifecycle" => format!(
                    "{} {} by {}",
                    said("/metadata/action"),
                    said("/metadata/source"),
                    said("/metadata/requestor/username")
                ),
                _ => format!("{}: {}", said("/metadata/level"), said("/metadata/message")),
            };
            context.output.line(visible_line(&format!("{} {:<9} {what}", said("/timestamp"), said("/type"))));
            continue;
        }
        match context.output.format() {
            // A document a line, so that each can be read as it comes.
            Format::Json if !context.output.is_yaml() => context.output.line(&event),
            Format::Json | Format::Text => {
                context.output.yaml(&event);
                context.output.line("---");
            }
        }
    }
    Err(CliError::failed("the agent has ended the stream of events").code("ended"))
}
