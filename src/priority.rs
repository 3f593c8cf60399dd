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

/// One thread of a server gives way, where that does not slow down the others. Without it the work is the same, so a refusal is no error.
pub fn thread_gives_way(nice: u32) {
    if cfg!(target_os = "linux") {
        give_way(nice).ok();
    }
}

#[cfg(all(test, target_os = "linux"))]
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
}
