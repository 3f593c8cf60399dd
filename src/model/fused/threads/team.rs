//! Worker threads that share the jobs of a caller.
//!
//! A forward pass has about thirty regions of jobs in direct succession. A worker that has finished
//! its part of one spins for a moment for the next, and then sleeps. A yielding thread, as in a
//! task pool, would lose its core to a concurrent training for a whole time slice. The caller does
//! not wait for workers that have not started when all jobs are taken.

use std::{
    io,
    sync::{
        Arc, Mutex, TryLockError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
    thread::{JoinHandle, Thread},
    time::{Duration, Instant},
};

use super::{Region, affinity};

/// Time that a thread spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
/// Iterations between two readings of the clock.
const LOOKS: usize = 32;

/// One fewer than threads.
#[derive(Debug)]
pub(super) struct WorkerTeam {
    workers: Vec<Worker>,
    /// Locked while a region runs; another caller runs its jobs alone meanwhile.
    busy: Mutex<()>,
    /// Cores of all threads, the caller's first, if each has one.
    cores: Vec<usize>,
    keeps_caller: AtomicBool,
}

#[derive(Debug)]
struct Worker {
    mailbox: Arc<Mailbox>,
    thread: JoinHandle<()>,
}

/// A worker's mailbox.
#[derive(Debug, Default)]
struct Mailbox {
    /// Null if empty.
    call: AtomicPtr<Call<'static>>,
    is_over: AtomicBool,
}

/// A region and its caller's synchronisation.
struct Call<'a> {
    region: &'a Region<'a>,
    caller: Thread,
    /// Workers that may use it.
    users: AtomicUsize,
}

impl WorkerTeam {
    /// # Errors
    /// The operating system refuses a thread.
    pub(super) fn new(count: usize) -> io::Result<Self> {
        let mut cores = affinity::allowed();
        if cores.len() != count {
            cores.clear();
        }
        let mut team = WorkerTeam {
            workers: Vec::with_capacity(count - 1),
            busy: Mutex::new(()),
            cores,
            keeps_caller: AtomicBool::new(false),
        };
        for index in 1..count {
            let mailbox = Arc::new(Mailbox::default());
            let (work, core) = (Arc::clone(&mailbox), team.cores.get(index).copied());
            let thread = std::thread::Builder::new()
                .name(format!("convolution-{index}"))
                .spawn(move || {
                    if let Some(core) = core {
                        affinity::set_affinity(&[core]);
                    }
                    worker_loop(&work);
                })?;
            team.workers.push(Worker { mailbox, thread });
        }
        Ok(team)
    }

    pub(super) fn count(&self) -> usize {
        self.workers.len() + 1
    }

    pub(super) fn pin_caller(&self) {
        if let Some(core) = self.cores.first()
            && !self.keeps_caller.swap(true, Ordering::Relaxed)
        {
            affinity::set_affinity(&[*core]);
        }
    }

    pub(super) fn unpin_caller(&self) {
        if self.keeps_caller.swap(false, Ordering::Relaxed) {
            affinity::set_affinity(&self.cores);
        }
    }

    /// Runs all jobs of a region.
    pub(super) fn run(&self, region: &Region<'_>) {
        let wanted = self.workers.len().min(region.jobs.saturating_sub(1));
        let guard = match self.busy.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return region.take(),
        };
        let workers = &self.workers[..wanted];
        let call = Call {
            region,
            caller: std::thread::current(),
            users: AtomicUsize::new(wanted),
        };
        let pointer = std::ptr::from_ref(&call).cast_mut().cast();
        for Worker { mailbox, thread } in workers {
            mailbox.call.store(pointer, Ordering::Release);
            thread.thread().unpark();
        }
        region.take();
        for Worker { mailbox, .. } in workers {
            let is_unused = mailbox.call.compare_exchange(
                pointer,
                std::ptr::null_mut(),
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            if is_unused.is_ok() {
                call.users.fetch_sub(1, Ordering::Relaxed);
            }
        }
        // After this no worker has a pointer to the call, so it may be dropped.
        wait_until(|| call.users.load(Ordering::Acquire) == 0);
        drop(guard);
    }
}

impl Drop for WorkerTeam {
    fn drop(&mut self) {
        for Worker { mailbox, thread } in &self.workers {
            mailbox.is_over.store(true, Ordering::Release);
            thread.thread().unpark();
        }
        for Worker { thread, .. } in self.workers.drain(..) {
            // The region catches panics of its jobs.
            drop(thread.join());
        }
    }
}

