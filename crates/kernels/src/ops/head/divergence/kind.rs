//! The divergences by name.

/// Which divergence of the student from the teacher.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// Σ p ln(p/q): mass where the teacher has it.
    ForwardKl,
    /// Σ q ln(q/p): mass only where the teacher has it.
    ReverseKl,
    /// Between the two; `beta` is the teacher's share of the mixture, strictly between 0 and 1.
    Jsd {
        /// The teacher's share of the mixture.
        beta: f32,
    },
}
