//! A teacher annotates a batch with signals: its whole distribution at every token, its most likely tokens, its hidden states.
//!
//! * [`local`]: a second model in this process, run a micro-batch before the student's head. GRPO's reference model is one too.
//! * [`artefact`]: what such a model said of a data set once, kept on disk, so that learning from it needs no weights.
//!
//! A teacher never learns, never samples, and knows no loss.
//!
//! Read next: [`local`], then [`crate::stages::distill`], which reads both.

pub mod artefact;
pub mod local;

pub use local::LocalTeacher;
