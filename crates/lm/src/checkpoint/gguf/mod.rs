//! GGUF files, the format of llama.cpp and related programs: one file with weights, configuration and tokenizer.
//!
//! [`File`] reads one. Weights of all common quantisations become f32, the metadata become a [`Config`], and the
//! vocabulary becomes a [`Tokenizer`](crate::tokenizer::Tokenizer). [`save`] writes a file in F32, F16, BF16 or Q8_0
//! that llama.cpp loads.
//!
//! A file is not trusted: every count, length and offset is checked against the bytes of the file before anything is
//! allocated for it.
//!
//! # The order of rows
//! The rotary embedding rotates two dimensions of a head together. In llama.cpp these are two neighbours. In Hugging
//! Face's layout they are dimensions `i` and `i + D/2`. Therefore files of the `llama` architecture hold the rows of
//! query and key projections in another order ([`hf_row`]). Files of the Qwen architectures do not. For a head of D = 8
//! rows:
//!
//! ```text
//!     row in the file       0  1  2  3  4  5  6  7
//!     Hugging Face's row    0  4  1  5  2  6  3  7
//! ```
//!
//! Source: the specification in ggml's `docs/gguf.md`.
//!
//! Read next: `gguf/read.rs` (the file), `gguf/dequantise.rs` (the block formats), `gguf/vocabulary.rs` (tokenizers),
//! `gguf/write.rs`.

mod dequantise;
mod metadata;
mod read;
mod vocabulary;
mod write;

pub use read::File;
pub use write::{Export, save};

use crate::config::{Config, Family};
use crate::table::TensorSpec;

const MAGIC: &[u8; 4] = b"GGUF";
/// Tensors start at multiples of this many bytes, unless a file gives another number.
const ALIGNMENT: usize = 32;
/// The tensor of the divisors of rotary frequencies, `[D/2]`, of Llama 3.1 and later.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// A key that only Ferule writes. Its values are those from which the divisors were computed: the factor, the low and
/// the high frequency factor, and the context of the first training.
const LLAMA3_SCALING: &str = "ferule.rope_scaling.llama3";

/// How a tensor's elements are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::F32,
        Kind::F16,
        Kind::Bf16,
        Kind::Q4_0,
        Kind::Q4_1,
        Kind::Q5_0,
        Kind::Q5_1,
        Kind::Q8_0,
        Kind::Q4K,
        Kind::Q5K,
        Kind::Q6K,
    ];

    /// ggml's number for this kind.
    fn number(self) -> u32 {
        match self {
            Kind::F32 => 0,
            Kind::F16 => 1,
            Kind::Q4_0 => 2,
            Kind::Q4_1 => 3,
            Kind::Q5_0 => 6,
            Kind::Q5_1 => 7,
            Kind::Q8_0 => 8,
            Kind::Q4K => 12,
            Kind::Q5K => 13,
            Kind::Q6K => 14,
            Kind::Bf16 => 30,
        }
    }

    fn from_number(number: u32) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// Number of elements, and of bytes, of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Kind::F32 => (1, 4),
            Kind::F16 | Kind::Bf16 => (1, 2),
            Kind::Q4_0 => (32, 18),
            Kind::Q4_1 => (32, 20),
            Kind::Q5_0 => (32, 22),
            Kind::Q5_1 => (32, 24),
            Kind::Q8_0 => (32, 34),
            Kind::Q4K => (256, 144),
            Kind::Q5K => (256, 176),
            Kind::Q6K => (256, 210),
        }
    }
}

/// The architecture's name in a file. Mistral is stored as `llama`.
fn architecture(family: Family) -> &'static str {
    match family {
        Family::Llama | Family::Mistral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
    }
}

/// Whether the rows of a tensor are in llama.cpp's rotary order in the file.
fn is_permuted(config: &Config, spec: &TensorSpec) -> bool {
    architecture(config.model_type) == "llama" && spec.rotated
}

/// The row of Hugging Face's tensor that is stored as row `row` of a permuted tensor in a file.
///
/// Within a head of D rows, the file alternates between the two halves: row `2j + half` of the file is Hugging Face's
/// row `half × D/2 + j`.
fn hf_row(row: usize, head_dim: usize) -> usize {
    let (head, within) = (row / head_dim, row % head_dim);
    head * head_dim + (within % 2) * (head_dim / 2) + within / 2
}

#[cfg(test)]
mod tests;
