//! A turn of the flywheel: from signed verdicts a candidate, compared with the model in service on verdicts that nothing was trained on.
//!
//! 1. [`dataset`]: verdicts become two files of cases, one to train on and one for the gate.
//! 2. [`turn`]: the user's turn file becomes a recipe, which the pipeline runs as any other. Its first stage measures the model in service, its last
//!    one leaves the candidate.
//! 3. [`gate`]: the two are compared item by item. The candidate is promoted only if the difference cannot be chance.
//!
//! A turn that is killed goes on. What it trains is a function of its records and of its recipe, so it can be replayed without a record that was forgotten.
//! This module writes only into the turn's folder; the data folder's ledger is the caller's.

pub mod dataset;
pub mod gate;
pub mod turn;
