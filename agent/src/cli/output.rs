//! What a command prints: results on standard output, in the format asked for; everything else on standard error.
//!
//! Printing never fails a command half way: a reader that has gone away (`comity … | head`) is no fault at all, and
//! any other fault of standard output (a full disk) is kept and told at the end, when the work is done.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Mutex;

use comfy_table::{ContentLineStyle, LineStyle, TableStyle};
use schema::render::visible;
use serde::Serialize;

use super::failure::CliError;
use super::yaml;

/// How results are printed, as `--format` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Encoding {
    // No doc comments: clap would make every help page longer by them.
    #[default]
    #[value(alias = "table", alias = "pretty")]
    Text,
    Json,
    Yaml,
    Csv,
    Compact,
}

impl Encoding {
    /// The shape in which a command gives its result.
    pub fn format(self) -> Format {
        match self {
            Encoding::Text | Encoding::Csv | Encoding::Compact => Format::Text,
            Encoding::Json | Encoding::Yaml => Format::Json,
        }
    }
}

/// What a command has to prepare: the output knows how it is written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Sentences and tables: `text`, `csv` and `compact`.
    Text,
    /// One document: `json` and `yaml`.
    Json,
}

/// Standard output and what is known about it.
#[derive(Debug)]
pub struct Output {
    encoding: Encoding,
    quiet: bool,
    colourful: bool,
    state: Mutex<State>,
}

