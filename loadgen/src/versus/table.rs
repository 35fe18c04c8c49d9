//! A row's result as a Markdown table.

use std::{collections::BTreeSet, fmt};

use super::{
    Rounds,
    contender::Contender,
    outcome::{Measure, Outcome},
    rows::{Bound, Goal, Row},
};
use crate::{report::LAG_P999_MS_MAX, rounds::Spread};

/// A row with what was measured.
#[derive(Debug)]
pub struct Table<'a> {
    /// What was done.
    pub row: &'a Row,
    /// By whom, round by round.
    pub rounds: &'a Rounds,
}

impl Table<'_> {
    fn outcomes(&self, contender: Contender) -> impl Iterator<Item = &Outcome> {
        self.rounds.iter().filter_map(move |round| round.get(&contender)).filter(|outcome| outcome.holds())
    }

    pub(super) fn spread(&self, contender: Contender, measure: Measure) -> Option<Spread> {
        Spread::of(self.outcomes(contender).filter_map(|outcome| outcome.figures.get(&measure).copied()))
    }

    /// The broker's figure as a multiple of another's.
    fn ratio(&self, measure: Measure, against: Contender) -> Option<Spread> {
        self.ratio_of(Contender::Antiphon, measure, against)
    }

    /// A figure as a multiple of another's in the same round, over the rounds in which both have a result.
    fn ratio_of(&self, contender: Contender, measure: Measure, against: Contender) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let figure = |contender| {
                let outcome = round.get(&contender).filter(|outcome| outcome.holds())?;
                outcome.figures.get(&measure).copied()
            };
            Some(figure(contender)? / figure(against)?)
        }))
    }

    /// The other figures that somebody has, in their order.
    fn others(&self) -> BTreeSet<Measure> {
        let all =
            self.rounds.iter().flat_map(|round| round.values()).flat_map(|outcome| outcome.figures.keys().copied());
        all.filter(|measure| *measure != self.row.headline).collect()
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, contender: Contender) -> fmt::Result {
        let shown = |figure: Option<String>| figure.unwrap_or_else(|| "-".into());
        let headline = self.row.headline;
        let digits = headline.digits();
        let with_range = |spread: Spread| {
            format!("{:.digits$} ({:.digits$} to {:.digits$})", spread.median, spread.low, spread.high)
        };
        write!(f, "| {contender} | {} ", shown(self.spread(contender, headline).map(with_range)))?;
        let is_comparable = !matches!(contender, Contender::Antiphon | Contender::SmallerBare);
        let ratio = is_comparable.then(|| self.ratio(headline, contender)).flatten();
        write!(f, "| {} ", shown(ratio.map(|ratio| ratio.to_string())))?;
        let floor = self.spread(Contender::Floor, headline);
        if let Some(floor) = floor {
            let times = self.spread(contender, headline).map(|own| own.median / floor.median);
            write!(f, "| {} ", shown(times.map(|times| format!("{times:.1}"))))?;
        }
        for measure in self.others() {
            let digits = measure.digits();
            let median = self.spread(contender, measure).map(|spread| format!("{:.digits$}", spread.median));
            write!(f, "| {} ", shown(median))?;
        }
        writeln!(f, "| {} |", self.check(contender))
    }

    /// What was counted in all rounds.
    fn check(&self, contender: Contender) -> String {
        let mut all = self.rounds.iter().filter_map(|round| round.get(&contender));
        if let Some(why) = all.clone().find_map(|outcome| outcome.broken.as_deref()) {
            return format!("NO RESULT: {why}");
        }
        let (done, expected) = all.by_ref().fold((0, 0), |sum, one| (sum.0 + one.done, sum.1 + one.expected));
        match (done, expected) {
            (0, 0) => "-".into(),
            (done, expected) if done != expected => format!("NO RESULT: {done} of {expected}"),
            (done, expected) => self.row.work.counted(done, expected),
        }
    }

    /// How a control grows with its load; the broker's growth has a goal.
    fn growth(&self, f: &mut fmt::Formatter<'_>, control: Contender) -> fmt::Result {
        let measure = self.row.headline;
        match control.smaller().and_then(|smaller| Some((smaller, self.ratio_of(control, measure, smaller)?))) {
            Some((smaller, ratio)) => writeln!(f, "- {} of {control}: {ratio} times {smaller}'s", measure.name()),
            None => Ok(()),
        }
    }

    /// In whose rounds the generator was too late for latencies, and by how many milliseconds.
    fn late(&self) -> impl Iterator<Item = (Contender, f64)> {
        let lag = |contender: &Contender| Some((*contender, self.spread(*contender, Measure::LagP999Ms)?.median));
        self.row.contenders.iter().filter_map(lag).filter(|(_, lag)| *lag > LAG_P999_MS_MAX)
    }

    /// Latencies say nothing where the generator was late; processor time does.
    fn void(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_latencies = self.row.headline.is_latency() || self.others().into_iter().any(Measure::is_latency);
        let late: Vec<String> = self.late().map(|(contender, lag)| format!("{lag:.2} ({contender})")).collect();
        if !has_latencies || late.is_empty() {
            return Ok(());
        }
        let late = late.join(", ");
        writeln!(f, "- latency void: generator late by {late} ms, of 999 in 1,000; more than {LAG_P999_MS_MAX} ms")
    }

    fn goal(&self, f: &mut fmt::Formatter<'_>, goal: &Goal) -> fmt::Result {
        let Goal { measure, against, bound } = goal;
        let Some(ratio) = self.ratio(*measure, *against) else { return Ok(()) };
        let is_met =
            |bound: f64| if measure.is_better_when_higher() { ratio.median >= bound } else { ratio.median <= bound };
        let is_void =
            measure.is_latency() && self.late().any(|(who, _)| [Contender::Antiphon, *against].contains(&who));
        let (wanted, verdict) = match *bound {
            Bound::Better { must, aim } => {
                let verdict = match (is_met(aim), is_met(must)) {
                    (true, _) => "as aimed",
                    (false, true) => "reached",
                    (false, false) => "NOT REACHED",
                };
                (format!("must {must}, aim {aim}"), verdict)
            }
            Bound::Alike(factor) => {
                let is_alike = (1.0 / factor..=factor).contains(&ratio.median);
                (format!("between 1/{factor} and {factor}"), if is_alike { "reached" } else { "NOT REACHED" })
            }
        };
        let verdict = if is_void { "void" } else { verdict };
        writeln!(f, "- {} of {against}'s: {ratio}; {wanted}: {verdict}", measure.name())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = self.row;
        writeln!(f, "\n## {}: {}\n", row.name, row.title)?;
        let has_floor = self.spread(Contender::Floor, row.headline).is_some();
        write!(
            f,
            "| | {}, median (range) of {} rounds | Antiphon's is so many times this ",
            row.headline.name(),
            self.rounds.len()
        )?;
        if has_floor {
            write!(f, "| times the floor ")?;
        }
        self.others().iter().try_for_each(|measure| write!(f, "| {} ", measure.name()))?;
        writeln!(f, "| counted |")?;
        let columns = 4 + usize::from(has_floor) + self.others().len();
        writeln!(f, "|{}", "---|".repeat(columns))?;
        let present = |contender: &Contender| self.rounds.iter().any(|round| round.contains_key(contender));
        row.contenders.iter().filter(|contender| present(contender)).try_for_each(|it| self.line(f, *it))?;
        writeln!(f)?;
        row.goals.iter().try_for_each(|goal| self.goal(f, goal))?;
        let controls = row.contenders.iter().filter(|contender| **contender != Contender::Antiphon);
        controls.copied().try_for_each(|control| self.growth(f, control))?;
        self.void(f)
    }
}

