//! The threads that share a convolution.

use std::{
    any::Any,
    ffi::{c_uint, c_void},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rayon::{
    iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator},
    slice::ParallelSliceMut,
};

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
    Pool(rayon::ThreadPool),
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
    /// So many threads of their own; 0 for one for each core. As many as there are cores keep to one each: while something else runs on a core, the scheduler,
    /// which finds none idle, would leave two of them on another for milliseconds, and each layer is over when the last thread is.
    ///
    /// # Errors
    /// When the operating system refuses them.
    pub(crate) fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        if count == 1 {
            return Ok(Threads { kind: Kind::Caller });
        }
        let count = match count {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let cores = affinity::allowed();
        let own = move |index: usize| (cores.len() == count).then(|| cores[index]);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("convolution-{index}"))
            .start_handler(move |index| {
                if let Some(core) = own(index) {
                    affinity::keep_to(core);
                }
            })
            .build()?;
        let kind = if pool.current_num_threads() > 1 {
            Kind::Pool(pool)
        } else {
            Kind::Caller
        };
        Ok(Threads { kind })
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

    /// Runs work of many parts, so that a pool wakes up once for all of them.
    pub(super) fn together<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.kind {
            Kind::Pool(pool) => pool.install(work),
            Kind::Caller | Kind::Libtorch { .. } => work(),
        }
    }

    pub(super) fn count(&self) -> usize {
        match &self.kind {
            Kind::Caller => 1,
            Kind::Pool(pool) => pool.current_num_threads(),
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
            Kind::Pool(pool) => pool.install(|| {
                (0..jobs).into_par_iter().with_max_len(1).for_each(work);
            }),
            Kind::Libtorch { parallel, count } => {
                let region = Region {
                    work: &work,
                    jobs,
                    next: AtomicUsize::new(0),
                    panic: Mutex::new(None),
                };
                region.run(*parallel, *count);
            }
        }
    }

    /// Does work with each run of `length` values and its number, in any order; on the caller where there is no pool.
    pub(crate) fn for_each_run<T: Send>(
        &self,
        values: &mut [T],
        length: usize,
        work: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        match &self.kind {
            Kind::Pool(pool) => pool.install(|| {
                let runs = values.par_chunks_mut(length).enumerate();
                runs.for_each(|(number, run)| work(number, run));
            }),
            Kind::Caller | Kind::Libtorch { .. } => {
                let runs = values.chunks_mut(length).enumerate();
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

impl Region<'_> {
    #[expect(unsafe_code, reason = "libgomp takes a C function and a pointer")]
    fn run(self, parallel: GompParallel, count: usize) {
        let data = (&raw const self).cast_mut().cast();
        let threads = c_uint::try_from(count.min(self.jobs)).unwrap_or(c_uint::MAX);
        // SAFETY: `take_jobs` gets the region, which lives until the call returns, which it does when no thread uses it any more.
        unsafe { parallel(take_jobs, data, threads.max(1), 0) };
        let panic = self.panic.into_inner();
        if let Some(panic) = panic.unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }

    fn take(&self) {
        loop {
            let job = self.next.fetch_add(1, Ordering::Relaxed);
            if job >= self.jobs {
                return;
            }
            (self.work)(job);
        }
    }
}

/// What each thread does. A panic must not pass through C; it goes on in the caller.
#[expect(unsafe_code, reason = "libgomp hands on a pointer")]
extern "C" fn take_jobs(data: *mut c_void) {
    // SAFETY: `run` made it of a region, which is only read and lives on.
    let region = unsafe { &*data.cast_const().cast::<Region<'_>>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| region.take())) {
        *region.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
    }
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

    /// The calling thread runs on no other from now on.
    pub(super) fn keep_to(core: usize) {
        let mut set = CpuSet::new();
        set.set(core);
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::debug!(%error, core, "a thread does not keep to one core");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod affinity {
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub(super) fn keep_to(_core: usize) {}
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
    #[cfg(target_os = "linux")]
    fn as_many_threads_as_cores_keep_to_one_each() {
        let cores = affinity::allowed();
        let of_each = |count: usize| {
            let Kind::Pool(pool) = Threads::new(count).unwrap().kind else {
                return vec![affinity::allowed()];
            };
            pool.broadcast(|_| affinity::allowed())
        };
        let apart: Vec<Vec<usize>> = cores.iter().map(|core| vec![*core]).collect();
        assert_eq!(of_each(cores.len()), apart);
        assert_eq!(
            of_each(cores.len() + 1),
            vec![cores.clone(); cores.len() + 1]
        );
        assert_eq!(affinity::allowed(), cores);
    }

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
