//! Lets others have the processor first, as `nice` does, and soon.

#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "no crate has the system call that sets how long a thread's turns are"
    )
)]

use std::io;

/// As `nice -n 19`: only what nobody else wants.
pub const MAX_NICE: u32 = 19;

/// The thread that calls it gives way, and those that it starts from now on; elsewhere than on Linux the whole process. Never by less than now.
///
/// # Errors
/// What the operating system refuses.
pub fn set_nice(nice: u32) -> io::Result<()> {
    let nice = i32::try_from(nice).unwrap_or(i32::MAX);
    if rustix::process::getpriority_process(None).is_ok_and(|own| own >= nice) {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// The thread that calls it, and those that it starts from now on, have the processor only when nobody else wants it, and leave it at once when somebody does:
/// Linux's policy SCHED_IDLE. By niceness alone a thread that gives way still finishes its turn of some milliseconds, which a prediction waits for. Elsewhere the same as
/// [`set_nice`] by [`MAX_NICE`].
///
/// # Errors
/// What the operating system refuses.
pub fn set_idle_policy() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    enter_idle_policy()?;
    set_nice(MAX_NICE)
}

#[cfg(target_os = "linux")]
fn enter_idle_policy() -> io::Result<()> {
    use thread_priority::{
        NormalThreadSchedulePolicy::Idle, ThreadPriority, ThreadSchedulePolicy::Normal,
    };
    let set = thread_priority::set_thread_priority_and_policy(
        thread_priority::thread_native_id(),
        ThreadPriority::Min,
        Normal(Idle),
    );
    // It also sets the niceness back, which not everybody may; the policy is there all the same.
    match thread_priority::thread_schedule_policy() {
        Ok(Normal(Idle)) => Ok(()),
        _ => Err(io::Error::other(format!("no idle policy: {set:?}"))),
    }
}

/// How long a thread computes before others that wait have their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSlice {
    /// A tenth of a millisecond, for whom others wait.
    Short,
    /// A tenth of a second, for whom nobody waits.
    Long,
}

/// The thread that calls it, and those that it starts from now on, take turns of this length.
///
/// Niceness is about shares and not about delays: a thread that wakes up waits until the turn of the one that runs is over, some milliseconds, however nice that one is. Since Linux 6.12
/// one with shorter turns interrupts one with longer turns (EEVDF's custom slices, sched_setattr(2)); older kernels and other systems take no notice.
pub fn set_time_slice(slice: TimeSlice) {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_slice(slice) {
        tracing::debug!(%error, ?slice, "the length of turns stays as it is");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = slice;
}

/// `struct sched_attr` in its first version.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

#[cfg(target_os = "linux")]
fn set_slice(slice: TimeSlice) -> io::Result<()> {
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).expect("it has 48 bytes"),
        flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        nice: rustix::process::getpriority_process(None)?,
        runtime_ns: match slice {
            TimeSlice::Short => 100_000,
            TimeSlice::Long => 100_000_000,
        },
        ..Default::default()
    };
    // SAFETY: the kernel reads `size` bytes of the structure, which lives until it returns, and changes nothing but the calling thread's scheduling.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One thread of a server gives way, where that does not slow down the others. Without it the work is the same, so a refusal is no error.
pub fn lower_thread_priority(nice: u32) {
    if cfg!(target_os = "linux") {
        set_nice(nice).ok();
        set_time_slice(TimeSlice::Long);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn own() -> i32 {
        rustix::process::getpriority_process(None).expect("a thread has a priority")
    }

    #[test]
    fn one_thread_gives_way_and_never_by_less() {
        let before = own();
        let thread = std::thread::spawn(|| {
            lower_thread_priority(MAX_NICE);
            let least = own();
            lower_thread_priority(1);
            (least, own())
        });
        assert_eq!(thread.join().unwrap(), (19, 19));
        assert_eq!(own(), before);
    }

    /// Nanoseconds of the calling thread's turns, as the kernel tells them; 0 before Linux 6.12.
    fn turns() -> u64 {
        let mut attributes = Attributes::default();
        let size = u32::try_from(size_of::<Attributes>()).unwrap();
        // SAFETY: the kernel writes at most `size` bytes to the structure.
        let done =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        assert_eq!(done, 0);
        attributes.runtime_ns
    }

    #[test]
    fn turns_are_as_long_as_was_asked_and_handed_on() {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let version: Vec<u32> = release
            .split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect();
        let knows = version[..] >= [6, 12][..];
        let thread = std::thread::spawn(move || {
            set_time_slice(TimeSlice::Short);
            let short = (turns(), std::thread::spawn(turns).join().unwrap());
            lower_thread_priority(1);
            (short, turns(), own())
        });
        let (short, long, nice) = thread.join().unwrap();
        match knows {
            true => assert_eq!((short, long), ((100_000, 100_000), 100_000_000)),
            false => assert_eq!((short, long), ((0, 0), 0)),
        }
        assert!(nice >= 1);
    }

    /// In /proc/thread-self/stat the policy is the 41st field, and the second may hold spaces; 5 is SCHED_IDLE (sched(7)).
    fn policy() -> u32 {
        let stat = fs_err::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn thread_that_runs_only_when_idle_hands_that_on() {
        let before = policy();
        let thread = std::thread::spawn(|| {
            set_idle_policy().unwrap();
            (policy(), std::thread::spawn(policy).join().unwrap())
        });
        assert_eq!(thread.join().unwrap(), (5, 5));
        assert_eq!(policy(), before);
    }
}
