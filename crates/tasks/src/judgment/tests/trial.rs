//! The trial of the answer-free rule: how often it agrees with what documents state.

use std::collections::BTreeSet;

use crate::case::{Case, Completion};
use crate::judgment::grade::{Record, read};
use crate::judgment::statute::read_facts;
use crate::judgment::table::{self, Tier};

/// The counts of the trial.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trial {
    /// Cases tried.
    pub cases: usize,
    /// Cases on which it abstained.
    pub abstained: usize,
    /// Of the others, cases whose stated charges equal the indicated ones.
    pub charges_agree: usize,
    /// Of those, cases whose stated penalty is known.
    pub penalties_known: usize,
    /// Of these, cases whose stated penalty is in the part of the tier that the rule selects.
    pub penalties_agree: usize,
}

/// Compares the rule with the answers that documents state.
pub fn trial(cases: &[Case]) -> Trial {
    let mut trial = Trial { cases: cases.len(), ..Trial::default() };
    for case in cases {
        let Ok(record) = serde_json::from_value::<Record>(case.record.clone()) else { continue };
        let reading = read_facts(&record.facts);
        if reading.charges.is_empty() {
            trial.abstained += 1;
            continue;
        }
        if !reading.charges.keys().eq(record.charges.iter().collect::<BTreeSet<_>>()) {
            continue;
        }
        trial.charges_agree += 1;
        let Some(stated) = &case.answer else { continue };
        let text = format!("<think></think><answer>{stated}</answer>");
        let completion = Completion::finished(&text);
        let Ok((_, penalty)) = read(&completion) else { continue };
        trial.penalties_known += 1;
        let tiers: Vec<&Tier> = reading.charges.values().flatten().filter_map(|id| table::tier(id)).collect();
        if tiers.len() == reading.charges.len() && table::case_range(&tiers, &reading.factors).1.contains(penalty) {
            trial.penalties_agree += 1;
        }
    }
    trial
}
