//! The program as it was when the budgets were last changed, built by the compiler of today: what its cases take is what
//! they may take here, on a toolchain that has no budgets.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use thiserror::Error;

use crate::Counts;

/// Where it is built, in the workspace. Each commit has a folder of its own: Cargo tells sources apart by path and time.
const FOLDER: &str = "target/instructions-base";

/// The base cannot be had.
#[derive(Debug, Error)]
pub(crate) enum BaseError {
    #[error("no commit has budgets yet: `antiphon-bench-instructions record` makes the first")]
    NoCommit,
    #[error("this clone is shallow and does not reach the commit that changed the budgets: `git fetch --unshallow`")]
    Shallow,
    #[error("cannot run {0}")]
    Run(&'static str, #[source] io::Error),
    #[error("{0} failed on the base commit:\n{1}")]
    Failed(&'static str, String),
    #[error("cannot make the folder of the base commit")]
    Folder(#[source] io::Error),
    #[error("the base commit's program says {0:?} instead of a count and a case")]
    Line(String),
}

/// The commit that changed `budget_file` last, and its counts.
pub(crate) fn counts(root: &Path, budget_file: &str) -> Result<(String, Counts), BaseError> {
    let commit = commit(root, budget_file)?;
    let folder = root.join(FOLDER).join(&commit);
    let program = build(&extract(root, &commit, &folder)?, &folder.join("target"))?;
    let printed = output("its program", Command::new(program).arg("count"))?;
    Ok((commit, printed.lines().map(read_line).collect::<Result<_, _>>()?))
}

fn commit(root: &Path, budget_file: &str) -> Result<String, BaseError> {
    let git = |arguments: &[&str]| output("git", Command::new("git").current_dir(root).args(arguments));
    let commit = git(&["log", "-1", "--format=%H", "--", budget_file])?.trim().to_owned();
    if commit.is_empty() {
        return Err(BaseError::NoCommit);
    }
    // The last commit that a shallow clone has looks as if it had made every file.
    let shallow = root.join(git(&["rev-parse", "--git-path", "shallow"])?.trim());
    if fs::read_to_string(shallow).is_ok_and(|commits| commits.lines().any(|line| line == commit)) {
        return Err(BaseError::Shallow);
    }
    Ok(commit)
}

/// The sources of the commit. What earlier bases left goes.
fn extract(root: &Path, commit: &str, folder: &Path) -> Result<PathBuf, BaseError> {
    let source = folder.join("source");
    if source.exists() {
        return Ok(source);
    }
    let all = root.join(FOLDER);
    if all.exists() {
        fs::remove_dir_all(&all).map_err(BaseError::Folder)?;
    }
    let (unfinished, archive) = (folder.join("unfinished"), folder.join("source.tar"));
    fs::create_dir_all(&unfinished).map_err(BaseError::Folder)?;
    output("git", Command::new("git").current_dir(root).args(["archive", commit, "--output"]).arg(&archive))?;
    output("tar", Command::new("tar").current_dir(&unfinished).arg("--extract").arg("--file").arg(&archive))?;
    fs::rename(unfinished, &source).map_err(BaseError::Folder)?;
    Ok(source)
}

fn build(source: &Path, target: &Path) -> Result<PathBuf, BaseError> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(source).env("CARGO_TARGET_DIR", target);
    cargo.args(["build", "--locked", "--quiet", "--profile", "instructions", "--package", "antiphon-bench-cases"]);
    output("cargo", &mut cargo)?;
    Ok(target.join("instructions/antiphon-bench-instructions"))
}

fn read_line(line: &str) -> Result<(String, u64), BaseError> {
    let read = line.split_once('\t').and_then(|(count, case)| Some((case.to_owned(), count.parse().ok()?)));
    read.ok_or_else(|| BaseError::Line(line.to_owned()))
}

fn output(name: &'static str, command: &mut Command) -> Result<String, BaseError> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| BaseError::Run(name, error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(BaseError::Failed(name, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_count_and_a_case() {
        assert_eq!(read_line("120\tfan-out: 1 to 500").unwrap(), ("fan-out: 1 to 500".to_owned(), 120));
        for line in ["", "120", "fan-out: 1 to 500\t120", "120 fan-out: 1 to 500"] {
            assert!(matches!(read_line(line), Err(BaseError::Line(_))), "{line:?}");
        }
    }
}
