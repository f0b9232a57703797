//! The column of losses that are one coefficient a row.

/// A loss that reaches the model by one coefficient a row, `d loss / d logprob`: a policy gradient, or a preference.
///
/// A coefficient may depend on all rows of the batch, as where whole completions are compared. So the step computes the log-probabilities of
/// all rows first, asks for the coefficients, and then goes backward. What must be seen together stands in one micro-batch.
///
/// Read next: [`crate::policy`] and [`crate::preference`], which implement it.
pub trait RowLoss {
    /// `[N]`, whether a token is one of the `R` rows.
    fn trained(&self) -> &[bool];

    /// `[R]` log-probabilities of the rows in nats, where they are known already, bit for bit.
    fn known(&self) -> Option<&[f32]> {
        None
    }

    /// The coefficients, and what there is to report.
    ///
    /// # Shapes and units
    /// * `logprobs`: `[R]`, nats, in the batch's order.
    /// * returns `[R]` of `d loss / d logprob`.
    fn coefficients(&self, logprobs: &[f32]) -> (Vec<f32>, RowReport);
}

/// What a loss says of a batch. Everything in it is a sum with the step's weights, so that the reports of a step's micro-batches add up to means.
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

    /// Divides everything: the sum of so many updates becomes their mean.
    pub fn divide(&mut self, updates: f64) {
        self.loss /= updates;
        self.figures.iter_mut().for_each(|(_, value)| *value /= updates);
    }

    /// The figure of that name, where there is one.
    pub fn figure(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}
