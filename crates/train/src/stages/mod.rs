//! The stages: one file for each kind, with its keys, its checks, its estimate, its algorithm, and how it departs from the paper.
//!
//! A stage makes sequences and signals and hands them to the trainer ([`crate::trainer`]), which takes the steps
//! ([`crate::step`]). A stage knows no optimiser. To add a kind, write its file and add one line to [`registry`].

pub mod distill;
pub mod dpo;
pub mod eval;
pub mod grpo;
pub mod kto;
pub mod on_policy_distill;
mod preferences;
pub mod pretrain;
pub mod registry;
pub mod sample;
pub mod sft;
mod texts;
pub mod tokenizer;
mod validation;
