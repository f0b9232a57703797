//! A turn of the flywheel: trains a candidate on signed verdicts and compares it with the model in service, on verdicts
//! that nothing was trained on.
//!
//! 1. [`dataset`]: turns verdicts into two files of cases, one to train on and one for the gate.
//! 2. [`turn`]: turns the user's turn file into a recipe, which the pipeline runs like any other. The first stage
//!    measures the model in service; the last one produces the candidate.
//! 3. [`gate`]: compares the two item by item. The candidate is promoted only if the difference cannot be chance.
//!
//! A killed turn resumes. What it trains is a function of its records and its recipe, so it can be replayed without a
//! record that was forgotten. This module writes only into the turn's folder. The caller writes the ledger of the data
//! folder.

pub mod dataset;
pub mod gate;
pub mod turn;
