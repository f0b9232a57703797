//! A recipe: one TOML file that describes the whole pipeline.
//!
//! It names a task, models and an ordered list of stages. The keys of a stage are the fields of its struct in
//! [`crate::stages`]. Unknown keys are refused with a suggestion. Defaults are in the structs and nowhere else. The
//! resolved recipe, with every default written out, is stored with every run.
//!
//! Read next: `recipes/judgment.toml` in the repository, then [`crate::pipeline`], which runs it.

pub(crate) mod foreign_names;
pub mod keys;
pub mod model_source;
pub mod optimisation;
pub mod outline;
mod overrides;
mod read;
pub mod resolved;
pub mod settings;
pub mod source;
mod starter;
mod validate;

pub use model_source::ModelSource;
pub use optimisation::Optimisation;
pub use outline::{Made, Outline, Roles};
pub use resolved::{Recipe, RecipeStage};
pub use settings::{EvalSettings, Settings};
pub use source::Source;
pub use starter::starter;
