//! `comity link create`: a token for a peer, a link with a peer's token, or a public link.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;

use http::StatusCode;
use schema::diagnostic::secret::looks_secret;
use schema::name::GroupName;
use serde_json::json;

use super::{At, done, explained};
use crate::cli::context::name;
use crate::cli::{CliError, Context, ExitCode, Format, yaml};
use crate::trust::Fingerprint;
use crate::wire::cluster_link::{LinkPost, LinkPut, OfferedCertificate};
use crate::wire::token::{MAX_TOKEN, TrustToken};

#[derive(clap::Args)]
pub struct Args {
    /// What the peer is called here.
    #[arg(value_name = "[REMOTE:]NAME")]
    name: String,
    /// Configuration, such as user.site=basement. A token is taken as --token.
    #[arg(value_name = "KEY=VALUE", hide_default_value = true)]
    given: Vec<String>,
    /// The peer's token; `-` reads it from standard input.
    #[arg(long, short)]
    token: Option<String>,
    /// What the peer may do here; may be given several times.
    #[arg(long, short = 'g', value_name = "GROUP")]
    auth_group: Vec<String>,
    #[arg(long, short)]
    description: Option<String>,
    /// This cluster calls the peer, which never calls back; takes the peer's token.
    #[arg(long)]
    unidirectional: bool,
    /// Pin the peer's certificate and nothing else; takes --remote-address.
    #[arg(long)]
    public: bool,
    /// Where a public link's peer is reached: HOST or HOST:PORT.
    #[arg(long, value_name = "ADDRESS")]
    remote_address: Option<String>,
}

/// Without the token, which a debug line must not show.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("auth_group", &self.auth_group).finish_non_exhaustive()
    }
}

pub async fn run(context: &Context, args: Args) -> Result<ExitCode, CliError> {
    let (config, given) = positional(args.given)?;
    let token = match (args.token, given) {
        (Some(_), Some(_)) => return Err(CliError::usage("two trust tokens were given")),
        (Some(text), None) if text == "-" => Some(read_token()?),
        (token, given) => token.or(given),
    };
    fits(&[
        ("unidirectional", args.unidirectional),
        ("public", args.public),
        ("auth-group", !args.auth_group.is_empty()),
        ("token", token.is_some()),
        ("remote-address", args.remote_address.is_some()),
    ])?;
    let at = At::find(context, &args.name).await?;
    let auth_groups = args
        .auth_group
        .iter()
        .map(|group| name::<GroupName>("--auth-group", group).map(String::from))
        .collect::<Result<Vec<_>, _>>()?;
    let mut post = LinkPost {
        name: at.link.to_string(),
        description: args.description.unwrap_or_default(),
        kind: match (args.unidirectional, args.public) {
            (true, _) => "unidirectional",
            (_, true) => "public",
            _ => "bidirectional",
        }
        .to_owned(),
        auth_groups,
        trust_token: token.unwrap_or_default(),
        remote_address: args.remote_address.unwrap_or_default(),
        config,
        ..LinkPost::default()
    };
    if args.public {
        return public(context, &at, post).await;
    }
    if let Some(LinkPut { description, config }) = from_stdin()? {
        if post.description.is_empty() {
            post.description = description.unwrap_or_default();
        }
        for (key, value) in config.unwrap_or_default() {
            post.config.entry(key).or_insert(value);
        }
    }
    by_token(context, &at, &post).await
}

