//! Judgment: from the facts of a Chinese criminal case to charge (罪名), article (法条) and penalty (刑罚).
//!
//! The prompt is `案情：{facts}\n裁判：`; the completion is `<think>…</think><answer>罪名；法条；刑罚</answer>` in the notation of
//! [`answer`]. Cases come from a generator ([`mod@draft`]) or from files of real records ([`records`]).
//!
//! **Splits** depend on the BLAKE3 of the facts. Half of the generator's space belongs to the corpus, and no split
//! draws from it. So no document contains a case that is demonstrated, rewarded or graded. `heldout_unseen` has its own
//! wordings, names and places, and figures from spans that training and corpus never contain. Of the cases of a file,
//! seven tenths are for training, two are held out, and one is for validation.
//!
//! **What it never does.** It gives no legal advice and takes no position on what is just. The caveats in [`honest`]
//! are to be shown beside every figure of this task.
//!
//! Read next: [`mod@task`], [`mod@draft`] (a case), [`table`] (the law as data), [`grade`] (the headline), [`rules`] and
//! [`statute`] (the rewards).

pub mod answer;
pub mod article;
pub mod charge;
pub mod corpus;
pub mod draft;
pub mod grade;
pub mod honest;
pub mod numerals;
pub mod penalty;
pub mod records;
pub mod rules;
pub mod statute;
pub mod table;
pub mod task;
pub mod wordings;

pub use task::{Judgment, prompt, real_split};

#[cfg(test)]
mod tests;