#[cfg(test)]
mod tests {
    use antiphon_peers::Peer;

    use super::*;
    use crate::versus::rows::{self, ScenarioName, Size};

    fn outcome(cpu_us: f64, done: u64) -> Outcome {
        Outcome { figures: [(Measure::CpuUs, cpu_us)].into(), done, expected: 10, broken: None }
    }

    fn told(nats: Outcome) -> String {
        let size = Size { seconds: 1.0, rounds: 2, is_full: false, divide: 1 };
        let row = rows::of(ScenarioName::S1, size).remove(0);
        let floor = || Outcome { figures: [(Measure::CpuUs, 4.0)].into(), ..Outcome::default() };
        let round = |own, nats| {
            [(Contender::Floor, floor()), (Contender::Antiphon, outcome(own, 10)), (Contender::Peer(Peer::Nats), nats)]
                .into()
        };
        Table { row: &row, rounds: &vec![round(6.0, outcome(12.0, 10)), round(8.0, nats)] }.to_string()
    }

    #[test]
    fn ratios_are_those_of_the_rounds() {
        let text = told(outcome(10.0, 10));
        assert!(text.contains("| nats | 11.00 (10.00 to 12.00) | 0.65 (0.50 to 0.80) | 2.8 |"), "{text}");
        assert!(text.contains("20 of 20: lost 0"), "{text}");
        assert!(text.contains("server CPU us of nats's: 0.65 (0.50 to 0.80); must 0.75, aim 0.55: reached"), "{text}");
        assert!(!text.contains("redis"), "{text}");
    }

