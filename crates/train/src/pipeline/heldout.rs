//! The held-out cases behind every row of the ladder.

use tasks::{Case, Split, Task};

use crate::error::TrainError;
use crate::evaluate::{Ungraded, gradable};
use crate::recipe::settings::Settings;

/// The held-out cases behind every row of the ladder.
pub(super) struct Heldout {
    pub cases: Vec<Case>,
    pub unseen: Vec<Case>,
}

impl Heldout {
    /// The cases, and which are left out since they cannot be graded.
    pub fn of(settings: &Settings, task: &dyn Task) -> Result<(Heldout, Vec<Ungraded>), TrainError> {
        let (cases, ungraded) = gradable(task, task.cases(Split::Heldout, settings.eval.cases, settings.seed)?);
        let unseen = match settings.eval.unseen_cases {
            0 => Vec::new(),
            n => task.cases(Split::HeldoutUnseen, n, settings.seed)?,
        };
        let (unseen, ungraded_unseen) = gradable(task, unseen);
        Ok((Heldout { cases, unseen }, [ungraded, ungraded_unseen].into_iter().flatten().collect()))
    }
}
