//! The kinds of divergence.

/// Which divergence of the student from the teacher, with p the teacher's and q the student's probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Divergence {
    /// Σ p ln(p/q): the student must have mass wherever the teacher has it.
    ForwardKl,
    /// Σ q ln(q/p): the student must have mass only where the teacher has it.
    ReverseKl,
    /// The generalised Jensen–Shannon divergence, which lies between the two.
    Jsd {
        /// The teacher's share β of the mixture, strictly between 0 and 1.
        beta: f32,
    },
}
