//! What happened: runs, checkpoints, metrics, rollouts, labels, notices and lineage, in files that survive a kill.
//!
//! A run is a folder, `runs/<name>/`:
//!
//! | path                                | what it is                                              | who writes it       |
//! |-------------------------------------|---------------------------------------------------------|---------------------|
//! | `recipe.toml`                       | the resolved recipe, written once                       | [`Runs`]            |
//! | `lock`                              | an advisory lock, and the holder's process id           | [`lock`]            |
//! | `checkpoints/000007-grpo-000120/`   | named byte blobs and a manifest                         | [`checkpoint`]      |
//! | `ledger.sqlite`                     | stages, baselines, labels, answers, notices, lineage    | [`ledger`]          |
//! | `metrics.jsonl`                     | one JSON object a step                                  | [`metrics`]         |
//! | `rollouts/<stage>/step-000120.parquet` | every completion of a step with its verdicts         | [`rollouts`]        |
//! | `models/<stage>/`                   | exported models, whatever their format                  | the caller          |
//!
//! A [`data_folder`] holds what outlives runs.
//!
//! # The commit point
//!
//! A step counts only when the folder of a later checkpoint has been renamed to its final name. The manifest in that
//! folder holds *marks*: how long `metrics.jsonl` was and which ledger rows existed when the checkpoint was taken. When
//! a run is opened again, everything beyond the marks of the newest good checkpoint is dropped. So the next steps start
//! from exactly the state from which they started the first time.
//!
//! # What this crate never does
//!
//! It does not know models, tensors or algorithms: a checkpoint is a list of named bytes and a JSON value. It never
//! trains, samples, prints or exits. All SQL is in [`ledger`] and [`data_folder`].
//!
//! Read next: [`run`] (how a run is opened and what is dropped), then [`checkpoint`].
#![forbid(unsafe_code)]

pub mod changes;
pub mod checkpoint;
pub mod data_folder;
pub mod digest;
pub mod disk;
pub mod error;
mod layout;
pub mod ledger;
pub mod lock;
pub mod metrics;
pub mod names;
pub mod recipe;
mod rewind;
pub mod rollouts;
pub mod run;
pub mod runs;
pub mod view;
mod withdrawals;
mod writer;

pub use checkpoint::{Blob, Checkpoint, Committed, StageEnd};
pub use data_folder::DataFolder;
pub use digest::ModelDigest;
pub use error::StoreError;
pub use ledger::Ledger;
pub use ledger::rows::{
    BaselineRow, Label, LabelKind, Metered, Notice, Opening, RecordUse, StageRow, Verdict, VerdictOutcome,
};
pub use metrics::StepMetrics;
pub use rollouts::{Rollout, SoftLabels};
pub use run::{Export, Run};
pub use runs::{RunSummary, Runs};
pub use view::RunView;
