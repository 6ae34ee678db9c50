//! What one world may take of the machine it is simulated on. A world beyond a limit has failed, as
//! one that broke a promise has: a bug may well show as memory that grows without end, or as work
//! that never does.

use crate::{trace::Trace, world_clock::elapsed_us};
use bytesize::ByteSize;
use std::{io, time::Duration};

/// Processor time in which virtual time does not move. A moment of a usual world takes milliseconds.
const STANDSTILL_MAX: Duration = Duration::from_secs(20);
/// Looked at so often.
const TICK: Duration = Duration::from_secs(1);

/// From now on this process gets no more address space than that: an allocation beyond it aborts.
pub fn limit_memory(bytes: ByteSize) -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is this function's own.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = bytes.as_u64().min(limit.rlim_max);
        if libc::setrlimit(libc::RLIMIT_AS, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends the process when the world does not come to its end within `wall`, or when its time does not
/// move although it works. A busy machine makes a world slower, and no livelock of it.
/// The one thread beside the world's; it touches nothing of it.
pub fn watch(trace: Trace, wall: Duration) {
    std::thread::spawn(move || {
        let (mut former_us, mut moved_at) = (elapsed_us(), processor_time());
        let mut waited = Duration::ZERO;
        loop {
            // Real time: sleeping does not ask the clock.
            std::thread::sleep(TICK);
            waited += TICK;
            let (now_us, now) = (elapsed_us(), processor_time());
            if now_us != former_us {
                (former_us, moved_at) = (now_us, now);
            }
            if now - moved_at > STANDSTILL_MAX {
                trace.give_up(&format!("LIVELOCK: virtual time stands still at {now_us} us"));
            }
            if waited > wall {
                trace.give_up(&format!("TOO SLOW: no end after {} s, at {now_us} us of virtual time", wall.as_secs()));
            }
        }
    });
}

/// What this process has used, by the kernel's own books: the clock is the world's.
fn processor_time() -> Duration {
    // SAFETY: all zeros are a `rusage`, and it is this function's own.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut used);
        used
    };
    let duration = |time: libc::timeval| {
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_usec).unwrap_or_default() * 1_000)
    };
    duration(used.ru_utime) + duration(used.ru_stime)
}
