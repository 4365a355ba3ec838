//! A QR code in a terminal: two modules a character, upper and lower half.

use qrcode::{Color, EcLevel, QrCode};

/// The bright frame around the code that readers need. The standard has four modules; readers do with two, and a
/// terminal has few lines.
const FRAME: usize = 2;

/// A drawn code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// Lines, each ended.
    pub text: String,
    /// Columns.
    pub width: usize,
}

/// Draws `content`; `None` if it is too long for a code. With colours it is dark on bright whatever the terminal's are.
/// Without, the bright modules are drawn: right on a dark terminal, and on a bright one inverted, which readers take.
pub fn draw(content: &str, colours: bool) -> Option<Drawn> {
    let code = QrCode::with_error_correction_level(content, EcLevel::L).ok()?;
    let (size, modules) = (code.width(), code.to_colors());
    let width = size + 2 * FRAME;
    let is_dark = |row: usize, column: usize| {
        let (row, column) = (row.checked_sub(FRAME), column.checked_sub(FRAME));
        match (row, column) {
            (Some(row), Some(column)) if row < size && column < size => {
                modules[row * size + column] == Color::Dark
            }
            _ => false,
        }
    };
    let mut text = String::new();
    for row in (0..width).step_by(2) {
        if colours {
            // Black on bright white.
            text.push_str("\u{1b}[30;107m");
        }
        for column in 0..width {
            // The row below the last one is frame.
            let (upper, lower) = (is_dark(row, column), is_dark(row + 1, column));
            text.push(match (upper == colours, lower == colours) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        text.push_str(if colours { "\u{1b}[0m\n" } else { "\n" });
    }
    Some(Drawn { text, width })
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://idp.example/device?user_code=1234-5678";

    /// The modules that were drawn, frame and all.
    fn modules(drawn: &Drawn, colours: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawn.text.lines() {
            let line = line.trim_start_matches("\u{1b}[30;107m").trim_end_matches("\u{1b}[0m");
            let halves: Vec<(bool, bool)> = line
                .chars()
                .map(|c| match c {
                    '█' => (true, true),
                    '▀' => (true, false),
                    '▄' => (false, true),
                    ' ' => (false, false),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(halves.len(), drawn.width);
            rows.push(halves.iter().map(|half| half.0 == colours).collect());
            rows.push(halves.iter().map(|half| half.1 == colours).collect());
        }
        rows
    }

    #[test]
    fn what_is_drawn_is_the_code_in_a_bright_frame_in_colours_and_without() {
        let code = QrCode::with_error_correction_level(URL, EcLevel::L).unwrap();
        for colours in [true, false] {
            let drawn = draw(URL, colours).unwrap();
            assert!(drawn.width < 60, "it fits a terminal: {}", drawn.width);
            assert_eq!(drawn.text.contains('\u{1b}'), colours);
            let rows = modules(&drawn, colours);
            for (row, line) in rows.iter().enumerate() {
                for (column, dark) in line.iter().enumerate() {
                    let inside = (FRAME..FRAME + code.width()).contains(&row)
                        && (FRAME..FRAME + code.width()).contains(&column);
                    let expected = inside && code[(column - FRAME, row - FRAME)] == Color::Dark;
                    assert_eq!(*dark, expected, "row {row}, column {column}");
                }
            }
        }
        assert_eq!(draw(&"x".repeat(5000), true), None);
    }
}
