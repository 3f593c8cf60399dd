//! The threads that share a convolution.

use std::{
    any::Any,
    ffi::{c_uint, c_void},
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use team::Team;

mod team;

/// Jobs for each thread that are many.
const MANY: usize = 8;

/// Who computes.
#[derive(Debug)]
pub(crate) struct Threads {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Caller,
    Team(Team),
    /// The threads that libtorch computes with when the same thread calls it: a pool beside them would compete with theirs, which wait for the next
    /// operation without giving up their core.
    Libtorch {
        parallel: GompParallel,
        count: usize,
    },
}

/// libgomp's entry behind `#pragma omp parallel`: calls the function with the data on so many threads and returns when all are done.
type GompParallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

impl Threads {
    /// So many threads, of which the caller of [`Threads::for_each`] is one; 0 for one for each core. As many as there are cores keep to one each: while something
    /// else runs on a core, the scheduler, which finds none idle, would leave two of them on another for milliseconds, and each layer is over when the last thread is.
    ///
    /// # Errors
    /// When the operating system refuses them.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let kind = match count {
            1 => Kind::Caller,
            count => Kind::Team(Team::new(count)?),
        };
        Ok(Threads { kind })
    }

    /// The calling thread, which computes with the others from now on, keeps to the core that they leave, if each has one.
    pub(crate) fn pin_caller(&self) {
        if let Kind::Team(team) = &self.kind {
            team.pin_caller();
        }
    }

    /// The calling thread does not any more.
    pub(crate) fn unpin_caller(&self) {
        if let Kind::Team(team) = &self.kind {
            team.unpin_caller();
        }
    }

    /// Those of libtorch, as many as it computes with when this is first asked.
    pub(crate) fn of_libtorch() -> &'static Self {
        static THREADS: OnceLock<Threads> = OnceLock::new();
        THREADS.get_or_init(|| {
            let count = usize::try_from(tch::get_num_threads()).unwrap_or(1);
            if count > 1
                && let Some(parallel) = gomp_parallel()
            {
                let kind = Kind::Libtorch { parallel, count };
                return Threads { kind };
            }
            Threads::new(count).unwrap_or_else(|error| {
                tracing::warn!(%error, "no threads to compute with could be had: one does all");
                Threads { kind: Kind::Caller }
            })
        })
    }

    pub(super) fn count(&self) -> usize {
        match &self.kind {
            Kind::Caller => 1,
            Kind::Team(team) => team.count(),
            Kind::Libtorch { count, .. } => *count,
        }
    }

    /// In how many parts each of so many equal jobs is to be done, so that every thread has as many of them as the others. Of many jobs each is one: a
    /// thread that waits for the last of them waits for little.
    pub(super) fn parts_of(&self, jobs: usize) -> usize {
        let threads = self.count();
        if jobs >= MANY * threads {
            return 1;
        }
        let (mut divisor, mut rest) = (threads, jobs);
        while rest > 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        threads / divisor
    }

    /// Does all jobs, in any order.
    pub(crate) fn for_each(&self, jobs: usize, work: impl Fn(usize) + Sync + Send) {
        match &self.kind {
            Kind::Caller => (0..jobs).for_each(work),
            Kind::Team(team) => Region::new(&work, jobs).run(|region| team.run(region)),
            Kind::Libtorch { parallel, count } => {
                Region::new(&work, jobs).run(|region| region.run_by_libtorch(*parallel, *count));
            }
        }
    }

    /// Does work with each run of `length` values and its number, in any order; on the caller where there is no team.
    pub(crate) fn for_each_run<T: Send>(
        &self,
        values: &mut [T],
        length: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        let runs = values.chunks_mut(length).enumerate();
        match &self.kind {
            Kind::Team(_) => {
                let count = runs.len();
                let runs = Mutex::new(runs);
                self.for_each(count, |_| {
                    let next = runs.lock().unwrap_or_else(PoisonError::into_inner).next();
                    if let Some((number, run)) = next {
                        work(number, run);
                    }
                });
            }
            Kind::Caller | Kind::Libtorch { .. } => {
                runs.for_each(|(number, run)| work(number, run));
            }
        }
    }
}

/// Jobs that threads take one after the other.
struct Region<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    jobs: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl<'a> Region<'a> {
    fn new(work: &'a (dyn Fn(usize) + Sync), jobs: usize) -> Self {
        Region {
            work,
            jobs,
            next: AtomicUsize::new(0),
            panic: Mutex::new(None),
        }
    }

    /// Goes on with the panic of a job, if there was one.
    fn run(self, by: impl FnOnce(&Self)) {
        by(&self);
        let panic = self.panic.into_inner();
        if let Some(panic) = panic.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    #[expect(unsafe_code, reason = "libgomp takes a C function and a pointer")]
    fn run_by_libtorch(&self, parallel: GompParallel, count: usize) {
        let data = std::ptr::from_ref(self).cast_mut().cast();
        let threads = c_uint::try_from(count.min(self.jobs)).unwrap_or(c_uint::MAX);
        // SAFETY: `take_jobs` gets the region, which lives until the call returns, which it does when no thread uses it any more.
        unsafe { parallel(take_jobs, data, threads.max(1), 0) };
    }

    /// What each thread does: takes jobs until there are none. A panic is kept for [`Region::run`].
    fn take(&self) {
        let all = || {
            loop {
                let job = self.next.fetch_add(1, Ordering::Relaxed);
                if job >= self.jobs {
                    return;
                }
                (self.work)(job);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(all)) {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

/// [`Region::take`] for libgomp.
#[expect(unsafe_code, reason = "libgomp hands on a pointer")]
extern "C" fn take_jobs(data: *mut c_void) {
    // SAFETY: it was made of a region, which is only read and lives on.
    unsafe { &*data.cast_const().cast::<Region<'_>>() }.take();
}

/// Which cores a thread may run on. Without it the work is the same, so what the system does not tell or refuses is no error.
#[cfg(target_os = "linux")]
mod affinity {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The numbers of the calling thread's.
    pub(super) fn allowed() -> Vec<usize> {
        let Ok(set) = sched_getaffinity(None) else {
            return Vec::new();
        };
        (0..CpuSet::MAX_CPU)
            .filter(|core| set.is_set(*core))
            .collect()
    }

    /// The calling thread runs on no others from now on.
    pub(super) fn set_affinity(cores: &[usize]) {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core);
        }
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::debug!(%error, ?cores, "a thread runs where it did");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn set_affinity(_cores: &[usize]) {}
}

/// Finds libgomp in the process, if libtorch was built with it.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a symbol has the type that its caller knows")]
fn gomp_parallel() -> Option<GompParallel> {
    let process = libloading::os::unix::Library::this();
    // SAFETY: libgomp's, whose signature has been this one since GCC 4.9.
    let symbol = unsafe { process.get::<GompParallel>(b"GOMP_parallel\0") };
    symbol.ok().map(|symbol| *symbol)
}

#[cfg(not(unix))]
fn gomp_parallel() -> Option<GompParallel> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_jobs_are_divided_until_all_threads_have_the_same() {
        // Jobs, threads, parts; worked out by hand.
        for (jobs, threads, parts) in [
            (1, 2, 2),
            (3, 2, 2),
            (4, 2, 1),
            (15, 2, 2),
            (17, 2, 1),
            (2, 3, 3),
            (4, 6, 3),
            (12, 6, 1),
            (7, 1, 1),
        ] {
            let found = Threads::new(threads).unwrap().parts_of(jobs);
            assert_eq!(found, parts, "{jobs} jobs on {threads} threads");
        }
    }
}
