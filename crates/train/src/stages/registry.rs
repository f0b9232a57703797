//! Every kind of stage that a recipe can name. To add one, write its file and add one line to [`STAGES`].

use tasks::keys::{self, KeyDoc};
use tasks::refusal::Refusal;
use toml::Table;

use super::distill::Distill;
use super::dpo::Dpo;
use super::eval::Eval;
use super::grpo::Grpo;
use super::kto::Kto;
use super::on_policy_distill::OnPolicyDistill;
use super::pretrain::Pretrain;
use super::sample::Sample;
use super::sft::Sft;
use super::tokenizer::TokenizerStage;
use crate::recipe::foreign_names::FOREIGN_NAMES;
use crate::stage::{AnyStage, Stage};

/// The kinds, in the order in which a pipeline usually runs them.
pub const STAGES: &[StageEntry] = &[
    StageEntry::of::<TokenizerStage>(),
    StageEntry::of::<Pretrain>(),
    StageEntry::of::<Sft>(),
    StageEntry::of::<Grpo>(),
    StageEntry::of::<Dpo>(),
    StageEntry::of::<Kto>(),
    StageEntry::of::<Sample>(),
    StageEntry::of::<Distill>(),
    StageEntry::of::<OnPolicyDistill>(),
    StageEntry::of::<Eval>(),
];

/// A kind of stage.
pub struct StageEntry {
    /// [`Stage::KIND`].
    pub kind: &'static str,
    /// [`Stage::ALIASES`].
    pub aliases: &'static [&'static str],
    /// [`Stage::SUMMARY`].
    pub summary: &'static str,
    /// Its keys, in the struct's order.
    pub keys: fn() -> Vec<KeyDoc>,
    /// Reads a stage from a recipe's table.
    pub read: fn(Table) -> Result<Box<dyn AnyStage>, Refusal>,
}

impl StageEntry {
    const fn of<S: Stage>() -> StageEntry {
        StageEntry {
            kind: S::KIND,
            aliases: S::ALIASES,
            summary: S::SUMMARY,
            keys: keys::keys_of::<S>,
            read: |table| Ok(Box::new(keys::read::<S>(table, FOREIGN_NAMES)?)),
        }
    }
}

/// The kind that a recipe writes as `word`: its name or one of its aliases.
pub fn find(word: &str) -> Option<&'static StageEntry> {
    STAGES.iter().find(|entry| entry.kind == word || entry.aliases.contains(&word))
}
