//! How a node comes by its classes.
//!
//! Java spends a third of a start on reading, checking and linking some ten thousand classes. It can archive what it has
//! at its end and map that into memory the next time. So a node is started and stopped once for every installation and
//! Java, a rehearsal, and what it archives serves all later starts. Java looks whether an archive fits, and does without
//! one that does not.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, PoisonError},
};

use crate::{LaunchError, installation::Installation};

/// Java 11 has nothing of the kind for classes of an application.
const JAVA_ARCHIVES: u32 = 17;

/// Where a node's classes come from.
#[derive(Debug, Clone)]
pub(crate) enum Classes {
    /// The jars.
    Read,
    /// The jars, and they are archived in this file when the node stops.
    Archived(PathBuf),
    /// This archive, as far as it goes.
    Mapped(PathBuf),
}

impl Classes {
    pub(crate) fn argument(&self) -> Option<String> {
        match self {
            Self::Read => None,
            Self::Archived(file) => Some(format!("-XX:ArchiveClassesAtExit={}", file.display())),
            Self::Mapped(file) => Some(format!("-XX:SharedArchiveFile={}", file.display())),
        }
    }
}

/// An installation that maps its archive, for which `rehearse` is called if there is none yet: it starts a node of the
/// installation that it gets and stops it again.
pub(crate) fn mapped(
    installation: Installation,
    rehearse: impl FnOnce(Installation) -> Result<(), LaunchError>,
) -> Result<Installation, LaunchError> {
    /// Whether this process has tried. Once is enough even where it cannot write, and one of several threads is.
    static REHEARSED: Mutex<bool> = Mutex::new(false);
    if installation.java.major < JAVA_ARCHIVES {
        return Ok(installation);
    }
    let archive = archive(&installation);
    let mut rehearsed = REHEARSED.lock().unwrap_or_else(PoisonError::into_inner);
    if !archive.exists() && !*rehearsed {
        *rehearsed = true;
        let unfinished = archive.with_extension(process::id().to_string());
        rehearse(Installation { classes: Classes::Archived(unfinished.clone()), ..installation.clone() })?;
        // Several processes may do this at once, and any result will do. Without one nodes start more slowly.
        let _ = fs::rename(unfinished, &archive);
    }
    let classes = if archive.exists() { Classes::Mapped(archive) } else { Classes::Read };
    Ok(Installation { classes, ..installation })
}

fn archive(installation: &Installation) -> PathBuf {
    let folder = installation.jars.parent().unwrap_or(Path::new("."));
    folder.join(format!("classes-{}.jsa", installation.java.build))
}
