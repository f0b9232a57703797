//! The user's own data: what a file holds, and a recipe that fits it.
//!
//! [`inspect`] reads JSON lines, JSON, CSV, Excel or Parquet in UTF-8, UTF-16 or GB18030, recognises the usual layouts, counts what can
//! spoil training (empty prompts, duplicates, contradictions, a label that outweighs all others), and gives cases in the
//! layout of [`crate::jsonl`] with a commented recipe. It never changes the file, never guesses an answer, and trains nothing.
//!
//! Plain documents, to be pretrained on, are read by [`texts`], and searched for held-out cases by [`held_out`]. What people prefer is read by
//! [`preferences`].
//!
//! Read next: [`inspection`], [`table`] (reading), [`layout`] (which columns mean what), [`findings`] (what is counted).

pub mod findings;
pub mod held_out;
pub mod inspection;
pub mod layout;
pub mod preferences;
pub mod row;
pub mod table;
pub mod texts;

mod csv;
mod encoding;
mod excel;
mod json;
mod parquet;

pub use inspection::{Inspection, inspect};
