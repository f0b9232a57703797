//! What happened: runs, metrics, rollouts, verdicts.
#![forbid(unsafe_code)]
