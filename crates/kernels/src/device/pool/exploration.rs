//! Tests the pool under loom, which tries every order of loads, stores and thread switches, up to a number of forced
//! switches.
//!
//! Every task writes to a cell of its own that loom watches. Loom reports a race if two tasks have the same number, if
//! a task runs after the caller has returned, or if the caller cannot see a task's write.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p kernels --lib exploration` (`bench/memory.sh` does so).

use loom::cell::UnsafeCell;

use super::*;

/// Cells that tasks write without a lock.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: loom checks that accesses do not overlap; that is the test.
unsafe impl Sync for Cells {}

/// Runs jobs with the given numbers of tasks, one after the other, on a pool of `threads` threads, in every order.
fn explore(threads: usize, jobs: &'static [usize], forced_switches: usize) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(forced_switches);
    model.check(move || {
        let pool = Pool::new(threads);
        for (job, &tasks) in jobs.iter().enumerate() {
            let cells = Cells((0..tasks).map(|_| UnsafeCell::new(0)).collect());
            let all = &cells;
            // SAFETY: as above.
            pool.run(tasks, &|i| all.0[i].with_mut(|cell| unsafe { *cell += job + i + 1 }));
            for (i, cell) in cells.0.iter().enumerate() {
                // SAFETY: as above.
                assert_eq!(cell.with(|cell| unsafe { *cell }), job + i + 1, "task {i} of job {job}");
            }
        }
    });
}

#[test]
fn one_job_of_two_threads() {
    explore(2, &[3], 4);
}

#[test]
fn jobs_of_two_threads_follow_one_another() {
    explore(2, &[2, 3, 2], 2);
}

#[test]
fn jobs_of_three_threads_follow_one_another() {
    explore(3, &[3, 3], 1);
}