/// The loop of a worker, until the team is dropped.
fn worker_loop(mailbox: &Mailbox) {
    loop {
        wait_until(|| {
            !mailbox.call.load(Ordering::Relaxed).is_null()
                || mailbox.is_over.load(Ordering::Acquire)
        });
        let call = mailbox.call.swap(std::ptr::null_mut(), Ordering::AcqRel);
        if !call.is_null() {
            take_part(call);
        } else if mailbox.is_over.load(Ordering::Acquire) {
            return;
        }
    }
}

#[expect(
    unsafe_code,
    reason = "the caller of a region waits until no worker uses it"
)]
fn take_part(call: *const Call<'static>) {
    // SAFETY: `run` put it into the worker's mailbox and does not return before this worker has
    // released its use below.
    let Call {
        region,
        caller,
        users,
    } = unsafe { &*call };
    region.take();
    let caller = caller.clone();
    // The call may be dropped after this.
    if users.fetch_sub(1, Ordering::Release) == 1 {
        caller.unpark();
    }
}

/// Waits for the condition; the thread that fulfils it then unparks the calling thread.
fn wait_until(is_done: impl Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < SPIN {
        for _ in 0..LOOKS {
            if is_done() {
                return;
            }
            std::hint::spin_loop();
        }
    }
    while !is_done() {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Barrier};

    use super::*;

    fn run(team: &WorkerTeam, jobs: usize, work: impl Fn(usize) + Sync) {
        Region::new(&work, jobs).run(|region| team.run(region));
    }

    #[test]
    fn every_job_runs_once_on_any_number_of_threads() {
        let team = WorkerTeam::new(3).unwrap();
        for jobs in [0, 1, 2, 3, 100] {
            let done: Vec<AtomicUsize> = (0..jobs).map(|_| AtomicUsize::new(0)).collect();
            run(&team, jobs, |job| {
                done[job].fetch_add(1, Ordering::Relaxed);
            });
            let done: Vec<usize> = done.into_iter().map(AtomicUsize::into_inner).collect();
            assert_eq!(done, vec![1; jobs]);
        }
    }

    #[test]
    fn jobs_that_wait_for_each_other_run_concurrently() {
        let team = WorkerTeam::new(3).unwrap();
        let (all, threads) = (Barrier::new(3), Mutex::new(BTreeSet::new()));
        for _ in 0..1_000 {
            run(&team, 3, |_| {
                all.wait();
                let name = std::thread::current().name().map(str::to_owned);
                threads.lock().unwrap().insert(name);
            });
        }
        assert_eq!(threads.into_inner().unwrap().len(), 3);
    }

    #[test]
    fn jobs_of_a_second_caller_and_nested_jobs_run_on_their_caller() {
        let team = WorkerTeam::new(2).unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        run(&team, 4, |_| {
                            run(&team, 3, |_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * 100 * 4 * 3);
    }

    #[test]
    fn a_panic_of_a_job_resumes_in_the_caller_and_the_team_still_works() {
        let team = WorkerTeam::new(2).unwrap();
        let all = Barrier::new(2);
        for panicking in 0..2 {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run(&team, 2, |job| {
                    all.wait();
                    assert_ne!(job, panicking, "as it should");
                });
            }));
            assert!(caught.is_err());
        }
        let count = AtomicUsize::new(0);
        run(&team, 5, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.into_inner(), 5);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn as_many_threads_as_cores_keep_to_one_each() {
        let cores = affinity::allowed();
        // With pinned workers, and a caller that is unpinned again.
        let of_each = |count: usize| {
            let team = WorkerTeam::new(count).unwrap();
            let (all, found) = (Barrier::new(count), Mutex::new(Vec::new()));
            let caller = || {
                team.pin_caller();
                run(&team, count, |_| {
                    all.wait();
                    found.lock().unwrap().push(affinity::allowed());
                });
                team.unpin_caller();
                affinity::allowed()
            };
            let free = std::thread::scope(|scope| scope.spawn(caller).join().unwrap());
            let mut found = found.into_inner().unwrap();
            found.sort();
            (found, free)
        };
        let apart: Vec<Vec<usize>> = cores.iter().map(|core| vec![*core]).collect();
        assert_eq!(of_each(cores.len()), (apart, cores.clone()));
        let together = vec![cores.clone(); cores.len() + 1];
        assert_eq!(of_each(cores.len() + 1), (together, cores));
    }
}
