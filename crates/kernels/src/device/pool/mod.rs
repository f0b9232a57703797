//! A fork-join pool for jobs of a few microseconds: workers spin for a moment, then park.
//!
//! [`Pool::run`] is given a closure and a number of tasks. It calls the closure once for every task number, on the calling
//! thread and on the workers, and returns when all calls have. A decode step makes dozens of such jobs.
//!
//! # Why not a general pool
//! Waking a thread takes longer than such a job. So workers wait in a loop for the next job, and only park when none comes.
//! What a job then costs is moving cache lines between cores: on Zen 4, 25 ns between cores that share a cache, 160 ns
//! between others. Three rules follow:
//!
//! * Every thread has a [`Seat`], with counters on a cache line of its own. Tasks are divided among the seats beforehand,
//!   and a thread takes those of its own seat first. Two threads write the same line only where one has run out of tasks and
//!   takes over what another has not begun.
//! * A seat's share is the same in every job of as many tasks. So a thread finds the part of the weights that it read last
//!   time in its own cache.
//! * The caller waits only for workers that have joined the job. A worker that the system has put aside, on a machine with other
//!   work, holds nobody up: the others do its share.
//!
//! Which thread runs a task never changes a result, since tasks write disjoint outputs.
//!
//! # A job, from start to end
//! Nine tasks on three threads, in job 7:
//!
//! ```text
//!                     seat 0 (caller)   seat 1 (worker)   seat 2 (worker)
//!     share           tasks 0 1 2       tasks 3 4 5       tasks 6 7 8
//!     taken           job 7, 2 tasks    job 7, 3 tasks    job 6, 3 tasks    tasks 0 1 3 4 5 have been taken
//!     presence        -                 15                12
//! ```
//!
//! `presence` says how a worker stands to the jobs: 2·n when job n is over for it, 2·n + 1 while it works on job n. Above,
//! seat 1 works on job 7 (15), and seat 2 has finished job 6 (12) and not yet seen job 7.
//!
//! 1. The caller writes closure and number of tasks to [`Job::work`], and then raises [`Job::number`] to 7.
//! 2. A worker sees the new number and joins: it changes its presence from 12 to 15, in one compare-and-exchange.
//! 3. Everyone takes tasks, by compare-and-exchange on `taken`: first of the own seat, then of the others.
//! 4. A worker that finds no more tasks leaves: it changes its presence from 15 to 14.
//! 5. The caller, when it finds no more, closes every seat: a presence of 12 becomes 14, so that this worker can no longer
//!    join; for one of 15 it waits until it is 14.
//!
//! After step 5 no worker can touch the closure, and [`Pool::run`] returns. Joining and closing change the same number,
//! so that exactly one of them succeeds.
//!
//! The tests at the end also run under loom, which tries every order of these steps (`bench/memory.sh`).

mod sync;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sync::{
    Arc, AtomicBool, AtomicU64, Builder, JoinHandle, Mutex, Ordering, Thread, UnsafeCell, park, spin_loop, yield_now,
};

/// Turns of the loop before a worker parks: some tens of microseconds, longer than the pauses within a step.
const SPINS_BEFORE_PARK: u32 = if cfg!(loom) { 0 } else { 4_000 };
/// In [`Seat::taken`] the number of tasks lies below this bit, the number of the job above.
const TAKEN_BITS: u32 = 24;

type Task = *const (dyn Fn(usize) + Sync);

/// What all threads read, and only the caller writes.
#[repr(align(128))]
struct Job {
    /// The number of the current job. Workers wait for it to change.
    number: AtomicU64,
    /// The closure and the number of tasks: written before `number`, read after joining.
    work: UnsafeCell<Option<(Task, usize)>>,
    /// Workers that see it return.
    stop: AtomicBool,
}

/// What belongs to one thread. The first seat is the caller's, whichever thread that is.
#[repr(align(128))]
struct Seat {
    /// How many tasks of this seat's share have been taken, by any thread, and in which job.
    taken: AtomicU64,
    /// 2·n when job n is over for this thread, 2·n + 1 while it works on job n; see the module.
    presence: AtomicU64,
    /// Whether the thread has stopped looking for jobs and must be woken.
    parked: AtomicBool,
}

