//! Lets others have the processor first, as `nice` does.

use std::io;

/// As `nice -n 19`: only what nobody else wants.
pub const LEAST: u32 = 19;

/// The thread that calls it gives way, and those that it starts from now on; elsewhere than on Linux the whole process. Never by less than now.
///
/// # Errors
/// What the operating system refuses.
pub fn give_way(nice: u32) -> io::Result<()> {
    let nice = i32::try_from(nice).unwrap_or(i32::MAX);
    if rustix::process::getpriority_process(None).is_ok_and(|own| own >= nice) {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// The thread that calls it, and those that it starts from now on, have the processor only when nobody else wants it, and leave it at once when somebody does:
/// Linux's policy SCHED_IDLE. By niceness alone a thread that gives way still finishes its turn of some milliseconds, which a prediction waits for. Elsewhere the same as
/// [`give_way`] by [`LEAST`].
///
/// # Errors
/// What the operating system refuses.
pub fn only_when_idle() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    enter_idle_policy()?;
    give_way(LEAST)
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

/// One thread of a server gives way, where that does not slow down the others. Without it the work is the same, so a refusal is no error.
pub fn thread_gives_way(nice: u32) {
    if cfg!(target_os = "linux") {
        give_way(nice).ok();
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
            thread_gives_way(LEAST);
            let least = own();
            thread_gives_way(1);
            (least, own())
        });
        assert_eq!(thread.join().unwrap(), (19, 19));
        assert_eq!(own(), before);
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
            only_when_idle().unwrap();
            (policy(), std::thread::spawn(policy).join().unwrap())
        });
        assert_eq!(thread.join().unwrap(), (5, 5));
        assert_eq!(policy(), before);
    }
}