    #[test]
    fn a_control_is_told_by_how_much_it_grows() {
        let size = Size { seconds: 1.0, rounds: 2, is_full: false, divide: 1 };
        let row = rows::of(ScenarioName::Growth, size).remove(0);
        let round = |bare| {
            let figures = [(Contender::SmallerBare, 5.0), (Contender::Bare, bare), (Contender::Smaller, 6.0)];
            let figures = figures.into_iter().chain([(Contender::Antiphon, 9.0)]);
            figures.map(|(contender, cpu_us)| (contender, outcome(cpu_us, 10))).collect()
        };
        let text = Table { row: &row, rounds: &vec![round(7.0), round(8.0)] }.to_string();
        assert!(
            text.contains("- server CPU us of bare QUIC: 1.50 (1.40 to 1.60) times bare QUIC (small)'s\n"),
            "{text}"
        );
        assert!(text.contains("- server CPU us of Antiphon (small)'s: 1.50 (1.50 to 1.50); must 1.1"), "{text}");
        assert!(text.contains("| bare QUIC (small) | 5.00 (5.00 to 5.00) | - |"), "{text}");
    }

    #[test]
    fn where_the_generator_was_late_latencies_are_void() {
        let size = Size { seconds: 1.0, rounds: 1, is_full: false, divide: 1 };
        let row = rows::of(ScenarioName::S7, size).remove(0);
        let told = |lag| {
            let outcome = |p99| Outcome {
                figures: [(Measure::CpuUs, 9.0), (Measure::P99Ms, p99), (Measure::LagP999Ms, lag)].into(),
                ..outcome(1.0, 10)
            };
            let round = [(Contender::Antiphon, outcome(2.0)), (Contender::Peer(Peer::Nats), outcome(8.0))].into();
            Table { row: &row, rounds: &vec![round] }.to_string()
        };
        let (in_time, late) = (told(0.9), told(3.25));
        assert!(in_time.contains("aim 0.35: as aimed") && !in_time.contains("void"), "{in_time}");
        assert!(late.contains("aim 0.35: void"), "{late}");
        assert!(late.contains("latency void: generator late by 3.25 (Antiphon), 3.25 (nats) ms"), "{late}");
        assert!(late.contains("| 9.00 |"), "{late}");
    }

    #[test]
    fn two_clients_are_alike_if_neither_makes_the_broker_cheaper() {
        let size = Size { seconds: 1.0, rounds: 1, is_full: false, divide: 1 };
        let rows = rows::of(ScenarioName::S1, size);
        let row = rows.iter().find(|row| row.contenders.contains(&Contender::Stranger)).unwrap();
        let told = |own, strangers| {
            let round = [(Contender::Antiphon, outcome(own, 10)), (Contender::Stranger, outcome(strangers, 10))].into();
            Table { row, rounds: &vec![round] }.to_string()
        };
        for (own, strangers, verdict) in
            [(10.0, 12.9, "reached"), (12.9, 10.0, "reached"), (10.0, 13.1, "NOT REACHED"), (13.1, 10.0, "NOT REACHED")]
        {
            let text = told(own, strangers);
            assert!(text.contains(&format!("between 1/1.3 and 1.3: {verdict}\n")), "{text}");
        }
    }

    #[test]
    fn a_wrong_count_has_no_result() {
        let text = told(outcome(1.0, 9));
        assert!(text.contains("| nats | 12.00 (12.00 to 12.00) | 0.50 (0.50 to 0.50) |"), "{text}");
        assert!(text.contains("NO RESULT: 19 of 20"), "{text}");
        let text = told(Outcome::broken("2 came instead of 1".into()));
        assert!(text.contains("NO RESULT: 2 came instead of 1"), "{text}");
    }
}
