//! The table of forwards on the person's screen.
//!
//! On a terminal it is drawn again in place; elsewhere each change is one line.

use std::{
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use pomerium_shared::destination::Destination;

use super::Seen;
use crate::link::answer::shown;

/// One forward.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The route's name.
    pub(crate) name: String,
    /// Where programs connect.
    pub(crate) local: SocketAddr,
    /// What they reach.
    pub(crate) destination: String,
    /// Streams that live now.
    pub(crate) streams: usize,
}

#[derive(Debug)]
struct Screen {
    /// By their numbers, which stay the same; `None` for those that are no more.
    rows: Vec<Option<Row>>,
    state: &'static str,
    is_shown: bool,
    /// Lines that the cursor stands below the top of the table; 0: the table is not on the screen.
    drawn: usize,
}

/// What the person sees; shared by all forwards.
#[derive(Debug)]
pub(crate) struct Board {
    screen: Mutex<Screen>,
    in_place: bool,
}

/// A row of a board, for the forward that it shows.
#[derive(Debug)]
pub(crate) struct BoardRow {
    pub(crate) board: Arc<Board>,
    pub(crate) row: usize,
}

impl Seen for BoardRow {
    fn began(&self) {
        self.board.began(self.row);
    }

    fn ended(&self, _up: u64, _down: u64, how: &str) {
        self.board.ended(self.row, how);
    }

    fn refused(&self, to: &Destination, why: &str) {
        self.board.tell(&format!("{to}: {why}"));
    }

    fn gone(&self) {
        self.board.remove(self.row, "the gateway lists it for you no more");
    }
}

impl Board {
    /// A board of all forwards, not shown yet.
    pub(crate) fn new(rows: Vec<Row>) -> Self {
        let rows = rows.into_iter().map(Some).collect();
        let screen = Screen { rows, state: "connecting", is_shown: false, drawn: 0 };
        Self { screen: Mutex::new(screen), in_place: io::stdout().is_terminal() }
    }

    /// Shows the table for the first time.
    pub(crate) fn show(&self) {
        let mut screen = self.lock();
        let text = table(&screen.rows, screen.state);
        (screen.is_shown, screen.drawn) = (true, text.lines().count());
        put(&text);
    }

    /// The state of the link; says whether it is another one than before.
    pub(crate) fn link(&self, state: &'static str) -> bool {
        let mut screen = self.lock();
        let is_news = screen.state != state;
        if is_news {
            screen.state = state;
            self.redraw(&mut screen, &format!("gateway: {state}"));
        }
        is_news
    }

    /// Something that people should know, whatever they do with the forwards.
    pub(crate) fn tell(&self, told: &str) {
        let mut screen = self.lock();
        self.redraw(&mut screen, told);
    }

    /// There is one more forward; gives the number of its row.
    pub(crate) fn add(&self, row: Row) -> usize {
        let mut screen = self.lock();
        let told = format!("{}: {} leads to {}", shown(&row.name), row.local, shown(&row.destination));
        screen.rows.push(Some(row));
        if screen.is_shown {
            self.redraw(&mut screen, &told);
        }
        screen.rows.len() - 1
    }

    /// A forward is no more, and why.
    pub(crate) fn remove(&self, row: usize, why: &str) {
        let mut screen = self.lock();
        let Some(gone) = screen.rows.get_mut(row).and_then(Option::take) else { return };
        self.redraw(&mut screen, &format!("{}: {why}", shown(&gone.name)));
    }

    /// A stream of a row began.
    pub(super) fn began(&self, row: usize) {
        let mut screen = self.lock();
        let Some(Some(line)) = screen.rows.get_mut(row) else { return };
        line.streams += 1;
        let told = format!("{}: stream began, {} live", shown(&line.name), line.streams);
        self.redraw(&mut screen, &told);
    }

    /// A stream of a row ended, and how.
    pub(super) fn ended(&self, row: usize, how: &str) {
        let mut screen = self.lock();
        let Some(Some(line)) = screen.rows.get_mut(row) else { return };
        line.streams = line.streams.saturating_sub(1);
        let told = format!("{}: {how}", shown(&line.name));
        self.redraw(&mut screen, &told);
    }

    fn redraw(&self, screen: &mut Screen, told: &str) {
        if !self.in_place {
            put(&format!("{told}\n"));
            return;
        }
        // Up to the table's first line, everything below it away, the news, the table again.
        let up = if screen.drawn > 0 { format!("\x1b[{}A\r\x1b[J", screen.drawn) } else { String::new() };
        let text = table(&screen.rows, screen.state);
        screen.drawn = text.lines().count();
        // A beginning shows in the table itself.
        let news = if told.contains("stream began") { String::new() } else { format!("{told}\n") };
        put(&format!("{up}{news}{text}"));
    }

    fn lock(&self) -> MutexGuard<'_, Screen> {
        // A panic of another holder leaves at worst a wrong count on the screen.
        self.screen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    // Whoever closed our output does not want to see the table; the streams go on.
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The table as text, columns aligned.
fn table(rows: &[Option<Row>], state: &str) -> String {
    let lines = rows.iter().flatten().map(|row| {
        [
            shown(&row.name),
            row.local.to_string(),
            shown(&row.destination),
            row.streams.to_string(),
            state.to_owned(),
        ]
    });
    aligned(["NAME", "LOCAL", "DESTINATION", "STREAMS", "STATE"].map(str::to_owned), lines)
}

/// Lines of columns, each as wide as its widest cell; the last one is not padded.
pub(crate) fn aligned<const N: usize>(head: [String; N], lines: impl Iterator<Item = [String; N]>) -> String {
    let all: Vec<[String; N]> = std::iter::once(head).chain(lines).collect();
    let width = |column: usize| all.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &all {
        let mut whole = String::new();
        for (cell, width) in line.iter().zip(widths) {
            whole.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(whole.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_cannot_steer_the_terminal() {
        let row = Row {
            name: "db\u{1b}[31m".to_owned(),
            local: ([127, 0, 0, 1], 5432).into(),
            destination: "db.corp.example:5432".to_owned(),
            streams: 2,
        };
        let rows = [None, Some(row)];
        let text = table(&rows, "connected");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].find("DESTINATION"), lines[1].find("db.corp"));
        assert!(lines[1].ends_with("2        connected"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
