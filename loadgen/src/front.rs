//! A thread of the generator that comes first: what is to be sent at its moment waits for nobody who receives.
//!
//! Sockets and timers belong to the runtime in which they were made, so whatever a send needs is made in this one.

use std::{io, thread};

use tokio::{runtime::Handle, sync::oneshot};

use crate::measured::one_thread;

/// A Tokio runtime on such a thread. It ends, and what it runs with it, when this is dropped.
#[derive(Debug)]
pub(crate) struct Front {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Front {
    /// Starts it, on the calling thread's processors. Where the system lets no thread come first it is an ordinary one; how
    /// late it then is shows in what is measured.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = one_thread()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("front".into()).spawn(move || {
            let _ = antiphon_sys::priority::come_first();
            let _the_other_end_is_gone = runtime.block_on(stopped);
        })?;
        Ok(Self { handle, _stop: stop })
    }

    /// Where its work is started.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn its_work_is_done_on_a_thread_of_its_own_and_ends_with_it() {
        let front = Front::start().unwrap();
        let thread = front.handle().spawn(async { thread::current().name().map(str::to_owned) });
        assert_eq!(thread.await.unwrap().as_deref(), Some("front"));
        let endless = front.handle().spawn(tokio::time::sleep(Duration::from_secs(3_600)));
        drop(front);
        assert!(endless.await.unwrap_err().is_cancelled());
    }
}
