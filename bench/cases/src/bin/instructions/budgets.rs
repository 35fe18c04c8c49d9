//! The budget file: for each toolchain, what a round of each case may take, and why that was raised.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Deserialize;
use thiserror::Error;

use crate::toolchain::Toolchain;

const HEAD: &str = "# Instructions of a round of each case of the benches, and why a figure was raised. Written by
# `antiphon-bench-instructions record`; bench/README.md says what is held against them.
";

/// What a round of a case may take.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    pub(crate) instructions: u64,
    /// A line for each time that it grew.
    #[serde(default)]
    pub(crate) raises: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    rustc: String,
    machine: String,
    cases: BTreeMap<String, Budget>,
}

impl Section {
    fn is_of(&self, toolchain: &Toolchain) -> bool {
        self.rustc == toolchain.rustc && self.machine == toolchain.machine
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    #[serde(default, rename = "toolchain")]
    sections: Vec<Section>,
}

/// The file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error("cannot read the budgets")]
    Read(#[source] io::Error),
    #[error("the budgets are not what they should be")]
    Parse(#[from] toml::de::Error),
    #[error("cannot write the budgets")]
    Write(#[source] io::Error),
}

impl Budgets {
    /// Reads `path`; a file that is absent has no budgets.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(toml::from_str(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(FileError::Read(error)),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), FileError> {
        fs::write(path, self.to_text()).map_err(FileError::Write)
    }

    /// The budgets of one toolchain.
    pub(crate) fn of(&self, toolchain: &Toolchain) -> Option<&BTreeMap<String, Budget>> {
        self.sections.iter().find(|section| section.is_of(toolchain)).map(|section| &section.cases)
    }

    /// Replaces the budgets of one toolchain.
    pub(crate) fn set(&mut self, toolchain: &Toolchain, cases: BTreeMap<String, Budget>) {
        match self.sections.iter_mut().find(|section| section.is_of(toolchain)) {
            Some(section) => section.cases = cases,
            None => {
                let Toolchain { rustc, machine } = toolchain.clone();
                self.sections.push(Section { rustc, machine, cases });
            }
        }
    }

    fn to_text(&self) -> String {
        let mut text = HEAD.to_owned();
        for Section { rustc, machine, cases } in &self.sections {
            text += &format!("\n[[toolchain]]\nrustc = {}\nmachine = {}\n", quoted(rustc), quoted(machine));
            text += "\n[toolchain.cases]\n";
            for (case, Budget { instructions, raises }) in cases {
                let raises: String = raises.iter().map(|raise| format!("\n    {},", quoted(raise))).collect();
                let raises = if raises.is_empty() { raises } else { format!(", raises = [{raises}\n]") };
                let instructions = grouped(*instructions);
                text += &format!("{} = {{ instructions = {instructions}{raises} }}\n", quoted(case));
            }
        }
        text
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{}_{:03}", grouped(number / 1_000), number % 1_000),
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted += &format!("\\u{:04X}", u32::from(letter)),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toolchain(rustc: &str) -> Toolchain {
        Toolchain { rustc: rustc.to_owned(), machine: "x86_64".to_owned() }
    }

    fn cases(instructions: u64, raises: &[&str]) -> BTreeMap<String, Budget> {
        let raises = raises.iter().map(|raise| (*raise).to_owned()).collect();
        BTreeMap::from([("fan-out: 1 to 500".to_owned(), Budget { instructions, raises })])
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut budgets = Budgets::default();
        budgets.set(&toolchain("rustc 1"), cases(5, &["from 4 to 5: \"quoted\", \\o/,\ttabs\nand lines", "again"]));
        budgets.set(&toolchain("rustc 2"), cases(6, &[]));
        assert_eq!(toml::from_str::<Budgets>(&budgets.to_text()).unwrap(), budgets);
    }

    #[test]
    fn thousands_are_apart_and_read_again() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1_000"), (5_123_061, "5_123_061")] {
            assert_eq!(grouped(number), text);
            let mut budgets = Budgets::default();
            budgets.set(&toolchain("rustc 1"), cases(number, &[]));
            assert_eq!(toml::from_str::<Budgets>(&budgets.to_text()).unwrap(), budgets);
        }
    }

    #[test]
    fn a_toolchain_has_only_its_own_budgets() {
        let mut budgets = Budgets::default();
        budgets.set(&toolchain("rustc 1"), cases(5, &[]));
        budgets.set(&toolchain("rustc 2"), cases(6, &[]));
        budgets.set(&toolchain("rustc 1"), cases(4, &[]));
        assert_eq!(budgets.of(&toolchain("rustc 1")), Some(&cases(4, &[])));
        assert_eq!(budgets.of(&toolchain("rustc 2")), Some(&cases(6, &[])));
        assert_eq!(budgets.of(&toolchain("rustc 3")), None);
        let elsewhere = Toolchain { machine: "aarch64".to_owned(), ..toolchain("rustc 1") };
        assert_eq!(budgets.of(&elsewhere), None);
    }

    #[test]
    fn a_key_that_nobody_knows_is_an_error() {
        let section = "[[toolchain]]\nrustc = \"1\"\nmachine = \"x\"\n[toolchain.cases]\n";
        assert!(toml::from_str::<Budgets>(&format!("{section}a = {{ instructions = 1 }}")).is_ok());
        assert!(toml::from_str::<Budgets>(&format!("{section}a = {{ instructions = 1, reason = \"r\" }}")).is_err());
        assert!(toml::from_str::<Budgets>(&format!("{section}a = {{ raises = [] }}")).is_err());
    }

    /// The committed file is one that the check can use.
    #[test]
    fn the_committed_budgets_can_be_read() {
        let budgets = Budgets::read(&crate::root().join(crate::BUDGET_FILE)).unwrap();
        assert!(!budgets.sections.is_empty());
        for section in &budgets.sections {
            assert!(section.cases.values().all(|budget| budget.instructions > 0));
        }
    }
}
