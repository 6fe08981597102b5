//! The summary that a run prints when it ends.
//!
//! Pure text from a [`Report`]: aligned, wrapped to the terminal's width, coloured only when asked. Strings that came
//! from outside are made printable first, so that no server can steer the reader's terminal.

use super::summary::{self, Row, Section, Tone};
use super::units::{columns, columns_of, printable};
use super::{Promise, Report};

/// Widths this can be laid out in; what is asked for beyond them is taken as the nearest.
const WIDTHS: (usize, usize) = (60, 160);
/// Names longer than this are wrapped into a line of their own.
const NAME_COLUMNS_MAX: usize = 28;
/// A note that has less room than this beside its figures goes below them.
const NOTE_COLUMNS_MIN: usize = 22;

/// The whole summary, ending with a line break. `width` is the terminal's, in columns; `colour` adds ANSI colours.
pub fn table(report: &Report, width: usize, colour: bool) -> String {
    let mut page = Page::new(width, colour);
    for section in &summary::sections(report) {
        page.section(section);
    }
    page.promises(&report.promises);
    let verdict = summary::verdict(report);
    page.verdict(verdict.word, &verdict.sentence, verdict.tone);
    page.text
}

/// Text as it grows, with what it takes to lay it out. Also carries the comparison.
pub(super) struct Page {
    /// What was laid out so far.
    pub(super) text: String,
    width: usize,
    colour: bool,
}

impl Page {
    /// An empty page; for `width` and `colour` see [`table`].
    pub(super) fn new(width: usize, colour: bool) -> Page {
        Page {
            text: String::new(),
            width: width.clamp(WIDTHS.0, WIDTHS.1),
            colour,
        }
    }

    /// A title with its headings, and every row below it.
    pub(super) fn section(&mut self, section: &Section) {
        let names = section
            .rows
            .iter()
            .map(|row| columns(&printable(&row.name)));
        let name_columns = names.max().unwrap_or(0).min(NAME_COLUMNS_MAX);
        let cell_columns: Vec<usize> = (0..section.columns.len())
            .map(|index| {
                let cells = section.rows.iter().filter_map(|row| row.cells.get(index));
                let widest = cells.map(|cell| columns(cell)).max().unwrap_or(0);
                widest.max(columns(section.columns[index]))
            })
            .collect();
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let title = pad_right(section.title, name_columns + 2);
        self.paint(&title, Paint::Title);
        for (heading, width) in section.columns.iter().zip(&cell_columns) {
            let heading = format!("  {}", pad_left(heading, *width));
            self.paint(&heading, Paint::Dim);
        }
        self.end_line();
        for row in &section.rows {
            self.row(row, name_columns, &cell_columns);
        }
    }

    /// `sentence` on lines of its own, `indent` columns in.
    pub(super) fn sentence(&mut self, sentence: &str, indent: usize) {
        for line in wrap(&printable(sentence), self.width - indent) {
            self.text.push_str(&" ".repeat(indent));
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn row(&mut self, row: &Row, name_columns: usize, cell_columns: &[usize]) {
        let name = printable(&row.name);
        self.text.push_str("  ");
        if columns(&name) > name_columns {
            let mut lines = wrap(&name, self.width - 2);
            let last = lines.pop().unwrap_or_default();
            for line in lines {
                self.text.push_str(&line);
                self.text.push_str("\n  ");
            }
            self.text.push_str(&last);
            self.text.push_str("\n  ");
            self.text.push_str(&" ".repeat(name_columns));
        } else {
            self.text.push_str(&pad_right(&name, name_columns));
        }
        let mut used = 2 + name_columns;
        if !row.cells.is_empty() {
            for (cell, width) in row.cells.iter().zip(cell_columns) {
                let cell = format!("  {}", pad_left(&printable(cell), *width));
                self.paint(&cell, Paint::Tone(row.tone));
                used += 2 + width;
            }
        }
        self.note(&printable(&row.note), used + 2);
    }

    /// Ends a row with its note: beside the figures if there is room, else below.
    fn note(&mut self, note: &str, at: usize) {
        if note.is_empty() {
            return self.end_line();
        }
        let beside = self.width >= at + NOTE_COLUMNS_MIN;
        let indent = if beside { at } else { 6 };
        if !beside {
            self.end_line();
        }
        for (index, line) in wrap(note, self.width - indent).iter().enumerate() {
            let gap = if index == 0 && beside { 2 } else { indent };
            self.text.push_str(&" ".repeat(gap));
            self.paint(line, Paint::Note);
            self.end_line();
        }
    }

    fn promises(&mut self, promises: &[Promise]) {
        if promises.is_empty() {
            return;
        }
        self.text.push('\n');
        self.paint("promises", Paint::Title);
        self.end_line();
        for promise in promises {
            let (mark, tone) = if promise.held {
                ("held  ", Tone::Good)
            } else {
                ("BROKEN", Tone::Bad)
            };
            self.text.push_str("  ");
            self.paint(mark, Paint::Tone(tone));
            self.text.push_str("  ");
            for (index, line) in wrap(&printable(&promise.what), self.width - 10)
                .iter()
                .enumerate()
            {
                self.text
                    .push_str(if index == 0 { "" } else { "          " });
                self.text.push_str(line);
                self.text.push('\n');
            }
            for line in wrap(&printable(&promise.detail), self.width - 10) {
                self.text.push_str("          ");
                self.paint(&line, Paint::Dim);
                self.end_line();
            }
        }
    }

    fn verdict(&mut self, word: &str, sentence: &str, tone: Tone) {
        self.text.push('\n');
        self.paint(word, Paint::Verdict(tone));
        let indent = columns(word) + 2;
        if sentence.trim().is_empty() {
            return self.end_line();
        }
        for (index, line) in wrap(&printable(sentence), self.width - indent)
            .iter()
            .enumerate()
        {
            self.text
                .push_str(&" ".repeat(if index == 0 { 2 } else { indent }));
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    fn paint(&mut self, text: &str, paint: Paint) {
        let code = paint.code();
        if self.colour && !code.is_empty() {
            self.text.push_str(&format!("\x1b[{code}m{text}\x1b[0m"));
        } else {
            self.text.push_str(text);
        }
    }

    /// A line break with no blanks before it.
    fn end_line(&mut self) {
        self.text.truncate(self.text.trim_end_matches(' ').len());
        self.text.push('\n');
    }
}

#[derive(Clone, Copy)]
enum Paint {
    Title,
    Dim,
    Note,
    Tone(Tone),
    Verdict(Tone),
}

impl Paint {
    /// Parameters of the ANSI sequence; none for plain text.
    fn code(self) -> &'static str {
        match self {
            Paint::Title => "1",
            Paint::Dim => "2",
            Paint::Note | Paint::Tone(Tone::Plain) => "",
            Paint::Tone(Tone::Good) => "32",
            Paint::Tone(Tone::Notable) => "33",
            Paint::Tone(Tone::Bad) => "1;31",
            Paint::Verdict(Tone::Good) => "1;30;42",
            Paint::Verdict(Tone::Bad) => "1;37;41",
            Paint::Verdict(Tone::Plain | Tone::Notable) => "1;30;43",
        }
    }
}

fn pad_right(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(columns(text))))
}

fn pad_left(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(columns(text))))
}

/// `text` in lines of at most `width` columns, broken between words, or inside a word that is longer than a line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split_whitespace() {
        let word_columns = columns(word);
        if used > 0 && used + 1 + word_columns > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for c in word.chars() {
            if used + columns_of(c) > width {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push(c);
            used += columns_of(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}
