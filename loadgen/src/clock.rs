//! Waiting for a planned moment. Tokio's clock counts milliseconds, which is enough where processor time is measured; a timer of
//! the kernel's own is exact to some ten microseconds, for latencies.

use std::{io, time::Duration};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::net::unix::pipe::Receiver;

/// One waiter's.
#[derive(Debug)]
pub(crate) enum Clock {
    /// Tokio's.
    Coarse,
    /// A timer of its own, which is read as a pipe is: a number comes when it has expired.
    Exact(Receiver),
}

impl Clock {
    /// With a timer of its own. Must be called within a Tokio runtime.
    pub(crate) fn exact() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self::Exact(Receiver::from_owned_fd_unchecked(timer)?))
    }

    /// Waits so long, which must be longer than nothing. Cancel-safe.
    pub(crate) async fn sleep(&self, wait: Duration) -> io::Result<()> {
        let Self::Exact(timer) = self else {
            tokio::time::sleep(wait).await;
            return Ok(());
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let until = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: zero, it_value: until };
        rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
        loop {
            timer.readable().await?;
            match timer.try_read(&mut [0; size_of::<u64>()]) {
                // A wait that was cancelled may have left the timer marked as readable.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read.map(drop),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_it_is_told_also_after_it_was_cancelled() {
        let clock = Clock::exact().unwrap();
        let cancelled = timeout(Duration::from_millis(5), clock.sleep(Duration::from_secs(3_600))).await;
        assert!(cancelled.is_err());
        for wait in [Duration::from_micros(200), Duration::from_millis(20)] {
            let start = Instant::now();
            clock.sleep(wait).await.unwrap();
            assert!(start.elapsed() >= wait);
        }
        // Expired, and never waited for.
        let cancelled = timeout(Duration::ZERO, clock.sleep(Duration::from_micros(1))).await;
        std::thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        clock.sleep(Duration::from_millis(20)).await.unwrap();
        assert!(cancelled.is_ok() || start.elapsed() >= Duration::from_millis(20));
    }
}