struct Shared {
    job: Job,
    seats: Vec<Seat>,
    panicked: AtomicBool,
}

// SAFETY: `work` is written only by the caller, while every worker's seat is closed for the job before; and read by
// workers only between joining (acquire) and leaving (release).
unsafe impl Sync for Shared {}
// SAFETY: the raw closure pointer is only followed while the caller keeps the closure alive.
unsafe impl Send for Shared {}

/// The threads behind a CPU [`crate::Queue`].
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// Held by the thread whose job runs: one job at a time.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads: the caller's, and `threads - 1` workers.
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
                let handle = Builder::new()
                    .name(format!("kernels-{seat}"))
                    .spawn(move || shared.work(seat))
                    .expect("the system refuses another thread");
                let thread = handle.thread().clone();
                (handle, thread)
            })
            .collect();
        Pool { shared, workers, turn: Mutex::new(()) }
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
        let _turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = &*self.shared;
        // SAFETY: the lifetime is erased only until this function returns. Before it does, every worker has left the job
        // or can no longer join it.
        let erased: Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: every seat is closed for the job before, so that no worker reads it now.
        shared.job.work.with_mut(|work| unsafe { *work = Some((erased, tasks)) });
        let number = shared.job.number.load(Ordering::Relaxed) + 1;
        shared.job.number.store(number, Ordering::Release);
        // A worker that parks at this very moment may miss the job, since nothing orders the store above before these loads.
        // The job is then done without it, and the next job finds it parked.
        for (seat, (_, thread)) in shared.seats[1..].iter().zip(&self.workers) {
            if seat.parked.load(Ordering::Relaxed) {
                thread.unpark();
            }
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| shared.take_tasks(0, number, task, tasks)));
        shared.seats[1..].iter().for_each(|seat| seat.close(number));
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

    /// What a worker does as long as it lives.
    fn work(&self, own: usize) {
        let seat = &self.seats[own];
        let mut seen = 0;
        loop {
            seen = self.next_job(seat, seen);
            if self.job.stop.load(Ordering::Acquire) {
                return;
            }
            if !seat.join(seen) {
                continue;
            }
            // SAFETY: this worker has joined the job. It has read the job's number with acquire order, after the job had
            // been written; and the caller waits until it has left.
            let work = self.job.work.with(|work| unsafe { *work });
            if let Some((task, tasks)) = work {
                // SAFETY: the caller keeps the closure alive until this worker has left.
                let task = unsafe { &*task };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(own, seen, task, tasks))) {
                    self.panicked.store(true, Ordering::Relaxed);
                    // Its message has been printed. Dropping what it carries might panic again.
                    std::mem::forget(panic);
                }
            }
            seat.leave(seen);
        }
    }

    /// Waits for a job other than `seen`; returns its number.
    fn next_job(&self, seat: &Seat, seen: u64) -> u64 {
        let mut spins = 0u32;
        loop {
            let number = self.job.number.load(Ordering::Acquire);
            if number != seen {
                return number;
            }
            spins = spins.saturating_add(1);
            if spins < SPINS_BEFORE_PARK {
                spin_loop();
                continue;
            }
            seat.parked.store(true, Ordering::SeqCst);
            if self.job.number.load(Ordering::SeqCst) == seen {
                park();
            }
            seat.parked.store(false, Ordering::SeqCst);
        }
    }
}

impl Seat {
    /// The next task of this seat's share that nobody has taken.
    fn take(&self, number: u64, share: &Range<usize>) -> Option<usize> {
        let mut now = self.taken.load(Ordering::Relaxed);
        loop {
            // A count that is left from an earlier job means that none is taken of this one.
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

    /// Joins a job, unless its caller has closed this seat.
    fn join(&self, number: u64) -> bool {
        let before = self.presence.load(Ordering::Relaxed);
        before < 2 * number
            && self.presence.compare_exchange(before, 2 * number + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Leaves a job that was joined.
    fn leave(&self, number: u64) {
        self.presence.store(2 * number, Ordering::Release);
    }

    /// Ends a job for this thread: waits until it has left, or, if it has not joined, keeps it from joining.
    fn close(&self, number: u64) {
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
                yield_now()
            } else {
                spin_loop()
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

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod exploration;
