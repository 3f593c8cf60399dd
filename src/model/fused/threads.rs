//! The threads that share a convolution.

use std::sync::OnceLock;

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// A pool, or only the calling thread.
#[derive(Debug)]
pub(crate) struct Threads {
    pool: Option<rayon::ThreadPool>,
}

impl Threads {
    /// So many threads; 0 for one for each core.
    ///
    /// # Errors
    /// When the operating system refuses them.
    pub(crate) fn new(count: usize) -> Result<Self, rayon::ThreadPoolBuildError> {
        if count == 1 {
            return Ok(Threads { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("convolution-{index}"))
            .build()?;
        Ok(Threads {
            pool: (pool.current_num_threads() > 1).then_some(pool),
        })
    }

    /// As many threads as libtorch computes with when this is first asked; the same pool for all.
    pub(crate) fn of_libtorch() -> &'static Self {
        static POOL: OnceLock<Threads> = OnceLock::new();
        POOL.get_or_init(|| {
            let count = usize::try_from(tch::get_num_threads()).unwrap_or(1);
            Threads::new(count).unwrap_or_else(|error| {
                tracing::warn!(%error, "no threads to compute with could be had: one does all");
                Threads { pool: None }
            })
        })
    }

    pub(super) fn count(&self) -> usize {
        self.pool
            .as_ref()
            .map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Does all jobs, in any order.
    pub(super) fn for_each(&self, jobs: usize, work: impl Fn(usize) + Sync + Send) {
        match &self.pool {
            None => (0..jobs).for_each(work),
            Some(pool) => pool.install(|| (0..jobs).into_par_iter().with_max_len(1).for_each(work)),
        }
    }
}