async fn by_token(context: &Context, at: &At, post: &LinkPost) -> Result<ExitCode, CliError> {
    let pending = post.trust_token.is_empty();
    let answer = at.client.create_link(post).await.map_err(|error| {
        let about_token =
            !pending && matches!(error.status(), Some(StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN));
        let failed = explained(error);
        match failed.hint {
            None if about_token => failed.hint(
                "Copy the whole token again. It may also have been used already, replaced by a newer one, or be out of date: mint another one on the peer.",
            ),
            _ => failed,
        }
    })?;
    if !pending {
        return Ok(done(context, &at.link, &format!("Cluster link {} created", at.link)));
    }
    let token: TrustToken = serde_json::from_value(answer)
        .map_err(|_| CliError::failed("the agent's answer holds no token").code("unexpected-answer"))?;
    let output = &context.output;
    // The one place where a token's text is printed: it was asked for.
    let text = token.encode();
    match output.format() {
        Format::Json => {
            output.json(&json!({"name": at.link, "token": text.expose(), "expires_at": token.expires_at}));
        }
        Format::Text => {
            if !output.quiet() {
                // Who may make a link need not be able to look at it.
                let id = at.client.link(&at.link).await.ok().and_then(|report| report.token_id);
                let id = id.map(|id| format!(" ({id})")).unwrap_or_default();
                output.line(format!("Cluster link {} created (pending)", at.link));
                output.line(format!("Cluster link {:?}{id} pending identity token:", at.link.as_str()));
            }
            output.line(text.expose());
        }
    }
    Ok(ExitCode::Done)
}

/// Two calls, and a person between them. Whatever ends it in between leaves nothing.
async fn public(context: &Context, at: &At, mut post: LinkPost) -> Result<ExitCode, CliError> {
    let answer = at.client.create_link(&post).await.map_err(explained)?;
    let confirmed = match serde_json::from_value::<OfferedCertificate>(answer) {
        Ok(offered) => match accept(context, &offered) {
            Ok(()) => {
                post.cluster_certificate = offered.certificate;
                at.client.create_link(&post).await.map(drop).map_err(explained)
            }
            Err(error) => Err(error),
        },
        Err(_) => Err(CliError::failed("the agent's answer holds no certificate").code("unexpected-answer")),
    };
    if let Err(mut error) = confirmed {
        if let Err(left) = at.client.delete_link(&at.link).await {
            error.message = format!("{}\nThe pending link could not be deleted: {left}", error.message);
        }
        return Err(error);
    }
    Ok(done(context, &at.link, &format!("Cluster link {} created", at.link)))
}

/// Asks whether the certificate is the right one: `y`, `n`, or its fingerprint typed in.
fn accept(context: &Context, offered: &OfferedCertificate) -> Result<(), CliError> {
    let pin = offered.fingerprint.parse::<Fingerprint>();
    context.output.note(format!("Certificate fingerprint: {}", offered.fingerprint));
    let mut question = "ok (y/n/[fingerprint])? ";
    loop {
        match context.output.ask(question)?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(()),
            "" | "n" | "no" => {
                return Err(CliError::failed("Remote cluster certificate NACKed by user")
                    .code("certificate-refused")
                    .hint("Compare it with the fingerprint that `comity status` shows there."));
            }
            typed if pin.is_ok() && typed.parse::<Fingerprint>() == pin => return Ok(()),
            typed if typed.len() == 64 => {
                return Err(CliError::failed(
                    "The provided fingerprint does not match the remote cluster certificate fingerprint",
                )
                .code("wrong-certificate")
                .hint("Something else answers at that address, or the fingerprint is another cluster's."));
            }
            _ => question = "Please type 'y', 'n' or the fingerprint: ",
        }
    }
}

/// Whether the flags that were given go together, in the words of LXD's command line.
fn fits(given: &[(&str, bool)]) -> Result<(), CliError> {
    let set = |flag: &str| given.iter().any(|(name, is_set)| *name == flag && *is_set);
    for [one, other] in [
        ["unidirectional", "public"],
        ["unidirectional", "auth-group"],
        ["public", "auth-group"],
        ["public", "token"],
    ] {
        if set(one) && set(other) {
            let mut both = [one, other];
            both.sort_unstable();
            return Err(CliError::usage(format!(
                "if any flags in the group [{one} {other}] are set none of the others can be; [{} {}] were all set",
                both[0], both[1]
            )));
        }
    }
    for [one, missing] in [["public", "remote-address"], ["remote-address", "public"]] {
        if set(one) && !set(missing) {
            return Err(CliError::usage(format!(
                "if any flags in the group [public remote-address] are set they must all be set; missing [{missing}]"
            )));
        }
    }
    if set("unidirectional") && !set("token") {
        return Err(CliError::usage("--unidirectional requires --token").hint(
            "The side that is called makes the token: `comity auth identity create cluster-link/NAME` there.",
        ));
    }
    Ok(())
}

