//! Text generation: from requests to completions, for many sequences at once.
//!
//! * `scheduler.rs`: which sequences run in the next step, which wait, which are preempted. Read it first.
//! * `kv_cache.rs`: the pages of keys and values, and how many sequences hold each.
//! * `decode.rs`: one step of the decoder over the cache.
//! * `sampler.rs`: from logits to a token.
//!
//! A completion depends only on its request, its sample number and the weights. Batching, sharing of pages, chunking of
//! prompts and preemption never change a bit of it. Requests and completions are token ids; `tokenizer.rs` converts
//! them from and to text.

mod decode;
mod kv_cache;
mod sampler;
mod scheduler;

pub use kv_cache::{KvCache, PAGE};
pub use sampler::Sampling;
pub use scheduler::{Completion, Finish, Flow, Limits, Request, Scheduler, Token, generate};