/// What [`Output::note`] prints, for whoever has no output at hand.
pub fn remark(quiet: bool, text: impl Display) {
    if !quiet {
        let _ = writeln!(anstream::stderr(), "{}", visible(&text.to_string()));
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Open,
    /// The reader has gone: the rest is for nobody.
    Gone,
    Broken(io::Error),
}

impl Output {
    pub fn new(encoding: Encoding, quiet: bool) -> Self {
        let colourful = !matches!(anstream::stdout().current_choice(), anstream::ColorChoice::Never);
        Self { encoding, quiet, colourful, state: Mutex::default() }
    }

    pub fn format(&self) -> Format {
        self.encoding.format()
    }

    /// `--quiet`: only the value asked for, nothing around it.
    pub fn quiet(&self) -> bool {
        self.quiet
    }

    /// Text to standard output, with a line end. Colours are dropped where the output does not take them.
    pub fn line(&self, text: impl Display) {
        self.write(|out| writeln!(out, "{text}"));
    }

    /// Text to standard output as it is.
    pub fn text(&self, text: impl Display) {
        self.write(|out| write!(out, "{text}"));
    }

    /// Text to standard output that is wanted at once, and not only when there is enough of it.
    pub fn now(&self, text: impl Display) {
        self.write(|out| {
            write!(out, "{text}")?;
            out.flush()
        });
    }

    /// Whether nothing that is written from here on gets anywhere: the reader has gone, or the output is broken.
    pub fn is_over(&self) -> bool {
        !matches!(*self.lock(), State::Open)
    }

    /// A document to standard output, in JSON or, if that was asked for, in YAML.
    pub fn json(&self, value: &impl Serialize) {
        if self.encoding == Encoding::Yaml {
            return self.yaml(value);
        }
        self.write(|out| {
            serde_json::to_writer_pretty(&mut *out, value)?;
            writeln!(out)
        });
    }

    /// Whether documents are asked for in YAML.
    pub fn is_yaml(&self) -> bool {
        self.encoding == Encoding::Yaml
    }

    /// Whether tables are asked for as rows for programs.
    pub fn is_csv(&self) -> bool {
        self.encoding == Encoding::Csv
    }

    /// A YAML document to standard output.
    pub fn yaml(&self, value: &impl Serialize) {
        self.text(yaml::text(value));
    }

    /// A table to standard output; with no rows only its head. CSV has no head, as LXD's has none.
    pub fn table(&self, table: &Table) {
        match self.encoding {
            Encoding::Csv => self.text(table.csv()),
            Encoding::Compact => self.text(table.compact()),
            Encoding::Text | Encoding::Json | Encoding::Yaml => self.line(table),
        }
    }

    /// Says that `name` was dealt with: a sentence for people, unless `--quiet`; its name for programs.
    pub fn done(&self, sentence: impl Display, name: &str) {
        match self.format() {
            Format::Json => self.json(&serde_json::json!({ "name": name })),
            Format::Text if self.quiet => {}
            Format::Text => self.line(sentence),
        }
    }

    /// Says that there is nothing to list: to people, for programs an empty list says so.
    pub fn nothing(&self, text: impl Display) {
        if self.encoding != Encoding::Csv {
            self.line(text);
        }
    }

    /// A remark for the person at the terminal: standard error, unless `--quiet`.
    pub fn note(&self, text: impl Display) {
        remark(self.quiet, text);
    }

    /// True if standard output shows colours.
    pub fn colourful(&self) -> bool {
        self.colourful
    }

    /// Asks yes or no on the terminal. Without one, fails and says which flag answers in its place.
    pub fn confirm(&self, question: &str, flag: &str) -> Result<bool, CliError> {
        if !io::stdin().is_terminal() {
            return Err(CliError::failed(format!("there is no terminal to ask on: {question}"))
                .hint(format!("Give {flag} to go on without being asked.")));
        }
        Ok(matches!(self.ask(&format!("{question} (y/n) "))?.as_str(), "y" | "yes"))
    }

    /// Asks for a line on standard error, after all that was printed before, and reads it from standard input.
    pub fn ask(&self, question: &str) -> Result<String, CliError> {
        self.write(|out| out.flush());
        let mut stderr = anstream::stderr().lock();
        let _ = write!(stderr, "{question}");
        let _ = stderr.flush();
        let mut line = String::new();
        let read = io::stdin()
            .read_line(&mut line)
            .map_err(|error| CliError::failed(format!("standard input could not be read: {error}")))?;
        if read == 0 {
            // The end of the input brings no line end of its own.
            let _ = writeln!(stderr);
        }
        Ok(line.trim().to_owned())
    }

    /// Asks for a secret: not shown while it is typed on a terminal.
    pub fn secret(&self, question: &str) -> Result<String, CliError> {
        if !io::stdin().is_terminal() {
            return self.ask(question);
        }
        dialoguer::Password::new()
            .with_prompt(question.trim_end().trim_end_matches(':'))
            .interact()
            .map_err(|error| CliError::failed(format!("the terminal could not be read: {error}")))
    }

    /// What went wrong with standard output, if anything did.
    pub fn finish(&self) -> Result<(), CliError> {
        self.write(|out| out.flush());
        match std::mem::take(&mut *self.lock()) {
            State::Open | State::Gone => Ok(()),
            State::Broken(error) => {
                Err(CliError::failed(format!("standard output could not be written: {error}")).code("output"))
            }
        }
    }

    fn write(&self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) {
        let mut state = self.lock();
        if matches!(*state, State::Open) {
            let mut stdout = anstream::stdout().lock();
            if let Err(error) = write(&mut stdout) {
                *state = if error.kind() == io::ErrorKind::BrokenPipe {
                    State::Gone
                } else {
                    State::Broken(error)
                };
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere cannot have torn it.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A line that others wrote part of, with what would move the cursor made visible.
pub fn visible_line(text: &str) -> String {
    visible(&text.replace('\n', ", ")).into_owned()
}

/// Boxed in ASCII, with the same rule everywhere.
const LXD: TableStyle = {
    let rule = LineStyle::new('+', '-', '+', '+');
    let line = ContentLineStyle::new('|', '|', '|');
    TableStyle::new()
        .top_border(rule)
        .header_lines(line)
        .header_separator(rule)
        .content_lines(line)
        .row_separator(rule)
        .bottom_border(rule)
};

/// A table as LXD draws them: boxed in ASCII, a rule between rows.
#[derive(Debug, Clone)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).to_vec(), rows: Vec::new() }
    }

    /// One whose columns are chosen when it is drawn.
    pub fn with<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        Self { head: head.into_iter().map(str::to_owned).collect(), rows: Vec::new() }
    }

    /// A row of one made by `with`.
    pub fn push(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| visible(&cell).into_owned()).collect());
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| visible(&cell).into_owned()).to_vec());
    }

    /// One record a line, quoted where it must be (RFC 4180), lines ended as everywhere else here.
    fn csv(&self) -> String {
        let cell = |cell: &String| {
            if cell.contains(['"', ',', '\n', '\r']) {
                format!("\"{}\"", cell.replace('"', "\"\""))
            } else {
                cell.clone()
            }
        };
        let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n";
        self.rows.iter().map(line).collect()
    }

    /// Columns without a box, as LXD's `compact`.
    fn compact(&self) -> String {
        let mut drawn = comfy_table::Table::new();
        drawn.load_style(TableStyle::new().content_lines(ContentLineStyle::new(' ', ' ', ' ')));
        drawn.set_header(&self.head);
        drawn.add_rows(&self.rows);
        let lines: Vec<String> = drawn.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n") + "\n"
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut drawn = comfy_table::Table::new();
        drawn.load_style(LXD);
        drawn.set_header(&self.head);
        drawn.add_rows(&self.rows);
        drawn.fmt(f)
    }
}

/// JSON as Consul's commands indent it: by four.
pub fn indented(value: &serde_json::Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // A value that is JSON already is always written, and as UTF-8.
    let _ = value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Rows as Consul's commands align them: columns two spaces apart, without a box. The first row is the head.
pub fn aligned<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.map(|row| row.map(|cell| visible_line(&cell))).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "DESCRIPTION"]);
        table.row(["link".to_owned(), String::new()]);
        table.row(["ops".to_owned(), "says \"no\",\nalways".to_owned()]);
        table
    }

    #[test]
    fn a_table_is_written_in_each_way() {
        assert_eq!(table().csv(), "link,\nops,\"says \"\"no\"\",\nalways\"\n");
        let compact = table().compact();
        let words: Vec<Vec<&str>> = compact.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["NAME", "DESCRIPTION"]);
        assert_eq!(words[1], ["link"]);
        assert!(!compact.contains(['+', '|']), "{compact}");
        assert!(table().to_string().starts_with("+------+"), "{}", table());
    }
}
