//! A persistent fork-join pool: workers spin for a moment, then park.
//!
//! A decode step makes dozens of forks of a few microseconds each, which a general task pool would spend on waking
//! threads. What a fork costs here is the passing of cache lines between processors, on Zen 4 25 ns where they share a
//! cache and 160 ns where they do not: so each thread has its own share of the tasks, counted on a line of its own, and no line
//! has two writers but where a thread takes over what another has not begun. A thread's share is the same in every job
//! of as many tasks, so that it finds its part of the weights in its own cache. Which thread runs a task never changes a
//! result, since tasks write disjoint outputs.
//!
//! A worker joins a job if it comes in time, and the submitter waits only for those that joined: a worker that the system
//! has put aside, on a machine with other work, holds nobody up.

use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, Thread};

/// Turns of the spin loop before a worker parks: some tens of microseconds, longer than the gaps inside a step.
const SPINS_BEFORE_PARK: u32 = 4_000;
/// In [`Seat::taken`], the number of tasks lies below this bit and the number of the job above.
const TAKEN_BITS: u32 = 24;

type Task = *const (dyn Fn(usize) + Sync);

/// What all threads read, and only the submitter writes.
#[repr(align(128))]
struct Job {
    /// The number of the current job; a change of it wakes the workers.
    number: AtomicU64,
    /// Its closure and task count: written before `number`, read after joining.
    work: UnsafeCell<Option<(Task, usize)>>,
    stop: AtomicBool,
}

/// What belongs to one thread; the submitter, whoever it is, has the first.
#[repr(align(128))]
struct Seat {
    /// How many tasks of this seat's share are taken, by whomever, and in which job.
    taken: AtomicU64,
    /// Twice the number of the last job that is over for this thread or was joined by it, plus one while it is at work.
    presence: AtomicU64,
    parked: AtomicBool,
}

struct Shared {
    job: Job,
    seats: Vec<Seat>,
    panicked: AtomicBool,
}

// SAFETY: `work` is written only by the submitting thread while every other seat has done with the job before, and read
// by workers only between their joining (acquire) and their leaving (release).
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
        let seat = || Seat { taken: AtomicU64::new(0), presence: AtomicU64::new(0), parked: AtomicBool::new(false) };
        let shared = Arc::new(Shared {
            job: Job { number: AtomicU64::new(0), work: UnsafeCell::new(None), stop: AtomicBool::new(false) },
            seats: (0..threads).map(|_| seat()).collect(),
            panicked: AtomicBool::new(false),
        });
        let workers = (1..threads)
            .map(|seat| {
                let shared = shared.clone();
                let handle = std::thread::Builder::new()
                    .name(format!("kernels-{seat}"))
                    .spawn(move || shared.work(seat))
                    .expect("the system refuses another thread");
                let thread = handle.thread().clone();
                (handle, thread)
            })
            .collect();
        Pool { shared, workers, submit: Mutex::new(()) }
    }

    pub(crate) fn threads(&self) -> usize {
        self.shared.seats.len()
    }

    /// Runs `task` for every index below `tasks`; see [`crate::Queue::parallel`].
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(task);
            return;
        }
        assert!(tasks >> TAKEN_BITS == 0, "{tasks} tasks of one job");
        let _turn = self.submit.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        // SAFETY: the lifetime is erased only until this function returns: before it does, every worker has left the job
        // or can no longer join it.
        let erased: Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: the job before is over for every worker, so that none reads it now.
        unsafe { *shared.job.work.get() = Some((erased, tasks)) };
        let number = shared.job.number.load(Ordering::Relaxed) + 1;
        shared.job.number.store(number, Ordering::Release);
        // Nothing orders this store before the loads: a worker that parks in this very moment may miss the job, which
        // is then done without it. The next job finds it parked.
        for (seat, (_, thread)) in shared.seats[1..].iter().zip(&self.workers) {
            if seat.parked.load(Ordering::Relaxed) {
                thread.unpark();
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(0, number, task, tasks)));
        shared.seats[1..].iter().for_each(|seat| seat.wait_or_close(number));
        let worker_panicked = shared.panicked.load(Ordering::Relaxed);
        if let Err(panic) = outcome {
            shared.panicked.store(false, Ordering::Relaxed);
            std::panic::resume_unwind(panic);
        }
        if worker_panicked {
            shared.panicked.store(false, Ordering::Relaxed);
            panic!("a task panicked on a worker thread; its message is above");
        }
    }
}

