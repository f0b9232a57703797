//! The recipes: one file a stage, with its keys, its algorithm, and how it departs from the paper.
//!
//! A recipe makes sequences and signals and hands them to the one trainer ([`crate::step`]) through the one loop
//! ([`crate::trainer`]). It knows no optimiser.

pub mod dialogue;
pub mod distill;
pub mod eval;
pub mod grpo;
pub mod pretrain;
pub mod sample;
pub mod sft;
mod texts;
pub mod tokenizer;
