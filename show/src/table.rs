//! Columns that line up, and fit a terminal.
//!
//! Pure.

use super::terminal::Terminal;
use api::shown::shown;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for the part of a cell that has no room.
const CUT: &str = "…";
/// No column is made narrower than this for others.
const NARROWEST: usize = 8;
const BETWEEN: &str = "  ";

/// The colour of a cell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Colour {
    /// None.
    #[default]
    Plain,
    /// Of what works.
    Good,
    /// Of what somebody should look at.
    Doubtful,
    /// Of what does not work.
    Bad,
    /// Of what matters less.
    Faint,
}

/// Which end of a cell says more, if it has to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Its beginning.
    Beginning,
    /// Its end.
    End,
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    keep: Keep,
    optional: bool,
}

impl Column {
    /// One whose cells are cut at their end.
    pub const fn new(name: &'static str) -> Self {
        Self { name, keep: Keep::Beginning, optional: false }
    }

    /// One of paths: their ends say more.
    pub const fn of_paths(self) -> Self {
        Self { keep: Keep::End, ..self }
    }

    /// It is left out if all its cells are empty.
    pub const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }
}

/// One cell: words of others are escaped here.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    colour: Colour,
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        // Nothing but blanks would move the next column.
        Self { text: shown(text.as_ref()).replace('\t', " "), colour: Colour::Plain }
    }
}

impl Cell {
    /// One with a colour.
    pub fn coloured(text: impl AsRef<str>, colour: Colour) -> Self {
        Self { colour, ..text.into() }
    }
}

/// Columns and rows, as text.
pub fn table(columns: &[Column], rows: &[Vec<Cell>], terminal: Terminal) -> String {
    let is_shown = |at: usize| !columns[at].optional || rows.iter().any(|row| !row[at].text.is_empty());
    let shown: Vec<usize> = (0..columns.len()).filter(|at| is_shown(*at)).collect();
    let mut widths: Vec<usize> = shown
        .iter()
        .map(|at| rows.iter().map(|row| row[*at].text.width()).max().unwrap_or_default().max(columns[*at].name.len()))
        .collect();
    if let Some(width) = terminal.width {
        fit(&mut widths, width);
    }
    let names: Vec<Cell> = columns.iter().map(|column| column.name.into()).collect();
    let mut text = String::new();
    for row in std::iter::once(&names).chain(rows) {
        let cells = shown.iter().zip(&widths).enumerate().map(|(nth, (at, width))| {
            let Cell { text, colour } = &row[*at];
            let text = cut(text, *width, columns[*at].keep);
            let blanks = if nth + 1 == shown.len() { 0 } else { width - text.width() };
            format!("{}{}", painted(&text, *colour, terminal), " ".repeat(blanks))
        });
        text.push_str(cells.collect::<Vec<_>>().join(BETWEEN).trim_end());
        text.push('\n');
    }
    text
}

/// Makes the widest columns narrower until all of them fit, or none of them can be.
fn fit(widths: &mut [usize], room: usize) {
    let between = BETWEEN.len() * widths.len().saturating_sub(1);
    let mut too_much = (widths.iter().sum::<usize>() + between).saturating_sub(room);
    while too_much > 0 {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else { return };
        *widest -= 1;
        too_much -= 1;
    }
}

fn cut(text: &str, width: usize, keep: Keep) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(CUT.width());
    let mut taken = 0;
    let mut fits = |c: &char| {
        taken += c.width().unwrap_or_default();
        taken <= room
    };
    match keep {
        Keep::Beginning => text.chars().take_while(|c| fits(c)).collect::<String>() + CUT,
        Keep::End => {
            let end: Vec<char> = text.chars().rev().take_while(|c| fits(c)).collect();
            CUT.to_owned() + &end.into_iter().rev().collect::<String>()
        }
    }
}

/// A text in its colour (ECMA-48), where there are colours.
pub fn painted(text: &str, colour: Colour, terminal: Terminal) -> String {
    let code = match colour {
        _ if !terminal.colour => return text.to_owned(),
        Colour::Plain => return text.to_owned(),
        Colour::Good => "32",
        Colour::Doubtful => "33",
        Colour::Bad => "1;31",
        Colour::Faint => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] =
        [Column::new("TYPE"), Column::new("STATE"), Column::new("TARGET").of_paths(), Column::new("NOTE").optional()];

    fn row(cells: [&str; 4]) -> Vec<Cell> {
        cells.iter().map(Cell::from).collect()
    }

    #[test]
    fn columns_line_up_and_an_empty_one_is_left_out() {
        let rows = [row(["fuse.bindfs", "mounted", "/mnt/a", ""]), row(["日本", "dead", "/mnt/b", ""])];
        let text = table(&COLUMNS, &rows, Terminal::default());
        assert_eq!(text, "TYPE         STATE    TARGET\nfuse.bindfs  mounted  /mnt/a\n日本         dead     /mnt/b\n");
        let noted = table(&COLUMNS, &[row(["x", "dead", "/", "do something"])], Terminal::default());
        assert_eq!(noted, "TYPE  STATE  TARGET  NOTE\nx     dead   /       do something\n");
    }

    #[test]
    fn the_widest_are_cut_to_fit() {
        let rows = [row(["fuse.bindfs", "mounted", "/var/lib/kubelet/pods/u/volumes/v/mount", "a long word or two"])];
        let text = table(&COLUMNS, &rows, Terminal { width: Some(50), colour: false });
        assert_eq!(text.lines().nth(1).unwrap(), "fuse.bindfs  mounted  …umes/v/mount  a long word …", "{text}");
        for width in 1..120 {
            let text = table(&COLUMNS, &rows, Terminal { width: Some(width), colour: false });
            let longest = text.lines().map(UnicodeWidthStr::width).max().unwrap();
            assert!(longest <= width.max(4 * NARROWEST + 6), "{width}: {text}");
        }
    }

    #[test]
    fn colours_move_nothing() {
        let rows = [vec![Cell::from("x"), Cell::coloured("dead", Colour::Bad), "/".into(), "n".into()]];
        let plain = table(&COLUMNS, &rows, Terminal::default());
        let coloured = table(&COLUMNS, &rows, Terminal { width: None, colour: true });
        assert_eq!(coloured, plain.replace("dead", "\u{1b}[1;31mdead\u{1b}[0m"));
    }

    #[test]
    fn words_of_others_write_no_lines_and_no_colours() {
        let text = table(&COLUMNS, &[row(["x\n/mnt/b\u{1b}[1A\t", "s", "t", ""])], Terminal::default());
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("x\\n/mnt/b\\u{1b}[1A   s"), "{text}");
    }
}
