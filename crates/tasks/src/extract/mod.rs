//! Extracts from raw documents the labels that they already contain.
//!
//! A court's judgment states the facts and then the court's decision: charge, sentence and articles. So a folder of
//! such documents is a set of labelled cases that nobody had to label. Each kind of document is a module here. An
//! extractor never guesses: a document that does not state something once and clearly is refused, with the reason.
//!
//! Found labels are not an expert's labels, and callers meter them separately.
//!
//! To add a kind, write a module beside [`judgment`] and add its name to the kinds of the command line.

pub mod judgment;
