//! Tables for people: columns as wide as what is in them.

use crate::terminal::{Meaning, Palette};

/// What stands in a column of a row: text that is escaped already, and what it means.
pub(super) struct Cell(String, Option<Meaning>);

impl Cell {
    /// Text that means nothing by itself.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(text.into(), None)
    }

    /// Text in the colour of what it means.
    pub(super) fn of(meaning: Option<Meaning>, text: impl Into<String>) -> Self {
        Self(text.into(), meaning)
    }
}

/// Rows under their heads, the last column not padded.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: &[[Cell; N]], colours: Palette) -> String {
    let mut widths = heads.map(str::len);
    for row in rows {
        for (width, Cell(text, _)) in widths.iter_mut().zip(row) {
            *width = (*width).max(text.chars().count());
        }
    }
    if let Some(last) = widths.last_mut() {
        *last = 0;
    }
    let heads: Vec<_> = heads.iter().zip(widths).map(|(head, width)| format!("{head:width$}")).collect();
    let mut lines = vec![colours.heading(&heads.join("  ")).to_string()];
    for row in rows {
        let cells = row.iter().zip(widths);
        let cells =
            cells.map(|(Cell(text, meaning), width)| format!("{:width$}", colours.paint(*meaning, text)));
        lines.push(cells.collect::<Vec<_>>().join("  "));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let row = |name: &str, n: &str| [Cell::plain(name), Cell::of(Some(Meaning::Good), n)];
        let rows = [row("a", "12"), row("l\u{f6}ng name", "3")];
        let shown = table(["NAME", "N"], &rows, Palette::PLAIN);
        assert_eq!(shown, "NAME       N\na          12\nl\u{f6}ng name  3");
    }
}
