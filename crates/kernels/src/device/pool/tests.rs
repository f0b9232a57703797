//! The pool on real threads.

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
    // Workers come late to most of these jobs. Each job must still be complete, and no worker may run another job's
    // closure.
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
        // The first task ends last, so the other thread must run the rest of both shares.
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
            // Each task waits for the other to begin, so the worker is needed.
            let begin = std::time::Instant::now();
            while sum.load(Ordering::Relaxed) != 3 {
                assert!(begin.elapsed().as_secs() < 60, "the worker sleeps");
                std::thread::yield_now();
            }
        });
        assert_eq!(sum.into_inner(), 3);
    }
}
