//! The value of `--chaos`: parts with commas between them, such as `lag=300ms,cut=5s,reorder`.

use std::{fmt, ops::RangeInclusive, str::FromStr, time::Duration};

use thiserror::Error;

/// The harm that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    /// What each direction takes longer, on average.
    pub(crate) lag: Option<Duration>,
    /// How long nothing passes, each time.
    pub(crate) cut: Option<Duration>,
    /// Whether some datagrams are overtaken by later ones.
    pub(crate) reorder: bool,
    /// Makes the draws the same each time; with real sockets the times at which they are used still differ.
    pub(crate) seed: Option<u64>,
}

/// Why a value is no plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PlanError {
    /// Nothing would be harmed.
    #[error("expected parts such as lag=300ms,cut=5s,reorder")]
    Empty,
    /// Not one of the four.
    #[error("unknown part {0:?}; the parts are lag=TIME, cut=TIME, reorder and seed=N")]
    Unknown(String),
    /// Which one counts?
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// No number with a unit.
    #[error("{part}: expected a time such as 300ms or 5s, not {found:?}")]
    NoTime {
        /// Which.
        part: &'static str,
        /// What was written.
        found: String,
    },
    /// Too little to be noticed or too much to be of use.
    #[error("{part}: expected {expected}, not {found}")]
    OutOfRange {
        /// Which.
        part: &'static str,
        /// From and to.
        expected: &'static str,
        /// What was written.
        found: String,
    },
    /// No number.
    #[error("seed: expected a whole number, not {0:?}")]
    NoSeed(String),
}

const LAG: (RangeInclusive<u64>, &str) = (1..=10_000, "1ms to 10s");
const CUT: (RangeInclusive<u64>, &str) = (10..=60_000, "10ms to 60s");

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut plan = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("lag", value)) => once(&mut plan.lag, "lag", time("lag", value, &LAG)?)?,
                Some(("cut", value)) => once(&mut plan.cut, "cut", time("cut", value, &CUT)?)?,
                Some(("seed", value)) => {
                    let seed = value.parse().map_err(|_| PlanError::NoSeed(value.to_owned()))?;
                    once(&mut plan.seed, "seed", seed)?;
                }
                None if part == "reorder" && plan.reorder => return Err(PlanError::Twice("reorder")),
                None if part == "reorder" => plan.reorder = true,
                _ => return Err(PlanError::Unknown(part.to_owned())),
            }
        }
        let is_harmless = plan.lag.is_none() && plan.cut.is_none() && !plan.reorder;
        if is_harmless { Err(PlanError::Empty) } else { Ok(plan) }
    }
}

fn once<T>(slot: &mut Option<T>, part: &'static str, value: T) -> Result<(), PlanError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(PlanError::Twice(part)),
    }
}

fn time(part: &'static str, text: &str, bounds: &(RangeInclusive<u64>, &'static str)) -> Result<Duration, PlanError> {
    let no_time = || PlanError::NoTime { part, found: text.to_owned() };
    let (digits, unit_ms) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, Some(digits)) => (digits, 1_000),
        (None, None) => return Err(no_time()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_time());
    }
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    let ms = ms.filter(|ms| bounds.0.contains(ms));
    let ms = ms.ok_or_else(|| PlanError::OutOfRange { part, expected: bounds.1, found: text.to_owned() })?;
    Ok(Duration::from_millis(ms))
}

impl fmt::Display for Plan {
    /// What would be parsed to the same plan.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |part, time: Option<Duration>| time.map(|time| format!("{part}={}ms", time.as_millis()));
        let parts = [
            time("lag", self.lag),
            time("cut", self.cut),
            self.reorder.then(|| "reorder".to_owned()),
            self.seed.map(|seed| format!("seed={seed}")),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_what_was_written_and_writes_itself() {
        let ms = |ms| Some(Duration::from_millis(ms));
        let cases = [
            ("lag=300ms", Plan { lag: ms(300), ..Plan::default() }),
            ("cut=5s", Plan { cut: ms(5_000), ..Plan::default() }),
            ("reorder", Plan { reorder: true, ..Plan::default() }),
            ("lag=10s,cut=60s", Plan { lag: ms(10_000), cut: ms(60_000), ..Plan::default() }),
            ("reorder, seed=7 ,lag=1ms,cut=10ms,", Plan { lag: ms(1), cut: ms(10), reorder: true, seed: Some(7) }),
        ];
        for (text, plan) in cases {
            assert_eq!(text.parse().as_ref(), Ok(&plan), "{text}");
            assert_eq!(plan.to_string().parse().as_ref(), Ok(&plan), "{plan}");
        }
    }

    #[test]
    fn what_is_no_plan_is_named() {
        let no_time = |part, found: &str| PlanError::NoTime { part, found: found.into() };
        let range = |part, expected, found: &str| PlanError::OutOfRange { part, expected, found: found.into() };
        let cases = [
            ("", PlanError::Empty),
            (",", PlanError::Empty),
            ("seed=7", PlanError::Empty),
            ("loss=3", PlanError::Unknown("loss=3".into())),
            ("lag", PlanError::Unknown("lag".into())),
            ("reorder=yes", PlanError::Unknown("reorder=yes".into())),
            ("lag=1s,lag=2s", PlanError::Twice("lag")),
            ("reorder,reorder", PlanError::Twice("reorder")),
            ("lag=300", no_time("lag", "300")),
            ("lag=ms", no_time("lag", "ms")),
            ("lag=-1s", no_time("lag", "-1s")),
            ("lag=1.5s", no_time("lag", "1.5s")),
            ("cut=5m", no_time("cut", "5m")),
            ("lag=0ms", range("lag", LAG.1, "0ms")),
            ("lag=0s", range("lag", LAG.1, "0s")),
            ("lag=10001ms", range("lag", LAG.1, "10001ms")),
            ("cut=61s", range("cut", CUT.1, "61s")),
            ("cut=99999999999999999999s", range("cut", CUT.1, "99999999999999999999s")),
            ("lag=1s,seed=x", PlanError::NoSeed("x".into())),
            ("lag=1s,seed=-1", PlanError::NoSeed("-1".into())),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Plan>(), Err(error), "{text}");
        }
    }
}
