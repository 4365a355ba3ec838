//! The limits of a declaration file, each stated in the message of whoever meets it.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Faults};

/// Largest declaration file, bytes.
pub const MAX_FILE: usize = 4 * 1024 * 1024;
/// Deepest nesting of blocks, lists, objects, parentheses and interpolations together. Parsers recurse, so this is
/// what keeps a hostile file off the end of the stack; nothing declared here needs a third of it.
pub const MAX_DEPTH: usize = 32;

/// Most keys of one object or block. Key lookup is by walking, here and in hcl-edit, so that many keys would cost
/// the square of their number.
pub const MAX_KEYS: usize = 4096;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file's bytes as text: what messages show of it, and whether it can be parsed.
pub struct Text {
    pub shown: Arc<str>,
    pub usable: bool,
}

/// Decodes a file. A byte order mark is blanked, so that every place stays what it is.
pub fn text(bytes: &[u8], faults: &mut Faults) -> Text {
    text_within(bytes, MAX_FILE, faults)
}

/// The same, for what may have at most `max` bytes.
pub fn text_within(bytes: &[u8], max: usize, faults: &mut Faults) -> Text {
    let unusable = |shown: &str| Text { shown: Arc::from(shown), usable: false };
    if bytes.len() > max {
        faults.push(
            Diagnostic::error("file-too-large", "this file is too large", Some(faults.at(0..0))).detail(
                format!(
                    "It has {} bytes; a declaration file has at most {} MiB. Split it into several files.",
                    bytes.len(),
                    max / (1024 * 1024)
                ),
            ),
        );
        return unusable("");
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        faults.push(
            Diagnostic::error("not-utf8", "this file is UTF-16", Some(faults.at(0..0)))
                .detail("Declarations are UTF-8. Save the file in that encoding."),
        );
        return unusable("");
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if text.starts_with(BYTE_ORDER_MARK) => {
            faults.push(Diagnostic::warning(
                "byte-order-mark",
                "this file begins with a byte order mark, which is passed over",
                Some(faults.at(0..0)),
            ));
            Text { shown: text.replacen(BYTE_ORDER_MARK, "   ", 1).into(), usable: true }
        }
        Ok(text) => Text { shown: Arc::from(text), usable: true },
        Err(error) => {
            let bad = error.valid_up_to();
            // The valid part, then one replacement character to point at.
            let mut shown = String::from_utf8_lossy(&bytes[..bad]).into_owned();
            shown.push(char::REPLACEMENT_CHARACTER);
            faults.push(
                Diagnostic::error(
                    "not-utf8",
                    "this file is not UTF-8",
                    Some(faults.at(bad..bad + char::REPLACEMENT_CHARACTER.len_utf8())),
                )
                .detail(format!(
                    "The byte 0x{:02x} at offset {bad} begins no UTF-8 character. Save the file in that encoding.",
                    bytes.get(bad).copied().unwrap_or_default(),
                )),
            );
            unusable(&shown)
        }
    }
}

/// The fault of nesting deeper than [`MAX_DEPTH`].
pub fn too_deep(faults: &mut Faults, at: usize) {
    faults.push(
        Diagnostic::error("nested-too-deep", "this is nested too deep", Some(faults.at(at..at + 1)))
            .detail(format!("Values may be nested at most {MAX_DEPTH} levels deep.")),
    );
}

/// The fault of an object with more than [`MAX_KEYS`] keys.
pub fn too_many_keys(faults: &mut Faults, at: usize) {
    faults.push(
        Diagnostic::error("too-many-keys", "this has too many keys", Some(faults.at(at..at + 1)))
            .detail(format!("An object or a block has at most {MAX_KEYS} keys.")),
    );
}
