//! Generation: requests in, completions out, many sequences at once.
//!
//! * `scheduler.rs`: who runs in the next step, who waits, who is preempted. Read this one first.
//! * `kv_cache.rs`: the pages of keys and values, and who holds them.
//! * `decode.rs`: one step of the decoder over the cache.
//! * `sampler.rs`: from logits to a token.
//!
//! A completion is a function of its request, its sample number and the weights: batching, sharing, chunking and preemption
//! never change a bit of it. Token ids go in and out; text belongs to `tokenizer.rs`.

mod decode;
mod kv_cache;
mod sampler;
mod scheduler;

pub use kv_cache::{KvCache, PAGE};
pub use sampler::Sampling;
pub use scheduler::{Completion, Finish, Flow, Limits, Request, Scheduler, Token, generate};