/// Tells `KEY=VALUE` from a token in the same place. (LXD's own page gives one there.)
fn positional(given: Vec<String>) -> Result<(BTreeMap<String, String>, Option<String>), CliError> {
    let (mut config, mut token) = (BTreeMap::new(), None);
    for text in given {
        match text.split_once('=') {
            // Base64 may end in `=`, and has no `.` before it.
            Some((key, value)) if key.contains('.') => {
                config.insert(key.to_owned(), value.to_owned());
            }
            _ if TrustToken::decode(&text).is_ok() || looks_secret(&text) || text.len() > 64 => {
                if token.replace(text).is_some() {
                    return Err(CliError::usage("two trust tokens were given"));
                }
            }
            _ => {
                return Err(CliError::usage(format!("Bad key=value pair: {text}"))
                    .hint("A link's keys begin with `user.`, such as user.site=basement."));
            }
        }
    }
    Ok((config, token))
}

/// What is piped in. A terminal, and a stream that is nobody's, are not read.
fn from_stdin() -> Result<Option<LinkPut>, CliError> {
    let Ok(kind) = std::fs::metadata("/dev/stdin").map(|metadata| metadata.file_type()) else {
        return Ok(None);
    };
    if !(kind.is_file() || kind.is_fifo()) {
        return Ok(None);
    }
    let text = read(64 * 1024)?;
    if text.trim().is_empty() { Ok(None) } else { yaml::read(&text).map(Some) }
}

fn read_token() -> Result<String, CliError> {
    match read(MAX_TOKEN)?.trim() {
        "" => Err(CliError::failed("standard input holds no token").code("no-token")),
        text => Ok(text.to_owned()),
    }
}

/// Standard input to its end, or one byte more than `most`, so that who reads it finds it too long.
fn read(most: usize) -> Result<String, CliError> {
    let mut text = String::new();
    let limit = u64::try_from(most + 1).unwrap_or(u64::MAX);
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|error| CliError::failed(format!("standard input could not be read: {error}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_and_configuration_are_told_apart() {
        let token = "eyJjbGllbnRfbmFtZSI6ImxhcHRvcCIsImZpbmdlcnByaW50IjoiYWJjIn0=";
        let (config, given) = positional(vec!["user.a=b=c".to_owned(), token.to_owned()]).unwrap();
        assert_eq!(config, BTreeMap::from([("user.a".to_owned(), "b=c".to_owned())]));
        assert_eq!(given.as_deref(), Some(token));
        assert!(positional(vec![token.to_owned(), token.to_owned()]).is_err());
        let bad = positional(vec!["nonsense".to_owned()]).unwrap_err();
        assert_eq!(bad.message, "Bad key=value pair: nonsense");
    }

    #[test]
    fn flags_that_do_not_go_together_are_refused_as_lxd_does() {
        let fault = |set: &[&str]| {
            let all = ["unidirectional", "public", "auth-group", "token", "remote-address"];
            let given: Vec<(&str, bool)> = all.iter().map(|flag| (*flag, set.contains(flag))).collect();
            fits(&given).map_err(|error| error.message)
        };
        assert_eq!(
            fault(&["unidirectional", "public", "remote-address"]),
            Err("if any flags in the group [unidirectional public] are set none of the others can be; [public unidirectional] were all set".to_owned())
        );
        assert!(fault(&["unidirectional", "auth-group", "token"]).is_err());
        assert_eq!(fault(&["unidirectional"]), Err("--unidirectional requires --token".to_owned()));
        assert!(fault(&["public"]).unwrap_err().ends_with("missing [remote-address]"));
        assert!(fault(&["remote-address"]).unwrap_err().ends_with("missing [public]"));
        for good in
            [&["public", "remote-address"][..], &["unidirectional", "token"], &["auth-group", "token"], &[]]
        {
            assert_eq!(fault(good), Ok(()), "{good:?}");
        }
    }
}
