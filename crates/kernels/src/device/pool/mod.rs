//! A fork-join thread pool for jobs of a few microseconds. Idle workers spin for a moment, then park (sleep).
//!
//! [`Pool::run`] takes a closure and a number of tasks. It calls the closure once with every task number, on the
//! calling thread and on the workers, and returns when all calls have returned. One such run is a *job*. A decode step
//! runs dozens of jobs.
//!
//! # Why not a general pool
//! Waking a sleeping thread takes longer than such a job. So workers spin while they wait for the next job, and park
//! only when none comes for a while. The remaining cost of a job is the transfer of cache lines between cores: on Zen
//! 4, 25 ns between cores that share a cache, and 160 ns between others. Three rules keep this cost low:
//!
//! * Every thread has a [`Seat`], with counters on a cache line of its own. The tasks are divided among the seats in
//!   advance, and a thread runs the tasks of its own seat first. Two threads write to the same line only when one has
//!   finished its own share and takes over tasks of another seat.
//! * A seat's share depends only on the number of tasks. So in repeated jobs a thread gets the same tasks, and finds
//!   the part of the weights that it read last time in its own cache.
//! * The caller waits only for workers that have joined the job. If the operating system has suspended a worker,
//!   because the machine has other work, nobody waits for it: the other threads run its share.
//!
//! It never changes a result which thread runs a task, because tasks write disjoint outputs.
//!
//! # A job, from start to end
//! An example: nine tasks on three threads, in job 7.
//!
//! ```text
//!                     seat 0 (caller)   seat 1 (worker)   seat 2 (worker)
//!     share           tasks 0 1 2       tasks 3 4 5       tasks 6 7 8
//!     taken           job 7, 2 tasks    job 7, 3 tasks    job 6, 3 tasks    tasks 0 1 3 4 5 have been taken
//!     presence        -                 15                12
//! ```
//!
//! `taken` counts the tasks of the seat's share that have been taken, and in which job. `presence` is the state of a
//! worker: 2·n + 1 while it works on job n, and 2·n after job n is over for it. In the example, seat 1 works on job 7
//! (15). Seat 2 has finished job 6 (12) and has not yet seen job 7.
//!
//! 1. The caller writes the closure and the number of tasks to [`Job::work`]. Then it raises [`Job::number`] to 7.
//! 2. A worker sees the new number and joins: one compare-and-exchange changes its presence from 12 to 15.
//! 3. All threads take tasks, by compare-and-exchange on `taken`: first from their own seat, then from the others.
//! 4. A worker that finds no more tasks leaves: it changes its presence from 15 to 14.
//! 5. When the caller finds no more tasks, it closes every seat. If the presence is 12, the caller changes it to 14, so
//!    that this worker can no longer join. If it is 15, the caller waits until it is 14.
//!
//! After step 5 no worker can use the closure, and [`Pool::run`] returns. Joining and closing change the same number by
//! compare-and-exchange, so exactly one of them succeeds.
//!
//! The tests at the end also run under loom, which tries every order of these steps (`bench/memory.sh`).

mod sync;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sync::{
    Arc, AtomicBool, AtomicU64, Builder, JoinHandle, Mutex, Ordering, Thread, UnsafeCell, park, spin_loop, yield_now,
};

/// Number of spins before a worker parks: some tens of microseconds, which is longer than the pauses within a training
/// step.
const SPINS_BEFORE_PARK: u32 = if cfg!(loom) { 0 } else { 4_000 };
/// [`Seat::taken`] holds the number of tasks in the bits below this one, and the number of the job in the bits above.
const TAKEN_BITS: u32 = 24;

type Task = *const (dyn Fn(usize) + Sync);

/// What all threads read and only the caller writes.
#[repr(align(128))]
struct Job {
    /// The number of the current job. Workers wait for it to change.
    number: AtomicU64,
    /// The closure and the number of tasks. The caller writes them before `number`; workers read them after they have
    /// joined.
    work: UnsafeCell<Option<(Task, usize)>>,
    /// Tells the workers to return.
    stop: AtomicBool,
}

