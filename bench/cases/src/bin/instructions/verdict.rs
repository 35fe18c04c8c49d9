//! Counts beside budgets.

use std::{collections::BTreeMap, fmt};

use thiserror::Error;

use crate::{Counts, budgets::Budget};

/// How far a count may be from its budget, in thousandths.
const TOLERANCE_PER_MILLE: u64 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Met,
    Over,
    /// So far below that the budget lets a later loss pass.
    Loose,
    New,
}

impl Verdict {
    fn of(budget: Option<u64>, count: u64) -> Self {
        let Some(budget) = budget else { return Self::New };
        match count * 1_000 {
            scaled if scaled > budget * (1_000 + TOLERANCE_PER_MILLE) => Self::Over,
            scaled if scaled < budget * (1_000 - TOLERANCE_PER_MILLE) => Self::Loose,
            _ => Self::Met,
        }
    }
}

#[derive(Debug)]
struct Line {
    case: String,
    budget: Option<u64>,
    count: u64,
    verdict: Verdict,
}

/// Every case that was counted, and budgets without a case.
#[derive(Debug)]
pub(crate) struct Comparison {
    lines: Vec<Line>,
    gone: Vec<String>,
}

/// A budget would grow, and nobody says why.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("a raise needs a reason (`--reason TEXT`): {}", .0.join(", "))]
pub(crate) struct NoReason(Vec<String>);

impl Comparison {
    pub(crate) fn new(counts: Counts, budgets: &BTreeMap<String, Budget>) -> Self {
        let gone = budgets.keys().filter(|case| !counts.contains_key(*case)).cloned().collect();
        let line = |(case, count)| {
            let budget = budgets.get(&case).map(|budget| budget.instructions);
            Line { case, budget, count, verdict: Verdict::of(budget, count) }
        };
        Self { lines: counts.into_iter().map(line).collect(), gone }
    }

    /// Whether no case is over its budget. A case without one is not met either, unless `may_be_new`.
    pub(crate) fn is_met(&self, may_be_new: bool) -> bool {
        self.lines.iter().all(|line| match line.verdict {
            Verdict::Met | Verdict::Loose => true,
            Verdict::Over => false,
            Verdict::New => may_be_new,
        })
    }

    /// What the budgets become: lower where a case takes less, higher where it is over and `reason` says why. What is
    /// within the tolerance above stays, or many small losses would pass without a reason.
    pub(crate) fn recorded(
        &self,
        budgets: &BTreeMap<String, Budget>,
        reason: Option<&str>,
    ) -> Result<BTreeMap<String, Budget>, NoReason> {
        let over: Vec<&Line> = self.lines.iter().filter(|line| line.verdict == Verdict::Over).collect();
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        if reason.is_none() && !over.is_empty() {
            return Err(NoReason(over.iter().map(|line| line.case.clone()).collect()));
        }
        let budget = |line: &Line| {
            let mut raises = budgets.get(&line.case).map(|budget| budget.raises.clone()).unwrap_or_default();
            if let (Verdict::Over, Some(old), Some(reason)) = (line.verdict, line.budget, reason) {
                raises.push(format!("from {old} to {}: {reason}", line.count));
            }
            let kept = line.budget.filter(|_| line.verdict != Verdict::Over).unwrap_or(line.count);
            (line.case.clone(), Budget { instructions: kept.min(line.count), raises })
        };
        Ok(self.lines.iter().map(budget).collect())
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.case.len()).max().unwrap_or(0);
        writeln!(f, "{:width$} {:>10} {:>10} {:>8}", "case", "budget", "counted", "change")?;
        for Line { case, budget, count, verdict } in &self.lines {
            let (budget, change) = budget.map_or_else(Default::default, |budget| {
                let change = (*count as f64 / budget as f64 - 1.0) * 100.0;
                (budget.to_string(), format!("{change:+.2} %"))
            });
            let note = match verdict {
                Verdict::Met => "",
                Verdict::Over => "  OVER BUDGET",
                Verdict::Loose => "  lower its budget: `antiphon-bench-instructions record`",
                Verdict::New => "  NO BUDGET",
            };
            writeln!(f, "{case:width$} {budget:>10} {count:>10} {change:>8}{note}")?;
        }
        self.gone.iter().try_for_each(|case| writeln!(f, "{case}: a budget without a case"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budgets(budgets: &[(&str, u64)]) -> BTreeMap<String, Budget> {
        let budget = |(case, instructions): &(&str, u64)| {
            ((*case).to_owned(), Budget { instructions: *instructions, raises: Vec::new() })
        };
        budgets.iter().map(budget).collect()
    }

    fn counts(counts: &[(&str, u64)]) -> Counts {
        counts.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect()
    }

    #[test]
    fn two_percent_more_is_met_and_one_instruction_more_is_not() {
        let verdicts = [1_020, 1_021, 980, 979, 1_000].map(|count| Verdict::of(Some(1_000), count));
        use Verdict::{Loose, Met, Over};
        assert_eq!(verdicts, [Met, Over, Met, Loose, Met]);
    }

    #[test]
    fn one_case_over_its_budget_fails_the_check() {
        let budgets = budgets(&[("a", 1_000), ("b", 1_000)]);
        assert!(Comparison::new(counts(&[("a", 900), ("b", 1_020)]), &budgets).is_met(false));
        let over = Comparison::new(counts(&[("a", 900), ("b", 1_050)]), &budgets);
        assert!(!over.is_met(true));
        assert!(over.to_string().contains("+5.00 %  OVER BUDGET"), "{over}");
    }

    #[test]
    fn a_case_without_a_budget_fails_unless_the_base_has_none() {
        let comparison = Comparison::new(counts(&[("a", 1_000)]), &BTreeMap::new());
        assert!(!comparison.is_met(false));
        assert!(comparison.is_met(true));
    }

    #[test]
    fn a_raise_without_a_reason_is_refused() {
        let budgets = budgets(&[("a", 1_000), ("b", 1_000)]);
        let comparison = Comparison::new(counts(&[("a", 1_000), ("b", 1_021)]), &budgets);
        for reason in [None, Some(""), Some("  ")] {
            assert_eq!(comparison.recorded(&budgets, reason), Err(NoReason(vec!["b".to_owned()])));
        }
        let recorded = comparison.recorded(&budgets, Some("checks signatures")).unwrap();
        let raises = vec!["from 1000 to 1021: checks signatures".to_owned()];
        assert_eq!(recorded["b"], Budget { instructions: 1_021, raises });
        assert_eq!(recorded["a"], budgets["a"]);
    }

    #[test]
    fn small_losses_do_not_move_a_budget_and_gains_do() {
        let budgets = budgets(&[("gain", 1_000), ("loss", 1_000), ("gone", 1_000)]);
        let comparison = Comparison::new(counts(&[("gain", 999), ("loss", 1_019), ("new", 7)]), &budgets);
        let recorded = comparison.recorded(&budgets, None).unwrap();
        let figures: Vec<_> = recorded.iter().map(|(case, budget)| (case.as_str(), budget.instructions)).collect();
        assert_eq!(figures, [("gain", 999), ("loss", 1_000), ("new", 7)]);
    }

    #[test]
    fn reasons_outlive_later_records() {
        let raises = vec!["from 900 to 1000: why".to_owned()];
        let budgets = BTreeMap::from([("a".to_owned(), Budget { instructions: 1_000, raises: raises.clone() })]);
        let comparison = Comparison::new(counts(&[("a", 700)]), &budgets);
        assert_eq!(comparison.recorded(&budgets, None).unwrap()["a"], Budget { instructions: 700, raises });
    }
}
