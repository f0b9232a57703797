//! Damaged and hostile input through the binary, again and again: it must answer or refuse, never panic, never abort, never hang, never
//! fill the memory, and never give another result in silence.
//!
//! `FERULE_ATTACKS` says how often each class of input is tried: few times unless told otherwise, 2,000 by `bench/attack.sh`.
//! `FERULE_ATTACK_SEED` gives other tries.
#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
mod support;

mod data;
mod folder;
mod harness;
mod hub;
mod model;
mod recipe;
mod server;