/// What belongs to one thread. The first seat belongs to the calling thread, whichever thread that is.
#[repr(align(128))]
struct Seat {
    /// How many tasks of this seat's share have been taken, by any thread, and in which job.
    taken: AtomicU64,
    /// The worker's state: 2·n + 1 while it works on job n, and 2·n after job n is over for it. See the module's
    /// documentation.
    presence: AtomicU64,
    /// Whether the thread has parked, so that it must be woken for the next job.
    parked: AtomicBool,
}

struct Shared {
    job: Job,
    seats: Vec<Seat>,
    panicked: AtomicBool,
}

// SAFETY: only the caller writes `work`, while every worker's seat is closed for the previous job. Workers read it only
// between joining (acquire) and leaving (release).
unsafe impl Sync for Shared {}
// SAFETY: the raw closure pointer is followed only while the caller keeps the closure alive.
unsafe impl Send for Shared {}

/// The threads behind a CPU [`crate::Queue`].
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<(JoinHandle<()>, Thread)>,
    /// Held by the thread whose job is running, so that one job runs at a time.
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
        // SAFETY: the lifetime is erased only until this function returns. Before it returns, every worker has left the
        // job or can no longer join it.
        let erased: Task = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Task>(task) };
        // SAFETY: every seat is closed for the previous job, so no worker reads `work` now.
        shared.job.work.with_mut(|work| unsafe { *work = Some((erased, tasks)) });
        let number = shared.job.number.load(Ordering::Relaxed) + 1;
        shared.job.number.store(number, Ordering::Release);
        // A worker that is just parking may miss this job, because nothing orders the store above before these loads.
        // The other threads then do the job without it, and the next job finds the worker parked and wakes it.
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
    /// Runs the remaining tasks of the thread's own share, then those of the other shares.
    fn take_tasks(&self, own: usize, number: u64, task: &(dyn Fn(usize) + Sync), tasks: usize) {
        let seats = self.seats.len();
        for seat in (own..seats).chain(0..own) {
            let share = tasks * seat / seats..tasks * (seat + 1) / seats;
            while let Some(index) = self.seats[seat].take(number, &share) {
                task(index);
            }
        }
    }

    /// The main loop of a worker thread.
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
            // SAFETY: this worker has joined the job. It read the job's number with acquire order, after the caller had
            // written the job; and the caller waits until this worker has left.
            let work = self.job.work.with(|work| unsafe { *work });
            if let Some((task, tasks)) = work {
                // SAFETY: the caller keeps the closure alive until this worker has left.
                let task = unsafe { &*task };
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.take_tasks(own, seen, task, tasks))) {
                    self.panicked.store(true, Ordering::Relaxed);
                    // The panic's message has been printed. Dropping its payload might panic again.
                    std::mem::forget(panic);
                }
            }
            seat.leave(seen);
        }
    }

    /// Waits for a job with a number other than `seen`; returns its number.
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
    /// Takes the next task of this seat's share that no thread has taken.
    fn take(&self, number: u64, share: &Range<usize>) -> Option<usize> {
        let mut now = self.taken.load(Ordering::Relaxed);
        loop {
            // If the count belongs to an earlier job, no task of this job has been taken yet.
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

    /// Joins a job. Returns false if the caller has already closed this seat.
    fn join(&self, number: u64) -> bool {
        let before = self.presence.load(Ordering::Relaxed);
        before < 2 * number
            && self.presence.compare_exchange(before, 2 * number + 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Leaves a job that this worker has joined.
    fn leave(&self, number: u64) {
        self.presence.store(2 * number, Ordering::Release);
    }

    /// Ends a job for this worker. If it has joined, waits until it leaves; if it has not, prevents it from joining.
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
            // The worker only returns from its loop; its panics were caught.
            let _ = handle.join();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod exploration;
