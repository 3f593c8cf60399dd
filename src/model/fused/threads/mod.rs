//! The threads that share the work of a layer.

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

use team::WorkerTeam;

mod team;

/// Number of jobs for each thread above which they are not divided.
const MANY: usize = 8;

/// A fixed number of threads.
#[derive(Debug)]
pub(crate) struct Threads {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Caller,
    Team(WorkerTeam),
    /// libtorch's own threads: a second pool would compete with them, because they spin while they
    /// wait for the next operation.
    Libtorch {
        parallel: GompParallel,
        count: usize,
    },
}

/// libgomp's implementation of `#pragma omp parallel`: calls the function with the data on this
/// many threads and returns when all are done.
type GompParallel = unsafe extern "C" fn(extern "C" fn(*mut c_void), *mut c_void, c_uint, c_uint);

impl Threads {
    /// Starts threads; `count` includes the caller of [`Threads::for_each`], and 0 means one for
    /// each core. If there is a core for each, they are pinned: otherwise, while another process
    /// uses a core and none is idle, the scheduler would leave two of them on one core for
    /// milliseconds, and each layer lasts as long as its slowest thread.
    ///
    /// # Errors
    /// The operating system refuses a thread.
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let kind = match count {
            1 => Kind::Caller,
            count => Kind::Team(WorkerTeam::new(count)?),
        };
        Ok(Threads { kind })
    }

    /// Pins the calling thread to the core that the others leave free, if each has one.
    pub(crate) fn pin_caller(&self) {
        if let Kind::Team(team) = &self.kind {
            team.pin_caller();
        }
    }

    /// Lets the calling thread run on all cores again.
    pub(crate) fn unpin_caller(&self) {
        if let Kind::Team(team) = &self.kind {
            team.unpin_caller();
        }
    }

    /// libtorch's threads, as many as it uses at the first call.
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
                tracing::warn!(%error, "failed to start compute threads; running on one");
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

    /// The number of parts into which to divide each of `jobs` equal jobs, so that all threads get
    /// the same number of them. Many jobs are not divided: waiting for the last of them costs
    /// little.
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

    /// Runs all jobs, in any order.
    pub(crate) fn for_each(&self, jobs: usize, work: impl Fn(usize) + Sync + Send) {
        match &self.kind {
            Kind::Caller => (0..jobs).for_each(work),
            Kind::Team(team) => Region::new(&work, jobs).run(|region| team.run(region)),
            Kind::Libtorch { parallel, count } => {
                Region::new(&work, jobs).run(|region| region.run_by_libtorch(*parallel, *count));
            }
        }
    }

    /// Calls the function with each run of `length` values and its index, in any order; on the
    /// caller if there is no team.
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

/// A set of jobs from which threads take one at a time.
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

    /// Resumes the panic of a job, if any.
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
        // SAFETY: `take_jobs` gets the region, which outlives the call; the call returns when no
        // thread uses it.
        unsafe { parallel(take_jobs, data, threads.max(1), 0) };
    }

    /// Runs jobs until none are left. A panic is stored for [`Region::run`].
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
#[expect(unsafe_code, reason = "libgomp passes a pointer")]
extern "C" fn take_jobs(data: *mut c_void) {
    // SAFETY: the pointer comes from a shared region that outlives the call.
    unsafe { &*data.cast_const().cast::<Region<'_>>() }.take();
}

/// CPU affinity. It only affects speed, so failures are not errors.
#[cfg(target_os = "linux")]
mod affinity {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    /// The cores that the calling thread may use.
    pub(super) fn allowed() -> Vec<usize> {
        let Ok(set) = sched_getaffinity(None) else {
            return Vec::new();
        };
        (0..CpuSet::MAX_CPU)
            .filter(|core| set.is_set(*core))
            .collect()
    }

    /// Pins the calling thread to these cores.
    pub(super) fn set_affinity(cores: &[usize]) {
        let mut set = CpuSet::new();
        for core in cores {
            set.set(*core);
        }
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::debug!(%error, ?cores, "failed to set the affinity of a thread");
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

/// Finds libgomp in the process, if libtorch uses it.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a symbol has the type that its caller knows")]
fn gomp_parallel() -> Option<GompParallel> {
    let process = libloading::os::unix::Library::this();
    // SAFETY: libgomp's function has had this signature since GCC 4.9.
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
        // Jobs, threads, parts; computed by hand.
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
