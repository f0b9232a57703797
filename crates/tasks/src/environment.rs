//! Environments that answer back: a rollout of several turns.
//!
//! The sampler writes a completion, and the environment replies with text that is put after it and is never trained. This goes
//! on until the environment says that the episode is over. An environment keeps the state of one episode; its random numbers
//! come from its key alone.
//!
//! Read next: [`crate::idiom_chain`], the game of idioms.

use crate::case::Completion;

/// What an environment does after a completion.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// The episode goes on: text to put after the completion, before the policy's next turn.
    Say(String),
    /// The episode is over.
    Done {
        /// The episode's reward, 0..=1.
        reward: f64,
        /// Why it ended: the fault, without the words it was made with.
        ending: String,
    },
}

/// One episode.
pub trait Environment: Send {
    /// What the policy is asked first.
    fn prompt(&self) -> String;
    /// The answer to the policy's turn. After [`Reply::Done`] it is not called again.
    fn reply(&mut self, completion: &Completion) -> Reply;
}
