//! A persistent fork-join pool: workers spin for a moment, then park.
//!
//! A decode step makes dozens of forks of a few microseconds each, which a general task pool would spend on waking
//! threads. Here a fork is one store and, while the workers still spin, no system call. Tasks are taken from a shared
//! counter; which thread runs a task never changes a result, since tasks write disjoint outputs.
//!
//! A worker joins a job if it comes in time, and the submitter waits only for those that joined: a worker that the system
//! has put aside, on a machine with other work, holds nobody up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

/// Turns of the spin loop before a worker parks: some tens of microseconds, longer than the gaps inside a step.
const SPINS_BEFORE_PARK: u32 = 4_000;

type Task = *const (dyn Fn(usize) + Sync);

/// One worker that has joined the current job; their number is in the bits below [`OPEN`].
const JOINED: usize = 1;
/// Whether the current job can still be joined.
const OPEN: usize = 1 << 16;
/// The number of the current job is in the bits from here on.
const EPOCH: usize = 1 << 17;

struct Shared {
    /// Epoch, openness and number of joined workers in one word, so that joining is one compare-and-swap; a change of
    /// the epoch wakes the workers.
    gate: AtomicUsize,
    /// The current job's closure and task count; written before `gate` opens, read after joining.
    job: std::cell::UnsafeCell<Option<(Task, usize)>>,
    next: AtomicUsize,
    parked: Vec<AtomicBool>,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written only by the submitting thread while the gate is closed and nobody is joined, and read by
// workers only between their joining (acquire) and their leaving (release).
unsafe impl Sync for Shared {}
// SAFETY: the raw closure pointer is only followed while the submitting call keeps the closure alive.
unsafe impl Send for Shared {}

/// The threads behind a CPU [`crate::Queue`].
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    submit: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads: the submitting one and `threads - 1` workers.
    pub(crate) fn new(threads: usize) -> Pool {
        let workers = threads - 1;
        let shared = Arc::new(Shared {
            gate: AtomicUsize::new(0),
            job: std::cell::UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            parked: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let workers = (0..workers)
            .map(|index| {
                let shared = shared.clone();
                let handle = std::thread::Builder::new()
                    .name(format!("kernels-{index}"))
                    .spawn(move || work(&shared, index))
                    .expect("the system refuses another thread");
                let thread = handle.thread().clone();
                (handle, thread)
            })
            .collect();
        Pool { shared, workers, submit: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `task` for every index below `tasks`; see [`crate::Queue::parallel`].
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        let _turn = self.submit.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        // SAFETY: the lifetime is erased only until this function returns: before it does, the gate is closed and every
        // worker that had joined has left.
        let erased: Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: the gate is closed and nobody is joined, so that no worker reads the job now.
        unsafe { *shared.job.get() = Some((erased, tasks)) };
        shared.next.store(0, Ordering::Relaxed);
        shared.gate.fetch_add(EPOCH + OPEN, Ordering::SeqCst);
        for (index, (_, thread)) in self.workers.iter().enumerate() {
            if shared.parked[index].load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| take_tasks(shared, task, tasks)));
        let mut spins = 0u32;
        shared.gate.fetch_sub(OPEN, Ordering::Relaxed);
        while shared.gate.load(Ordering::Acquire) & (OPEN - 1) != 0 {
            spins += 1;
            if spins > SPINS_BEFORE_PARK { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let worker_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        assert!(!worker_panicked, "a task panicked on a worker thread; its message is above");
    }
}

fn take_tasks(shared: &Shared, task: &(dyn Fn(usize) + Sync), tasks: usize) {
    loop {
        let index = shared.next.fetch_add(1, Ordering::Relaxed);
        if index >= tasks {
            return;
        }
        task(index);
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0u32;
        while shared.gate.load(Ordering::Acquire) / EPOCH == seen {
            spins += 1;
            if spins < SPINS_BEFORE_PARK {
                std::hint::spin_loop();
                continue;
            }
            // The flag is raised before the epoch is read again, and the submitter reads the flag after it has
            // raised the epoch: one of the two sees the other, so no wake-up is lost.
            shared.parked[index].store(true, Ordering::SeqCst);
            if shared.gate.load(Ordering::SeqCst) / EPOCH == seen {
                std::thread::park();
            }
            shared.parked[index].store(false, Ordering::SeqCst);
        }
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        let joined;
        (seen, joined) = join(shared);
        if !joined {
            continue;
        }
        // SAFETY: this worker has joined with acquire order after the job had been written, and the submitter waits for it.
        let job = unsafe { *shared.job.get() };
        if let Some((task, tasks)) = job {
            // SAFETY: the submitter keeps the closure alive until this worker has left.
            let task = unsafe { &*task };
            if catch_unwind(AssertUnwindSafe(|| take_tasks(shared, task, tasks))).is_err() {
                shared.panicked.store(true, Ordering::Relaxed);
            }
        }
        shared.gate.fetch_sub(JOINED, Ordering::Release);
    }
}

/// Joins the current job unless it is over; returns its epoch, and whether it was joined.
fn join(shared: &Shared) -> (usize, bool) {
    let mut gate = shared.gate.load(Ordering::Relaxed);
    while gate & OPEN != 0 {
        match shared.gate.compare_exchange_weak(gate, gate + JOINED, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => return (gate / EPOCH, true),
            Err(now) => gate = now,
        }
    }
    (gate / EPOCH, false)
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.gate.fetch_add(EPOCH, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker only returns; its panics were caught.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_threads() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn a_panicking_task_panics_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.run(8, &|i| assert!(i != 5, "five"))));
        assert!(outcome.is_err());
        let sum = AtomicUsize::new(0);
        pool.run(8, &|i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 28);
    }

    #[test]
    fn many_short_jobs_leave_nothing_behind() {
        // Workers come late to most of these: each job must still be whole, and none may run another's closure.
        let pool = Pool::new(4);
        for job in 0..20_000 {
            let sum = AtomicUsize::new(0);
            pool.run(3, &|i| {
                sum.fetch_add(job * (i + 1), Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 6 * job);
        }
    }

    #[test]
    fn parked_workers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            let sum = AtomicUsize::new(0);
            pool.run(2, &|i| {
                sum.fetch_add(i + 1, Ordering::Relaxed);
                // Neither task ends before the other has begun, so that the worker is needed.
                let begin = std::time::Instant::now();
                while sum.load(Ordering::Relaxed) != 3 {
                    assert!(begin.elapsed().as_secs() < 60, "the worker sleeps");
                    std::thread::yield_now();
                }
            });
            assert_eq!(sum.into_inner(), 3);
        }
    }
}
