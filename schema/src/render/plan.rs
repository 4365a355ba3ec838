//! A plan as people and programs see it: Terraform's text, symbols, summary line and JSON.
//!
//! People read entries (what they wrote as one block), so that records are put together again here. Only what changes
//! is shown; what stays is counted.

use std::fmt::Write;

use owo_colors::{OwoColorize, Style};
use serde_json::{Map, Value, json};

use crate::kind::Kind;
use crate::plan::entry::{Counts, EntryChange, entries};
use crate::plan::{Action, Effect, Live, Ownership, Plan, effects};
use crate::render::Colour;
use crate::render::record::attributes;

mod block;

/// Most lines about access in the text; the JSON form has all.
const MAX_EFFECTS: usize = 20;

/// One plan, and what a reader needs to know beside it.
#[derive(Debug)]
pub struct Section<'a> {
    /// The cluster, as the reader knows it.
    cluster: &'a str,
    plan: &'a Plan,
    items: Vec<Item>,
    effects: Vec<Effect>,
}

/// One entry, as attributes before and after; `None` where it does not exist.
#[derive(Debug)]
struct Item {
    kind: Kind,
    name: String,
    action: Action,
    ownership: Ownership,
    before: Option<Map<String, Value>>,
    after: Option<Map<String, Value>>,
}

impl Item {
    fn new(entry: EntryChange<'_>) -> Self {
        let side = |parts: &std::collections::BTreeMap<_, _>, exists: bool| exists.then(|| attributes(parts));
        let before = side(&entry.before, entry.action != Action::Create);
        let after = side(&entry.after, matches!(entry.action, Action::Create | Action::Update));
        let EntryChange { kind, name, action, ownership, .. } = entry;
        Self { kind, name, action, ownership, before, after }
    }

    fn address(&self) -> String {
        format!("{}.{}", self.kind, self.name)
    }

    /// The label of its block. The id of an instance is a field of its own there.
    fn label(&self) -> &str {
        match (self.kind, self.name.split_once('/')) {
            (Kind::Service, Some((service, _))) => service,
            _ => &self.name,
        }
    }
}

impl<'a> Section<'a> {
    /// `plan` as made against `live`; `cluster` is how the reader knows the cluster.
    pub fn new(cluster: &'a str, plan: &'a Plan, live: &Live) -> Self {
        let owners = plan.owners_before.as_ref().map(|before| Item {
            kind: Kind::Manifest,
            name: plan.manifest.to_string(),
            action: Action::Update,
            ownership: Ownership::Kept,
            before: Some(Map::from_iter([("owners".to_owned(), json!(before))])),
            after: Some(Map::from_iter([("owners".to_owned(), json!(plan.declared.owners))])),
        });
        let items = owners.into_iter().chain(entries(plan, live).into_iter().map(Item::new)).collect();
        Self { cluster, plan, items, effects: effects(live, plan) }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for item in &self.items {
            counts.add(item.action);
        }
        counts
    }
}

