//! Takes a run back to the end of an earlier stage, so that the later stages can run again.
//!
//! Checkpoints that end a stage are kept. So going back only removes the newer checkpoints, newest first. After each
//! removal the run is whole, at an earlier commit point. Opening the run then drops what lies beyond that point, as it
//! does after a kill. Exported models stay until their stage exports again.
//!
//! Read next: `run/resume.rs`, which drops what lies beyond the commit point.

use std::fs;

use crate::changes::differences;
use crate::checkpoint::{self, StageEnd};
use crate::disk::write_whole;
use crate::error::StoreError;
use crate::layout::{CHECKPOINTS, LEDGER, RECIPE};
use crate::ledger::Ledger;
use crate::lock::FolderLock;
use crate::run::resume;
use crate::runs::Runs;
use crate::{names, recipe};

impl Runs {
    /// Takes a run back to the end of a stage, or to its beginning if `end` is none.
    ///
    /// `resolved_recipe` replaces the stored recipe. It may differ from it in the keys that `free` accepts.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`]; [`StoreError::RecipeChanged`] for other keys; [`StoreError::StageEndGone`] if the
    /// stage before was not finished or its end was not kept; [`StoreError::Damaged`] if that checkpoint is damaged;
    /// [`StoreError::Locked`] and failures of the file system. After an error the run is unchanged or at an earlier
    /// commit point on the way back.
    pub fn rewind(
        &self,
        name: &str,
        resolved_recipe: &str,
        end: Option<StageEnd>,
        free: impl Fn(&str) -> bool,
    ) -> Result<(), StoreError> {
        names::check("run", name)?;
        let folder = self.folder().join(name);
        let path = folder.join(RECIPE);
        if !path.is_file() {
            return Err(StoreError::NoSuchRun { path: folder, known: self.names()? });
        }
        let _lock = FolderLock::take(&folder, name)?;
        let stored = fs::read_to_string(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let mut changes = differences(&recipe::parse(&stored, &path)?, &recipe::parse(resolved_recipe, &path)?);
        changes.retain(|change| !free(&change.key));
        if !changes.is_empty() {
            return Err(StoreError::RecipeChanged { name: name.to_owned(), path, changes });
        }

        let checkpoints = folder.join(CHECKPOINTS);
        let found = checkpoint::list(&checkpoints)?;
        let newer = match end {
            None => found.len(),
            Some(end) => found
                .iter()
                .position(|(_, path)| end.is_at(path))
                .ok_or_else(|| StoreError::StageEndGone { name: name.to_owned(), stage: end.stage.to_owned() })?,
        };
        let ledger = Ledger::open(&folder.join(LEDGER))?;
        ledger.check_structure()?;
        if let Some((_, path)) = found.get(newer) {
            resume::usable(&folder, path, &ledger).map_err(|reason| StoreError::Damaged {
                path: path.clone(),
                reason,
                hint: "go back to an earlier stage, or begin a run under another name with --name",
            })?;
        }
        for (_, path) in &found[..newer] {
            checkpoint::remove_whole(&**self.disk(), path)?;
        }
        if end.is_none() {
            ledger.forget_inputs()?;
        }
        write_whole(&**self.disk(), &path, resolved_recipe.as_bytes())
    }
}
