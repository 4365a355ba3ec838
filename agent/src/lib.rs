//! The Comity agent and its command line, as floors: a module imports only from floors below its own. The test at the
//! end of this file holds the tree to that.

pub mod api;
pub mod apply;
pub mod audit;
pub mod authorize;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod clock;
pub mod daemon;
pub mod dataset;
pub mod files;
pub mod health;
pub mod mesh;
pub mod observe;
pub mod operation;
pub mod peering;
pub mod project;
pub mod reconcile;
pub mod settings;
pub mod sockets;
pub mod storage;
pub mod store;
pub mod strangers;
pub mod task;
pub mod transfer;
pub mod trust;
pub mod tunnel;
pub mod web;
pub mod wire;

/// The rules of the house, read from the sources as text: simple enough to trust, and it needs no build.
#[cfg(test)]
mod floors {
    use std::path::{Path, PathBuf};

    /// From the ground up. Modules of one floor do not import each other, except as `BESIDE` says.
    const FLOORS: [&[&str]; 10] = [
        &["store", "files", "task", "sockets", "strangers", "clock"],
        &["wire", "dataset", "audit", "web"],
        &["tunnel", "trust", "authorize", "settings"],
        &["catalog", "health", "operation", "client", "project", "storage"],
        &["peering", "mesh", "transfer"],
        &["apply", "observe"],
        &["reconcile"],
        &["api"],
        &["daemon"],
        &["cli"],
    ];

    /// (importer, imported): who is calling is asked by the connections, by the decision what they may do, and by what
    /// they change; what is checked is what the catalog lists; an apply compares with what is live.
    const BESIDE: [(&str, &str); 6] = [
        ("web", "wire"),
        ("tunnel", "trust"),
        ("authorize", "trust"),
        ("settings", "trust"),
        ("health", "catalog"),
        ("apply", "observe"),
    ];

    /// Names that say nothing about what is inside.
    const EMPTY_NAMES: [&str; 9] =
        ["util", "utils", "common", "helper", "helpers", "types", "error", "errors", "misc"];

    const MOST_LINES: usize = 500;

    /// What would make the words of `schema` depend on anything but their arguments.
    /// (Addresses are words; sockets are not.)
    const IMPURE_WORDS: [&str; 8] =
        ["async", "await", "tokio", "Instant", "SystemTime", "TcpStream", "UdpSocket", "ToSocketAddrs"];
    const IMPURE_STD: [&str; 5] = ["fs", "env", "process", "thread", "os"];

    #[test]
    fn modules_import_only_from_floors_below_their_own() {
        let root = workspace().join("agent/src");
        let mut faults = Vec::new();
        for file in sources(&root) {
            let inside: Vec<String> = module_path(file.strip_prefix(&root).unwrap());
            if inside.is_empty() {
                continue;
            }
            for (line, wanted) in imports(&read(&file), &inside) {
                if let Err(why) = allowed(&inside[0], &wanted) {
                    faults.push(format!("{}:{line}: imports `{wanted}`, but {why}", shown(&file)));
                }
            }
        }
        assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    }

    #[test]
    fn every_file_is_short_and_named_for_what_it_does() {
        let mut faults = Vec::new();
        for folder in ["agent", "schema", "integration"] {
            for file in sources(&workspace().join(folder)) {
                let lines = read(&file).lines().count();
                if lines > MOST_LINES {
                    faults.push(format!("{}: {lines} lines, more than {MOST_LINES}", shown(&file)));
                }
                let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
                if stem == "mod" || EMPTY_NAMES.contains(&stem.as_str()) {
                    faults.push(format!("{}: `{stem}` says nothing about what is inside", shown(&file)));
                }
            }
        }
        assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    }

