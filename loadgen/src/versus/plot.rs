//! A row's result as a picture: a bar for each contender's median, a line over its range, in SVG.

use std::fmt;

use super::{contender::Contender, table::Table};
use crate::rounds::Spread;

const WIDTH: f64 = 720.0;
/// Left of the bars, for names.
const NAMES: f64 = 130.0;
/// Right of the longest bar, for figures.
const FIGURES: f64 = 130.0;
const BAR: f64 = 22.0;
const GAP: f64 = 10.0;
const HEADER: f64 = 58.0;

/// The picture of a table.
#[derive(Debug)]
pub struct Plot<'a>(pub &'a Table<'a>);

impl Plot<'_> {
    fn bars(&self) -> Vec<(Contender, Spread)> {
        let Table { row, .. } = self.0;
        let spread = |contender: &Contender| Some((*contender, self.0.spread(*contender, row.headline)?));
        row.contenders.iter().filter_map(spread).collect()
    }
}

impl fmt::Display for Plot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Table { row, rounds } = self.0;
        let bars = self.bars();
        let height = HEADER + bars.len() as f64 * (BAR + GAP) + GAP;
        let highest = bars.iter().map(|(_, spread)| spread.high).fold(f64::MIN_POSITIVE, f64::max);
        let x = |figure: f64| NAMES + figure / highest * (WIDTH - NAMES - FIGURES);
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13" role="img">"##
        )?;
        writeln!(f, r##"<rect width="{WIDTH}" height="{height}" fill="#fff"/>"##)?;
        writeln!(
            f,
            r##"<text x="12" y="22" font-weight="bold">{}</text>"##,
            escaped(&format!("{}: {}", row.name, row.title))
        )?;
        let direction = if row.headline.is_better_when_higher() { "more" } else { "less" };
        let rounds = rounds.len();
        let unit = row.headline.name();
        writeln!(
            f,
            r##"<text x="12" y="42" fill="#555">{unit}, median and range of {rounds} rounds; {direction} is better</text>"##
        )?;
        for (number, (contender, spread)) in bars.iter().enumerate() {
            let top = HEADER + number as f64 * (BAR + GAP);
            let (middle, text) = (top + BAR / 2.0, top + BAR * 0.7);
            let Spread { median, low, high } = *spread;
            let colour = if *contender == Contender::Antiphon { "#c2410c" } else { "#94a3b8" };
            let (length, from, to) = (x(median) - NAMES, x(low), x(high));
            writeln!(f, r##"<text x="{}" y="{text}" text-anchor="end">{contender}</text>"##, NAMES - 8.0)?;
            writeln!(f, r##"<rect x="{NAMES}" y="{top}" width="{length:.1}" height="{BAR}" fill="{colour}"/>"##)?;
            writeln!(f, r##"<path d="M{from:.1} {middle}H{to:.1}" stroke="#111" stroke-width="2"/>"##)?;
            writeln!(f, r##"<text x="{:.1}" y="{text}">{median:.2} ({low:.2} to {high:.2})</text>"##, to + 8.0)?;
        }
        writeln!(f, "</svg>")
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use antiphon_peers::Peer;

    use super::*;
    use crate::versus::{
        outcome::{Measure, Outcome},
        rows::{self, ScenarioName, Size},
    };

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let size = Size { seconds: 1.0, rounds: 1, is_full: false, divide: 1 };
        let row = rows::of(ScenarioName::S1, size).remove(0);
        let outcome = |cpu_us| Outcome { figures: [(Measure::CpuUs, cpu_us)].into(), ..Outcome::default() };
        let round = [(Contender::Antiphon, outcome(5.0)), (Contender::Peer(Peer::Nats), outcome(10.0))];
        let rounds = vec![round.into()];
        let svg = Plot(&Table { row: &row, rounds: &rounds }).to_string();
        let whole = WIDTH - NAMES - FIGURES;
        assert!(svg.contains(&format!("width=\"{whole:.1}\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\"", whole / 2.0)), "{svg}");
        assert!(svg.contains("1 -&gt; 500"), "{svg}");
        assert!(!svg.contains("redis"), "{svg}");
    }
}