impl Shared {
    /// Runs what is left of the thread's own share, then of the others'.
    fn take_tasks(&self, own: usize, number: u64, task: &(dyn Fn(usize) + Sync), tasks: usize) {
        let seats = self.seats.len();
        for seat in (own..seats).chain(0..own) {
            let share = tasks * seat / seats..tasks * (seat + 1) / seats;
            while let Some(index) = self.seats[seat].take(number, &share) {
                task(index);
            }
        }
    }

    /// What a worker does all its life.
    fn work(&self, own: usize) {
        let seat = &self.seats[own];
        let mut seen = 0;
        loop {
            let mut spins = 0u32;
            let mut number = self.job.number.load(Ordering::Acquire);
            while number == seen {
                spins = spins.saturating_add(1);
                if spins < SPINS_BEFORE_PARK {
                    std::hint::spin_loop();
                } else {
                    seat.parked.store(true, Ordering::SeqCst);
                    if self.job.number.load(Ordering::SeqCst) == seen {
                        std::thread::park();
                    }
                    seat.parked.store(false, Ordering::SeqCst);
                }
                number = self.job.number.load(Ordering::Acquire);
            }
            if self.job.stop.load(Ordering::Acquire) {
                return;
            }
            seen = number;
            if !seat.join(number) {
                continue;
            }
            // SAFETY: this worker has joined the job, whose number it has read with acquire order after the job had been
            // written, and the submitter waits for it.
            let work = unsafe { *self.job.work.get() };
            if let Some((task, tasks)) = work {
                // SAFETY: the submitter keeps the closure alive until this worker has left.
                let task = unsafe { &*task };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(own, number, task, tasks))) {
                    self.panicked.store(true, Ordering::Relaxed);
                    // Its message has been printed; dropping what it carries might panic again.
                    std::mem::forget(panic);
                }
            }
            seat.presence.store(2 * number, Ordering::Release);
        }
    }
}

impl Seat {
    /// The next task of this seat's share that nobody has taken.
    fn take(&self, number: u64, share: &Range<usize>) -> Option<usize> {
        let mut now = self.taken.load(Ordering::Relaxed);
        loop {
            // The count of an earlier job counts for nothing.
            let fresh = now >> TAKEN_BITS == number << TAKEN_BITS >> TAKEN_BITS;
            let index = share.start + if fresh { now as usize & ((1 << TAKEN_BITS) - 1) } else { 0 };
            if index == share.end {
                return None;
            }
            let next = number << TAKEN_BITS | (index + 1 - share.start) as u64;
            match self.taken.compare_exchange_weak(now, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(index),
                Err(other) => now = other,
            }
        }
    }

    /// Joins a job unless it is over for this thread.
    fn join(&self, number: u64) -> bool {
        let before = self.presence.load(Ordering::Relaxed);
        before < 2 * number
            && self.presence.compare_exchange(before, 2 * number + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits for the thread if it has joined, and sees to it that it no longer can otherwise.
    fn wait_or_close(&self, number: u64) {
        let mut spins = 0u32;
        let mut presence = self.presence.load(Ordering::Acquire);
        while presence != 2 * number {
            if presence < 2 * number {
                match self.presence.compare_exchange(presence, 2 * number, Ordering::Relaxed, Ordering::Acquire) {
                    Ok(_) => return,
                    Err(joined) => presence = joined,
                }
                continue;
            }
            spins = spins.saturating_add(1);
            if spins > SPINS_BEFORE_PARK {
                std::thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
            presence = self.presence.load(Ordering::Acquire);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.job.stop.store(true, Ordering::Release);
        self.shared.job.number.fetch_add(1, Ordering::SeqCst);
        for (handle, thread) in self.workers.drain(..) {
            thread.unpark();
            // A worker only returns; its panics were caught.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

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
    fn what_one_thread_has_not_begun_others_take_over() {
        let (pool, done) = (Pool::new(2), AtomicUsize::new(0));
        pool.run(8, &|i| {
            let begin = std::time::Instant::now();
            // The first task ends last: the other thread has the rest of both shares to do.
            while i == 0 && done.load(Ordering::Relaxed) != 7 {
                assert!(begin.elapsed().as_secs() < 60, "tasks lie about");
                std::thread::yield_now();
            }
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 8);
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