    #[test]
    fn schema_is_pure() {
        let mut faults = Vec::new();
        let in_tests = |file: &PathBuf| file.iter().any(|part| part == "tests.rs" || part == "tests");
        for file in sources(&workspace().join("schema/src")).into_iter().filter(|file| !in_tests(file)) {
            let tokens = tokens(&code(&read(&file)));
            let words = tokens.iter().filter(|t| IMPURE_WORDS.contains(&t.text.as_str())).cloned();
            let modules =
                reached(&tokens, "std").into_iter().filter(|t| IMPURE_STD.contains(&t.text.as_str()));
            for found in words.chain(modules) {
                faults.push(format!("{}:{}: `{}` is no pure word", shown(&file), found.line, found.text));
            }
        }
        assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    }

    #[test]
    fn every_module_has_its_floor() {
        let text = read(&workspace().join("agent/src/lib.rs"));
        for line in text.lines().filter_map(|l| l.strip_prefix("pub mod ")) {
            assert!(floor(line.trim_end_matches(';')).is_some(), "`{line}` is on no floor");
        }
    }

    #[test]
    fn the_reader_sees_what_the_compiler_sees() {
        let text = "use crate::{api, store::{Store, Txn}};\n// crate::daemon\nfn f<'a>(c: char) { let _ = ('\"', \"crate::cli\"); }\n\
                    mod inner { use super::super::super::mesh::Mesh; use super::super::near; }\n\
                    pub(crate) fn g() { crate::wire::x(); r#\"crate::cli\"#; }\n\
                    #[cfg(test)]\nmod tests { use crate::peering; }\n";
        let found = imports(text, &["trust".to_owned(), "token".to_owned()]);
        let found: Vec<_> = found.iter().map(|(line, name)| (*line, name.as_str())).collect();
        assert_eq!(found, [(1, "api"), (1, "store"), (4, "mesh"), (5, "wire")]);
        assert!(allowed("trust", "store").is_ok() && allowed("tunnel", "trust").is_ok());
        assert!(allowed("trust", "tunnel").is_err() && allowed("trust", "api").is_err());
    }

    fn allowed(importer: &str, imported: &str) -> Result<(), String> {
        let (Some(own), Some(other)) = (floor(importer), floor(imported)) else {
            return Ok(());
        };
        if other < own || importer == imported || BESIDE.contains(&(importer, imported)) {
            Ok(())
        } else if other == own {
            Err(format!("`{importer}` and `{imported}` stand beside each other on floor {own}"))
        } else {
            Err(format!("`{imported}` is on floor {other}, above floor {own} of `{importer}`"))
        }
    }

    fn floor(module: &str) -> Option<usize> {
        FLOORS.iter().position(|floor| floor.contains(&module))
    }

    /// Top modules that `text`, the module at `path`, names: by `crate::` or by climbing with `super::`.
    fn imports(text: &str, path: &[String]) -> Vec<(usize, String)> {
        let tokens = tokens(&code(text));
        let mut found: Vec<Token> = reached(&tokens, "crate");
        // Inline modules deepen the path: at each brace, whether it opened one.
        let mut braces = Vec::new();
        for (at, token) in tokens.iter().enumerate() {
            match token.text.as_str() {
                "{" => braces.push(at >= 2 && tokens[at - 2].text == "mod"),
                "}" => drop(braces.pop()),
                "super" if at < 2 || tokens[at - 2].text != "super" => {
                    let climbed = tokens[at..].chunks(2).take_while(|pair| pair[0].text == "super").count();
                    if climbed == path.len() + braces.iter().filter(|module| **module).count() {
                        found.extend(named(&tokens[at + 2 * climbed..]));
                    }
                }
                _ => {}
            }
        }
        found.sort_by_key(|token| token.line);
        found.into_iter().map(|token| (token.line, token.text)).collect()
    }

    /// Every `root::X` and the heads of every `root::{X, Y::Z}`.
    fn reached(tokens: &[Token], root: &str) -> Vec<Token> {
        let after =
            |at: &usize| tokens[*at].text == root && tokens.get(at + 1).is_some_and(|t| t.text == "::");
        (0..tokens.len()).filter(after).flat_map(|at| named(&tokens[at + 2..])).collect()
    }

