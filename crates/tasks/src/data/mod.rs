//! The user's own data: inspects a file and writes a recipe that fits it.
//!
//! [`inspect`] reads JSON lines, JSON, CSV, Excel or Parquet in UTF-8, UTF-16 or GB18030. It recognises the usual
//! layouts, counts what can harm training (empty prompts, duplicates, contradictions, a label that outweighs all
//! others), and gives the cases in the layout of [`crate::jsonl`] with a commented recipe. It never changes the file,
//! never guesses an answer, and trains nothing.
//!
//! [`texts`] reads plain documents for pretraining, and [`held_out`] finds held-out cases in them. [`preferences`]
//! reads people's preferences.
//!
//! Read next: [`inspection`], [`table`] (reading), [`layout`] (the meaning of columns), [`findings`] (statistics).

pub mod container;
pub mod file;
pub mod findings;
pub mod held_out;
pub mod inspection;
pub mod layout;
pub mod limits;
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