/// The counts of all sections.
pub fn counts(sections: &[Section<'_>]) -> Counts {
    let mut total = Counts::default();
    for section in sections {
        total += section.counts();
    }
    total
}

/// The plans as text for people, the summary line last.
pub fn text(sections: &[Section<'_>], colour: Colour) -> String {
    let paint = Painter(colour);
    if sections.iter().all(|section| section.plan.is_empty()) {
        return paint.bold("No changes.") + " Your clusters match the declarations.\n";
    }
    let mut text = legend(sections, &paint);
    for section in sections {
        describe(section, sections.len() > 1, &mut text, &paint);
    }
    text.push_str(&summary(sections, &paint));
    text
}

/// What the symbols mean, for those that are used.
fn legend(sections: &[Section<'_>], paint: &Painter) -> String {
    let counts = counts(sections);
    let used = [
        (counts.add, Action::Create, "create"),
        (counts.change, Action::Update, "update in-place"),
        (counts.destroy, Action::Delete, "destroy"),
        (counts.forget, Action::Forget, "forget"),
    ];
    let mut text = String::new();
    if used.iter().any(|(count, ..)| *count > 0) {
        text.push_str("Comity compared the declarations with the live clusters. ");
        text.push_str("Actions are indicated with the following symbols:\n");
        for (_, action, word) in used.iter().filter(|(count, ..)| *count > 0) {
            push(&mut text, format_args!("  {} {word}\n", paint.symbol(*action)));
        }
        text.push('\n');
    }
    text.push_str("Comity will perform the following actions:\n");
    text
}

fn describe(section: &Section<'_>, several: bool, text: &mut String, paint: &Painter) {
    if several {
        let heading = format!("On cluster {}, for manifest {}:", section.cluster, section.plan.manifest);
        push(text, format_args!("\n{}\n", paint.bold(&heading)));
        if section.plan.is_empty() {
            text.push_str("\n  No changes.\n");
        }
    }
    for item in &section.items {
        text.push('\n');
        block::write(item, section.plan.manifest.as_str(), text, paint);
    }
    if !section.plan.exchanges.is_empty() {
        text.push('\n');
    }
    for link in &section.plan.exchanges {
        push(text, format_args!("  Trust to be made: cluster_link.{link}\n"));
    }
    if !section.plan.is_empty() {
        text.push('\n');
    }
    if section.effects.is_empty() && !section.plan.is_empty() {
        text.push_str("  No change in access.\n");
    }
    for effect in section.effects.iter().take(MAX_EFFECTS) {
        push(text, format_args!("  Access: {effect}\n"));
    }
    if let Some(more) = section.effects.len().checked_sub(MAX_EFFECTS).filter(|more| *more > 0) {
        push(text, format_args!("  Access: {more} more change, which --format json has\n"));
    }
}

/// `Plan: N to add, N to change, N to destroy.`
fn summary(sections: &[Section<'_>], paint: &Painter) -> String {
    let Counts { add, change, destroy, forget } = counts(sections);
    let forget = if forget > 0 { format!(", {forget} to forget") } else { String::new() };
    let label = paint.bold("Plan:");
    let mut text = format!("\n{label} {add} to add, {change} to change, {destroy} to destroy{forget}.\n");
    let links: usize = sections.iter().map(|section| section.plan.exchanges.len()).sum();
    if links > 0 {
        let halves = if links == 1 { "cluster link" } else { "cluster links" };
        push(&mut text, format_args!("Trust is to be made for {links} {halves}.\n"));
    }
    text
}

/// What an apply says when all is done.
pub fn applied(counts: Counts, colour: Colour) -> String {
    let Counts { add, change, destroy, forget } = counts;
    let forget = if forget > 0 { format!(", {forget} forgotten") } else { String::new() };
    Painter(colour).paint(
        Style::new().bold().green(),
        &format!("Apply complete! Resources: {add} added, {change} changed, {destroy} destroyed{forget}."),
    )
}

/// The plans as JSON: Terraform's plan format with our own keys beside it.
pub fn json(sections: &[Section<'_>]) -> Value {
    let changes: Vec<Value> = sections.iter().flat_map(resource_changes).collect();
    let clusters: Vec<Value> = sections
        .iter()
        .map(|section| {
            json!({
                "cluster": section.cluster,
                "manifest": section.plan.manifest,
                "base": section.plan.base,
                "summary": section.counts().json(),
                "exchanges": section.plan.exchanges,
                "effects": section.effects,
            })
        })
        .collect();
    let exchanges: Vec<Value> = sections
        .iter()
        .flat_map(|section| section.plan.exchanges.iter().map(move |link| (section, link)))
        .map(|(section, link)| {
            json!({ "cluster": section.cluster, "manifest": section.plan.manifest, "link": link })
        })
        .collect();
    json!({
        "format_version": "1.0",
        "comity_version": env!("CARGO_PKG_VERSION"),
        "resource_changes": changes,
        "clusters": clusters,
        "exchanges": exchanges,
        "summary": counts(sections).json(),
        "applyable": sections.iter().any(|section| !section.plan.is_empty()),
        "complete": true,
        "errored": false,
    })
}

fn resource_changes<'s>(section: &'s Section<'_>) -> impl Iterator<Item = Value> + 's {
    section.items.iter().map(|item| {
        let action = match item.action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
            Action::Forget => "forget",
        };
        let mut change = json!({
            "cluster": section.cluster,
            "manifest": section.plan.manifest,
            "address": item.address(),
            "mode": "managed",
            "type": item.kind,
            "name": item.name,
            "change": { "actions": [action], "before": item.before, "after": item.after },
        });
        if item.ownership == Ownership::Adopted {
            change["action_reason"] = json!("adopted_by_manifest");
        }
        change
    })
}

impl Counts {
    fn json(self) -> Value {
        json!({ "add": self.add, "change": self.change, "remove": self.destroy, "forget": self.forget })
    }
}

/// Writing to a `String` cannot fail.
fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(what);
}

/// Puts colour on words, or does not.
struct Painter(Colour);

impl Painter {
    fn paint(&self, style: Style, text: &str) -> String {
        match self.0 {
            Colour::Always => text.style(style).to_string(),
            Colour::Never => text.to_owned(),
        }
    }

    fn bold(&self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    fn symbol(&self, action: Action) -> String {
        let (symbol, style) = match action {
            Action::Create => ("+", Style::new().green()),
            Action::Update => ("~", Style::new().yellow()),
            Action::Delete => ("-", Style::new().red()),
            Action::Forget => (".", Style::new().red()),
        };
        self.paint(style, symbol)
    }
}

#[cfg(test)]
mod tests;
