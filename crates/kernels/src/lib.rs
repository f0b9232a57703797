//! All arithmetic of Ferule: the only crate with `unsafe`.
