//! Losses that give each row one coefficient.

/// A loss that reaches the model as one coefficient per row, `d loss / d logprob`: a policy gradient or a preference
/// loss.
///
/// A coefficient may depend on all rows of the batch, for example when whole completions are compared. So a step first
/// computes the log-probabilities of all rows, then asks for the coefficients, then runs backward. Completions that are
/// compared must be in one micro-batch.
///
/// Read next: [`crate::policy`] and [`crate::preference`], which implement it.
pub trait RowLoss {
    /// `[N]`, whether a token is one of the `R` rows.
    fn trained(&self) -> &[bool];

    /// `[R]` log-probabilities of the rows in nats, if they are already known bit for bit. The step then does not
    /// compute them again.
    fn known(&self) -> Option<&[f32]> {
        None
    }

    /// Computes the coefficients and the report.
    ///
    /// # Shapes and units
    /// * `logprobs`: `[R]`, nats, in the batch's order.
    /// * returns `[R]` of `d loss / d logprob`.
    fn coefficients(&self, logprobs: &[f32]) -> (Vec<f32>, RowReport);
}

/// What a loss reports about a batch. Every value is a sum with the step's weights, so that the reports of a step's
/// micro-batches add up to means over the step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowReport {
    /// The loss.
    pub loss: f64,
    /// Named figures.
    pub figures: Vec<(&'static str, f64)>,
}

impl RowReport {
    /// Adds another micro-batch's report.
    pub fn add(&mut self, other: RowReport) {
        self.loss += other.loss;
        for (name, value) in other.figures {
            match self.figures.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => self.figures.push((name, value)),
            }
        }
    }

    /// Divides every value: the sum over so many updates becomes their mean.
    pub fn divide(&mut self, updates: f64) {
        self.loss /= updates;
        self.figures.iter_mut().for_each(|(_, value)| *value /= updates);
    }

    /// The figure with that name, if there is one.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}
