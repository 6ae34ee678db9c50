//! Time and randomness of a simulated world, put in the place of the system's.
//!
//! The whole process is one world: what asks the C library for the time or for random bytes, std's
//! `Instant`, `SystemTime` and hash keys among it, gets the world's. The executable's own
//! `clock_gettime` and `getrandom` come before the C library's when it is linked (the way of
//! madsim's). Before [`begin`] both pass on to the kernel.
//!
//! Virtual time moves in one place only: when every task waits, tokio's paused clock jumps to the
//! next timer, and [`follow`] takes that over before any task runs.

use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    cell::{Cell, RefCell},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// 2026-01-01T00:00:00Z: when every simulated world begins.
const BEGINNING_S: u64 = 1_767_225_600;
/// What a monotonic clock shows then.
const UPTIME_S: u64 = 1_000;

static ON: AtomicBool = AtomicBool::new(false);
static ELAPSED_NS: AtomicU64 = AtomicU64::new(0);
static RANDOM: Mutex<Option<StdRng>> = Mutex::new(None);

thread_local! {
    /// Whether this thread lives in the world. Others must not draw from its randomness.
    static INHABITANT: Cell<bool> = const { Cell::new(false) };
    static START: RefCell<Option<tokio::time::Instant>> = const { RefCell::new(None) };
}

/// From now on this process has the time of a world, and this thread the randomness of `seed`. The
/// thread must be new: std draws the keys of a thread's hash maps once.
pub fn begin(seed: u64) {
    INHABITANT.set(true);
    *RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(StdRng::seed_from_u64(seed));
    ON.store(true, Ordering::SeqCst);
}

/// Takes over tokio's time. Called by the runtime's thread each time it has waited.
pub fn follow() {
    let now = tokio::time::Instant::now();
    START.with_borrow_mut(|start| {
        let elapsed = now - *start.get_or_insert(now);
        ELAPSED_NS.store(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    });
}

/// Since the world began.
pub fn elapsed_us() -> u64 {
    ELAPSED_NS.load(Ordering::Relaxed) / 1_000
}

/// Ends the process when virtual time has not moved for `wall`: something in the world never waits.
/// The one thread beside the world's; it touches nothing of it.
pub fn watch(wall: std::time::Duration) {
    let mut former = elapsed_us();
    std::thread::spawn(move || {
        loop {
            // Real time: sleeping does not ask the clock.
            std::thread::sleep(wall);
            let now = elapsed_us();
            if now == former {
                println!("violation: LIVELOCK: virtual time stands still at {now} us");
                std::process::exit(1);
            }
            former = now;
        }
    });
}

fn fill(bytes: &mut [u8]) -> bool {
    if !INHABITANT.try_with(Cell::get).unwrap_or(false) {
        return false;
    }
    let mut random = RANDOM.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    random.as_mut().map(|random| random.fill_bytes(bytes)).is_some()
}

/// # Safety
/// As the C library's function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut libc::c_void, length: libc::size_t, flags: libc::c_uint) -> libc::ssize_t {
    // SAFETY: the caller owns `length` bytes at `buffer`.
    unsafe {
        if ON.load(Ordering::SeqCst) && !buffer.is_null() && fill(std::slice::from_raw_parts_mut(buffer.cast(), length))
        {
            return libc::ssize_t::try_from(length).unwrap_or(libc::ssize_t::MAX);
        }
        libc::syscall(libc::SYS_getrandom, buffer, length, flags) as libc::ssize_t
    }
}

/// # Safety
/// As the C library's function of this name.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let origin_s = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => BEGINNING_S,
        _ => UPTIME_S,
    };
    // SAFETY: the caller owns a timespec at `time`.
    unsafe {
        if !ON.load(Ordering::SeqCst) || time.is_null() {
            return libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int;
        }
        let elapsed = ELAPSED_NS.load(Ordering::Relaxed);
        (*time).tv_sec = (origin_s + elapsed / 1_000_000_000) as libc::time_t;
        (*time).tv_nsec = (elapsed % 1_000_000_000) as libc::c_long;
    }
    0
}

/// # Safety
/// Called by the crate `getrandom` (0.3 and 0.4) with `length` bytes of its own.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(buffer: *mut u8, length: usize) -> Result<(), getrandom::Error> {
    // SAFETY: as promised by the caller.
    let got = unsafe { getrandom(buffer.cast(), length, 0) };
    if usize::try_from(got) == Ok(length) { Ok(()) } else { Err(getrandom::Error::UNEXPECTED) }
}
