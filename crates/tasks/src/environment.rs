//! Environments for episodes of several turns.
//!
//! The policy samples a completion, and the environment replies with text that is appended to it and never trained on.
//! This repeats until the environment ends the episode. An environment holds the state of one episode. Its random
//! numbers come from its key alone.
//!
//! Read next: [`crate::idiom_chain`], an environment.

use crate::case::Completion;

/// What an environment does after a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The episode continues: text that is appended to the completion before the policy's next turn.
    Say(String),
    /// The episode is over.
    Done {
        /// The episode's reward, 0..=1.
        reward: f64,
        /// Why it ended, without the text that the policy wrote.
        ending: String,
    },
}

/// One episode.
pub trait Environment: Send {
    /// The first prompt of the episode.
    fn prompt(&self) -> String;
    /// The reply to the policy's turn. It is not called again after [`Reply::Done`].
    fn reply(&mut self, completion: &Completion) -> Reply;
}