    /// The word that begins `tokens`, or the first words of the group that does.
    fn named(tokens: &[Token]) -> Vec<Token> {
        if tokens.first().is_none_or(|first| first.text != "{") {
            return tokens.first().cloned().into_iter().collect();
        }
        let (mut depth, mut heads, mut fresh) = (0, Vec::new(), false);
        for token in tokens {
            match token.text.as_str() {
                "{" => (depth, fresh) = (depth + 1, depth == 0),
                "}" => depth -= 1,
                "," => fresh = depth == 1,
                _ if fresh => {
                    heads.push(token.clone());
                    fresh = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        heads
    }

    #[derive(Debug, Clone)]
    struct Token {
        text: String,
        line: usize,
    }

    /// Words, `::`, and single characters for the rest.
    fn tokens(code: &str) -> Vec<Token> {
        let mut found: Vec<Token> = Vec::new();
        for (line, text) in code.lines().enumerate() {
            let mut rest = text.trim_start();
            while let Some(first) = rest.chars().next() {
                let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                let length = match word {
                    0 if rest.starts_with("::") => 2,
                    0 => first.len_utf8(),
                    word => word,
                };
                found.push(Token { text: rest[..length].to_owned(), line: line + 1 });
                rest = rest[length..].trim_start();
            }
        }
        found
    }

    /// `text` with comments, literals and test modules blanked, line for line.
    fn code(text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let length = match first {
                '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
                'r' if rest.starts_with("r#\"") => rest.find("\"#").map_or(rest.len(), |end| end + 2),
                '"' => quoted(rest),
                // A character, not a lifetime: closed after one character or an escape.
                '\'' if rest[1..].starts_with('\\') => 4 + rest[3..].find('\'').unwrap_or(0),
                '\'' if rest.chars().nth(2) == Some('\'') => rest.chars().take(3).map(char::len_utf8).sum(),
                '#' if rest.starts_with("#[cfg(test)]") && tested(rest).is_some() => {
                    tested(rest).unwrap_or(0)
                }
                _ => {
                    out.push(first);
                    rest = &rest[first.len_utf8()..];
                    continue;
                }
            };
            out.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
        out
    }

    /// Length of the string literal that begins `text`.
    fn quoted(text: &str) -> usize {
        let mut escaped = false;
        for (at, c) in text.char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at + 1,
                _ => {}
            }
        }
        text.len()
    }

    /// Length of the test module that begins `text`. It is the last thing in a file, or ends with a brace at the
    /// left margin, or at the end of its line.
    fn tested(text: &str) -> Option<usize> {
        let item = text.strip_prefix("#[cfg(test)]")?.trim_start();
        let item = item.strip_prefix("pub ").unwrap_or(item);
        let line = item.strip_prefix("mod ")?.lines().next()?;
        let start = text.len() - item.len();
        if line.ends_with(';') || line.ends_with('}') {
            return Some(start + "mod ".len() + line.len());
        }
        Some(text.find("\n}\n").map_or(text.len(), |end| end + 2))
    }

    fn module_path(relative: &Path) -> Vec<String> {
        let whole = relative.with_extension("");
        let path: Vec<String> = whole.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if path == ["lib"] || path == ["main"] { Vec::new() } else { path }
    }

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = walkdir::WalkDir::new(folder)
            .into_iter()
            .filter_map(Result::ok)
            .map(walkdir::DirEntry::into_path)
            .filter(|path| path.extension().is_some_and(|e| e == "rs"))
            .collect();
        files.sort();
        assert!(!files.is_empty(), "no sources beneath {}", folder.display());
        files
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn shown(path: &Path) -> String {
        path.strip_prefix(workspace()).unwrap_or(path).display().to_string()
    }

    fn workspace() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }
}
