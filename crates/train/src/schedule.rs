//! Learning rates: warm-up, then constant, cosine, or warm-up–stable–decay.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The course of the learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// It stays at the peak.
    Constant,
    /// It falls along half a cosine to a tenth of the peak.
    #[default]
    Cosine,
    /// It stays at the peak until the last fifth of the steps, then falls in a straight line to zero (arXiv 2404.06395).
    Wsd,
}

impl Schedule {
    /// The learning rate of a step.
    ///
    /// # Shapes and units
    /// * `step`: counted from 0, below `steps`. The rate rises in a straight line over the first `warmup_steps`, and is never 0 there.
    /// * returns the rate, in the unit of `peak`.
    pub fn rate(self, peak: f32, step: u64, steps: u64, warmup_steps: u64) -> f32 {
        if step < warmup_steps {
            return peak * (step + 1) as f32 / warmup_steps as f32;
        }
        let done = (step - warmup_steps) as f64 / (steps.saturating_sub(warmup_steps)).max(1) as f64;
        let share = match self {
            Schedule::Constant => 1.0,
            Schedule::Cosine => 0.1 + 0.45 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos()),
            Schedule::Wsd => ((1.0 - done) / 0.2).clamp(0.0, 1.0),
        };
        (f64::from(peak) * share) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_rise_stay_and_fall() {
        let rates = |schedule: Schedule| (0..100).map(|step| schedule.rate(1.0, step, 100, 10)).collect::<Vec<_>>();
        for schedule in [Schedule::Constant, Schedule::Cosine, Schedule::Wsd] {
            let rates = rates(schedule);
            assert_eq!((rates[0], rates[9], rates[10]), (0.1, 1.0, 1.0), "{schedule:?}");
            assert!(rates[10..].windows(2).all(|pair| pair[1] <= pair[0]), "{schedule:?}");
        }
        assert_eq!(rates(Schedule::Constant)[99], 1.0);
        assert!((rates(Schedule::Cosine)[99] - 0.1).abs() < 1e-3);
        assert_eq!(rates(Schedule::Wsd)[81], 1.0);
        assert!(rates(Schedule::Wsd)[99] < 0.06);
    }
}
