//! Tasks and rewards: cases, environments, rules, readers of data. Nothing here needs a model.
//!
//! A task is a generator or a reader of files. It gives cases, demonstrations, a pretraining corpus and a headline
//! score, and it names the rules that reward a policy by default. It never trains, samples or encodes; the stages
//! handle tokens. Three properties hold for every task:
//!
//! * **Determinism.** The same `(split, seed)` always gives the same list of cases; a larger `n` gives a longer
//!   list with the same head.
//! * **Disjoint splits.** A case's content alone decides its split, never the seed, so no seed can move a held-out case
//!   into training. The corpus holds no held-out case.
//! * **Hidden records.** [`Case::record`] is for evaluation and for the trial of a rule. A rule gets an
//!   [`Evidence`](rewards::Evidence), which does not contain it.
//!
//! Read in this order: [`case`], [`task`], [`rewards`], then one task, such as [`countdown`].
#![forbid(unsafe_code)]

pub mod case;
pub mod countdown;
pub mod data;
pub mod environment;
pub mod extract;
pub mod idiom_chain;
pub mod jsonl;
pub mod judgment;
pub mod keys;
pub mod partition;
pub mod paths;
pub mod refusal;
pub mod registry;
pub mod rewards;
pub mod suggest;
pub mod task;
pub mod withheld;

pub use case::{Case, Completion, Grade, Message, Prompt, Split};
pub use refusal::Refusal;
pub use task::{Task, TaskError, first_written, withdrawn};
