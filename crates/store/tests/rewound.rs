//! A run taken back to an earlier stage and run again.

#[allow(dead_code)]
mod scripted_run;

use std::path::Path;
use std::sync::Arc;

use scripted_run::{FailingDisk, Fate, RECIPE, open, outcome, run_all};
use store::disk::{Disk, RealDisk};
use store::{Runs, StageEnd, StoreError};

fn rewind(folder: &Path, disk: Arc<dyn Disk>, recipe: &str) -> Result<(), StoreError> {
    Runs::open_on(folder, disk).rewind("road", recipe, end(0, "warm"), |key| key.starts_with("stages[1]"))
}

fn end(index: u64, stage: &str) -> Option<StageEnd<'_>> {
    Some(StageEnd { index, stage })
}

fn completed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run_all(&open(folder.path()).unwrap()).unwrap();
    folder
}

#[test]
fn what_is_done_again_ends_in_the_same_bits_wherever_going_back_was_interrupted() {
    let whole = outcome(completed().path());
    let counting = FailingDisk::new(Fate::DeadFrom(u64::MAX));
    rewind(completed().path(), counting.clone(), RECIPE).unwrap();
    let (operations, _) = counting.counted();
    assert!(operations > 6, "{operations} operations are too few to try");
    for at in 0..=operations {
        let folder = completed();
        let first = rewind(folder.path(), FailingDisk::new(Fate::DeadFrom(at)), RECIPE);
        assert_eq!(first.is_ok(), at == operations, "operation {at}");
        rewind(folder.path(), Arc::new(RealDisk), RECIPE).unwrap();
        let run = open(folder.path()).unwrap();
        assert_eq!((run.resumed().unwrap().stage(), run.resumed().unwrap().step()), ("warm", 3));
        assert_eq!(run.ledger().stages().unwrap().len(), 1, "rows of the stage to come are dropped");
        assert_eq!(run.ledger().notices().unwrap().len(), 1, "and what it told");
        run_all(&run).unwrap();
        drop(run);
        assert_eq!(outcome(folder.path()), whole, "interrupted at operation {at} of {operations}");
    }
}

#[test]
fn only_stages_to_come_may_change_and_only_a_finished_stage_is_gone_back_to() {
    let folder = completed();
    let changed = RECIPE.replace("\"rl\"", "\"rl\"\nsteps = 9");
    rewind(folder.path(), Arc::new(RealDisk), &changed).unwrap();
    let runs = Runs::open(folder.path());
    drop(runs.create_or_resume("road", &changed).unwrap());
    let error = rewind(folder.path(), Arc::new(RealDisk), &changed.replace("seed = 7", "seed = 8")).unwrap_err();
    assert!(matches!(&error, StoreError::RecipeChanged { changes, .. } if changes[0].key == "seed"), "{error}");
    let error = runs.rewind("road", &changed, end(1, "rl"), |_| false).unwrap_err();
    assert!(matches!(&error, StoreError::StageEndGone { stage, .. } if stage == "rl"), "{error}");
    let error = runs.rewind("other", &changed, end(0, "warm"), |_| false).unwrap_err();
    assert!(matches!(&error, StoreError::NoSuchRun { .. }), "{error}");
    runs.rewind("road", &changed, None, |_| false).unwrap();
    assert!(runs.create_or_resume("road", &changed).unwrap().resumed().is_none());
}
