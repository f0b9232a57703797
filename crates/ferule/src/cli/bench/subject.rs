//! The model that is measured: a user's, or a shape with random weights.

use kernels::Device;
use lm::checkpoint::Checkpoint;
use lm::{Arena, Config};

use super::arguments::Arguments;
use crate::cli::model_argument::open;

/// The model that is measured.
pub struct Subject {
    pub name: String,
    pub config: Config,
    /// None for random weights.
    pub checkpoint: Option<Checkpoint>,
}

impl Subject {
    pub fn of(arguments: &Arguments) -> anyhow::Result<Self> {
        if let Some(path) = &arguments.model {
            let checkpoint = open(path)?;
            let config = checkpoint.config().clone();
            return Ok(Self { name: path.display().to_string(), config, checkpoint: Some(checkpoint) });
        }
        let (name, config) = match &arguments.shape {
            Some(path) => (path.display().to_string(), Config::read(path)?),
            None => ("the reference shape".to_string(), reference()),
        };
        Ok(Self { name, config, checkpoint: None })
    }

    pub fn master(&self) -> anyhow::Result<Arena> {
        match &self.checkpoint {
            Some(checkpoint) => Ok(Arena::load(Device::Cpu, &self.config, checkpoint.tensors())?),
            None => Ok(Arena::random(Device::Cpu, &self.config, 0)),
        }
    }
}

/// The shape at which Ferule and its peers are compared.
fn reference() -> Config {
    let shape = lm::config::Shape {
        hidden_size: 256,
        num_hidden_layers: 6,
        num_attention_heads: 8,
        model_type: "llama".into(),
        num_key_value_heads: Some(8),
        head_dim: Some(32),
        intermediate_size: Some(704),
        vocab_size: Some(4096),
        max_position_embeddings: 512,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        tie_word_embeddings: false,
        initializer_range: 0.02,
    };
    Config::from_shape(&shape, None, "the reference shape".as_ref()).expect("a valid shape")
}
