//! Raw documents to the labels that they already hold.
//!
//! A court's judgment states the facts, and then what the court made of them: charge, sentence and articles. Read rightly, a folder of such documents is a set of labelled
//! cases that nobody had to label. Each kind of document is a module here. A reader never guesses: what is not stated once and clearly is refused, with the reason.
//!
//! Found labels are not an expert's: whoever uses them meters them apart.
//!
//! To add a kind: a module beside [`judgment`], and its name where the command line offers kinds.

pub mod judgment;
