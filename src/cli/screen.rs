//! A table on standard output: redrawn in place on a terminal, printed as lines elsewhere.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Color, ResetColor, SetAttribute, SetForegroundColor};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen, size,
};
use crossterm::{Command, execute, queue};

/// Whether the terminal shows our screen at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// How a part of a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    Bold,
    Dim,
    Up,
    Down,
}

/// One line, in parts that look differently.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Look, String)>);

impl Line {
    pub(super) fn new(look: Look, text: impl Into<String>) -> Self {
        Self(vec![(look, text.into())])
    }

    pub(super) fn add(mut self, look: Look, text: impl Into<String>) -> Self {
        self.0.push((look, text.into()));
        self
    }

    /// The text alone.
    fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text with its looks, cut at `width` characters.
    fn styled(&self, width: usize, out: &mut String) {
        let mut room = width;
        for (look, text) in &self.0 {
            let shown: String = text.chars().take(room).collect();
            room -= shown.chars().count();
            let _ = match look {
                Look::Plain => Ok(()),
                Look::Bold => SetAttribute(Attribute::Bold).write_ansi(out),
                Look::Dim => SetAttribute(Attribute::Dim).write_ansi(out),
                Look::Up => SetForegroundColor(Color::Green).write_ansi(out),
                Look::Down => SetForegroundColor(Color::Red).write_ansi(out),
            }; // a String takes everything
            *out += &shown;
            let _ = match look {
                Look::Plain => Ok(()),
                Look::Bold | Look::Dim => SetAttribute(Attribute::Reset).write_ansi(out),
                Look::Up | Look::Down => ResetColor.write_ansi(out),
            }; // as above
        }
    }
}

/// Standard output as a screen; given back when dropped.
#[derive(Debug)]
pub(super) struct Screen {
    is_terminal: bool,
}

impl Screen {
    /// Takes the terminal over, if standard output is one.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn open() -> io::Result<Self> {
        let is_terminal = io::stdout().is_terminal();
        if is_terminal {
            TAKEN.store(true, Ordering::Relaxed);
            execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        }
        Ok(Self { is_terminal })
    }

    /// Leaves the terminal as it is, and prints lines.
    pub(super) fn lines() -> Self {
        Self { is_terminal: false }
    }

    /// Lines that there is room for; `None` where they scroll by.
    pub(super) fn height(&self) -> Option<usize> {
        self.is_terminal.then(|| extent().1)
    }

    /// Shows `lines` instead of what was there; where there is no terminal, prints them.
    ///
    /// # Errors
    /// Those of writing.
    pub(super) fn show(&self, lines: &[Line]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if !self.is_terminal {
            for line in lines {
                writeln!(out, "{}", line.plain().trim_end())?;
            }
            return out.flush();
        }
        let (width, height) = extent();
        let mut text = String::new();
        let rows = lines.len().min(height);
        for (row, line) in lines[..rows].iter().enumerate() {
            let _ = write!(text, "{}", MoveTo(0, row as u16)); // a String takes everything
            line.styled(width, &mut text);
            let _ = write!(text, "{}", Clear(ClearType::UntilNewLine)); // as above
        }
        queue!(out, BeginSynchronizedUpdate)?;
        out.write_all(text.as_bytes())?;
        if rows < height {
            queue!(
                out,
                MoveTo(0, rows as u16),
                Clear(ClearType::FromCursorDown)
            )?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Characters in a line, and lines. A terminal that does not know says zero.
fn extent() -> (usize, usize) {
    match size() {
        Ok((columns, rows)) if columns > 0 && rows > 0 => (columns.into(), rows.into()),
        _ => (80, 24),
    }
}

/// Gives the terminal back as it was, if it was taken.
pub(super) fn restore() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = execute!(io::stdout(), ResetColor, Show, LeaveAlternateScreen); // a terminal that is gone needs nothing
    }
}

/// A number for people: `950`, `12.3k`, `4.56M`.
pub(super) fn short(number: f64) -> String {
    for (factor, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if number >= factor {
            let scaled = number / factor;
            let decimals = if scaled >= 100.0 {
                0
            } else if scaled >= 10.0 {
                1
            } else {
                2
            };
            return format!("{scaled:.decimals$}{unit}");
        }
    }
    format!("{number:.0}")
}

/// A number of bytes for people: `950 B`, `12.3 KiB`.
pub(super) fn short_bytes(bytes: f64) -> String {
    for (factor, unit) in [
        (f64::from(1 << 30), "GiB"),
        (f64::from(1 << 20), "MiB"),
        (1024.0, "KiB"),
    ] {
        if bytes >= factor {
            return format!("{:.1} {unit}", bytes / factor);
        }
    }
    format!("{bytes:.0} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        let line = Line::new(Look::Up, "äbc").add(Look::Plain, "def");
        let mut out = String::new();
        line.styled(4, &mut out);
        let seen: String = out
            .split('\u{1b}')
            .map(|part| part.split_once('m').map_or(part, |(_, text)| text))
            .collect();
        assert_eq!(seen, "äbcd");
        assert_eq!(line.plain(), "äbcdef");
    }

    #[test]
    fn numbers_are_shortened_to_three_digits() {
        assert_eq!(
            [
                short(0.0),
                short(999.0),
                short(1234.0),
                short(56_780.0),
                short(123_456.0),
                short(7_654_321.0)
            ],
            ["0", "999", "1.23k", "56.8k", "123k", "7.65M"]
        );
        assert_eq!(
            [
                short_bytes(10.0),
                short_bytes(1536.0),
                short_bytes(3.5 * 1024.0 * 1024.0)
            ],
            ["10 B", "1.5 KiB", "3.5 MiB"]
        );
    }
}
