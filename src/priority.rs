//! Scheduling priority and time slice of threads.

#![cfg_attr(
    target_os = "linux",
    expect(
        unsafe_code,
        reason = "no crate has the system call that sets a thread's time slice"
    )
)]

use std::io::{self, Write as _};

use fs_err::OpenOptions;

/// The lowest priority, as with `nice -n 19`.
pub(crate) const MAX_NICE: u32 = 19;

/// Raises the niceness of the calling thread and of threads that it starts later; of the process,
/// outside Linux. Never lowers it.
///
/// # Errors
/// If the operating system refuses.
pub(crate) fn set_nice(nice: u32) -> io::Result<()> {
    let nice = i32::try_from(nice).unwrap_or(i32::MAX);
    if rustix::process::getpriority_process(None).is_ok_and(|own| own >= nice) {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// Runs the calling thread, and threads that it starts later, only when the CPU is otherwise idle:
/// Linux's policy SCHED_IDLE, elsewhere [`set_nice`] with [`MAX_NICE`].
///
/// A thread that is merely nice still finishes its time slice of some milliseconds, during which a
/// prediction waits; an idle one is preempted at once.
///
/// # Errors
/// If the operating system refuses.
pub(crate) fn set_idle_policy() -> io::Result<()> {
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
    // The crate also resets the niceness, which may be forbidden; the policy is set all the same.
    match thread_priority::thread_schedule_policy() {
        Ok(Normal(Idle)) => Ok(()),
        _ => Err(io::Error::other(format!(
            "failed to set the idle policy: {set:?}"
        ))),
    }
}

/// Time for which a thread computes before waiting threads have their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeSlice {
    /// 0.1 ms, for threads that clients wait for.
    Short,
    /// 100 ms, for background work.
    Long,
}

/// Sets the time slice of the calling thread and of threads that it starts later.
///
/// Niceness controls shares and not delays: a thread that wakes up waits until the running thread's
/// time slice has passed, some milliseconds, however nice that thread is. Since Linux 6.12 a thread
/// with a shorter time slice preempts one with a longer one (EEVDF's custom slices,
/// sched_setattr(2)); older kernels and other systems ignore it.
pub(crate) fn set_time_slice(slice: TimeSlice) {
    #[cfg(target_os = "linux")]
    if let Err(error) = set_slice(slice) {
        tracing::debug!(%error, ?slice, "failed to set the time slice");
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
    // SAFETY: the kernel reads `size` bytes of the structure, which lives until the call returns,
    // and changes nothing but the calling thread's scheduling.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

const OUT_OF_MEMORY_SCORE: &str = "/proc/self/oom_score_adj";
/// The least score of a training; the scale is -1000 to 1000.
const TRAINING_SCORE: i32 = 500;

/// Makes the kernel end this process instead of the server that started it when memory runs out.
///
/// # Errors
/// If the system refuses, or has no such score.
pub(crate) fn end_first_without_memory() -> io::Result<()> {
    let inherited: i32 = fs_err::read_to_string(OUT_OF_MEMORY_SCORE)?
        .trim()
        .parse()
        .map_err(io::Error::other)?;
    // Kubernetes gives up to 1000 to the server too; lowering it requires a capability.
    let score = inherited.saturating_add(TRAINING_SCORE).min(1000);
    let score = score.max(TRAINING_SCORE);
    OpenOptions::new()
        .write(true)
        .open(OUT_OF_MEMORY_SCORE)?
        .write_all(score.to_string().as_bytes())
}

/// Lowers the priority of one thread of a server, on systems where that leaves the other threads
/// alone. The work is the same at any priority, so a refusal is ignored.
pub(crate) fn lower_thread_priority(nice: u32) {
    if cfg!(target_os = "linux") {
        set_nice(nice).ok();
        set_time_slice(TimeSlice::Long);
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn training_is_ended_before_its_server() {
        let score = || fs_err::read_to_string(OUT_OF_MEMORY_SCORE).unwrap();
        let before: i32 = score().trim().parse().unwrap();
        end_first_without_memory().unwrap();
        let expected = (before + 500).clamp(500, 1000);
        assert_eq!(score(), format!("{expected}\n"));
    }

    fn own() -> i32 {
        rustix::process::getpriority_process(None).expect("a thread has a priority")
    }

    #[test]
    fn thread_priority_is_lowered_and_never_raised() {
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

    /// Returns the calling thread's time slice in nanoseconds; 0 before Linux 6.12.
    fn time_slice() -> u64 {
        let mut attributes = Attributes::default();
        let size = u32::try_from(size_of::<Attributes>()).unwrap();
        // SAFETY: the kernel writes at most `size` bytes to the structure.
        let done =
            unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
        assert_eq!(done, 0);
        attributes.runtime_ns
    }

    #[test]
    fn time_slice_is_set_and_inherited() {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let version: Vec<u32> = release
            .split(['.', '-'])
            .map_while(|part| part.parse().ok())
            .collect();
        let is_supported = version[..] >= [6, 12][..];
        let thread = std::thread::spawn(move || {
            set_time_slice(TimeSlice::Short);
            let short = (time_slice(), std::thread::spawn(time_slice).join().unwrap());
            lower_thread_priority(1);
            (short, time_slice(), own())
        });
        let (short, long, nice) = thread.join().unwrap();
        match is_supported {
            true => assert_eq!((short, long), ((100_000, 100_000), 100_000_000)),
            false => assert_eq!((short, long), ((0, 0), 0)),
        }
        assert!(nice >= 1);
    }

    /// The policy is the 41st field of /proc/thread-self/stat, whose second field may contain
    /// spaces; 5 is SCHED_IDLE (sched(7)).
    fn policy() -> u32 {
        let stat = fs_err::read_to_string("/proc/thread-self/stat").unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(38).unwrap().parse().unwrap()
    }

    #[test]
    fn idle_policy_is_inherited() {
        let before = policy();
        let thread = std::thread::spawn(|| {
            set_idle_policy().unwrap();
            (policy(), std::thread::spawn(policy).join().unwrap())
        });
        assert_eq!(thread.join().unwrap(), (5, 5));
        assert_eq!(policy(), before);
    }
}
