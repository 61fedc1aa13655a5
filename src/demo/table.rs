//! What the demo shows: how far it is, and the table at its end.

use std::{fmt, io};

use crate::demo::{Scenario, Tally};

/// The way the requests took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// Straight at the app.
    Straight,
    /// Through the gate.
    Gate,
}

impl Road {
    const fn title(self) -> &'static str {
        match self {
            Self::Straight => "straight at the app",
            Self::Gate => "through Oncegate",
        }
    }
}

/// Tells how far the demo is: on a terminal in one line that is written over, else a line for each part.
#[derive(Debug)]
pub struct Progress<W> {
    out: W,
    on_terminal: bool,
}

impl<W: io::Write> Progress<W> {
    /// Tells it to `out`.
    pub const fn new(out: W, on_terminal: bool) -> Self {
        Self { out, on_terminal }
    }

    pub(super) fn show(&mut self, scenario: Scenario, road: Road, done: u32, of: u32) {
        let line = format!("{}, {}: {done} of {of}", scenario.title(), road.title());
        // Whoever does not listen any more misses nothing but the progress.
        let _ = match self.on_terminal {
            true => write!(self.out, "\r{line}\x1b[K"),
            false if done == of => writeln!(self.out, "{line}"),
            false => Ok(()),
        };
        let _ = self.out.flush();
    }

    pub(super) fn end(&mut self) {
        if self.on_terminal {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }
}

/// One scenario on both roads.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What was played.
    pub scenario: Scenario,
    /// What came of it without the gate.
    pub straight: Tally,
    /// What came of it with the gate.
    pub gate: Tally,
}

/// All scenarios; prints as a table with a verdict.
#[derive(Clone, Debug)]
pub struct Report {
    /// A row for each scenario.
    pub rows: Vec<Row>,
}

impl Report {
    /// Whether every payment that went through the gate was booked exactly once.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.gate.is_once_each())
    }

    fn total(&self, road: Road) -> Tally {
        self.tallies(road).fold(Tally::default(), |sum, tally| Tally {
            payments: sum.payments + tally.payments,
            sent: sum.sent + tally.sent,
            reached: sum.reached + tally.reached,
            booked: sum.booked + tally.booked,
            doubled: sum.doubled + tally.doubled,
            missing: sum.missing + tally.missing,
            failed: sum.failed + tally.failed,
        })
    }

    fn tallies(&self, road: Road) -> impl Iterator<Item = Tally> {
        self.rows.iter().map(move |row| match road {
            Road::Straight => row.straight,
            Road::Gate => row.gate,
        })
    }

    fn write_road(&self, f: &mut fmt::Formatter<'_>, road: Road) -> fmt::Result {
        let (payments, sent) = ("payments", "requests");
        writeln!(f, "{:<22}{payments:>9}{sent:>10}{:>13}{:>8}{:>9}", road.title(), "reached app", "booked", "doubled")?;
        for (row, tally) in self.rows.iter().zip(self.tallies(road)) {
            let Tally { payments, sent, reached, booked, doubled, .. } = tally;
            writeln!(f, "  {:<20}{payments:>9}{sent:>10}{reached:>13}{booked:>8}{doubled:>9}", row.scenario.title())?;
        }
        self.write_trouble(f, road)
    }

    fn write_trouble(&self, f: &mut fmt::Formatter<'_>, road: Road) -> fmt::Result {
        let Tally { missing, failed, .. } = self.total(road);
        if missing > 0 {
            writeln!(f, "  {missing} payments were not booked at all")?;
        }
        if failed > 0 {
            writeln!(f, "  {failed} requests heard an error, or nothing")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_road(f, Road::Straight)?;
        writeln!(f)?;
        self.write_road(f, Road::Gate)?;
        writeln!(f)?;
        let (straight, gate) = (self.total(Road::Straight), self.total(Road::Gate));
        writeln!(
            f,
            "Of {} payments the app alone booked {} twice; behind the gate, {}.",
            straight.payments, straight.doubled, gate.doubled
        )?;
        match self.holds() {
            true => writeln!(f, "The gate held: each payment is in the books exactly once."),
            false => writeln!(f, "THE GATE DID NOT HOLD: {} doubled, {} missing.", gate.doubled, gate.missing),
        }
    }
}
