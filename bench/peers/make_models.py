"""Write tiny random Hugging Face folders, one per family and awkward shape, with transformers itself.

    python make_models.py OUT            all folders
    python make_models.py OUT qwen3 ...  only these

Each folder holds config.json, generation_config.json, one or many safetensors shards and a 320-symbol byte-level
BPE tokenizer with a chat template. Weights are float32 unless the name ends in a dtype. Every weight is random,
biases and norm weights too: a fresh model has zeros and ones there, which would hide a forgotten term.
"""

import argparse
import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB = 320
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "The teacher read the rule aloud, and the pupils wrote it down.",
    "Reward what is right; correct what is not; say why.",
    "被告人盗窃他人财物,数额较大,判处有期徒刑三年六个月。",
    "一心一意,意气风发,发扬光大。",
    "12 + 30 * 4 = 132, and 7 - 5 = 2.",
]
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


def shape(hidden, inner, layers, heads, kv_heads, head_dim, **more):
    """The fields that every family shares, under their Hugging Face names."""
    return dict(
        vocab_size=VOCAB,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=512,
        rms_norm_eps=1e-6,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
        **more,
    )


def rope(theta, **scaling):
    """Rotary parameters in the form of transformers 5."""
    return {"rope_theta": theta, "rope_type": "default", **scaling}


# name -> (config, model class, saving options)
FOLDERS = {
    "llama": (LlamaConfig, LlamaForCausalLM, shape(48, 112, 2, 4, 2, 12, tie_word_embeddings=False, rope_parameters=rope(1e4)), {}),
    "llama-tied": (LlamaConfig, LlamaForCausalLM, shape(64, 176, 3, 4, 4, 16, tie_word_embeddings=True, rope_parameters=rope(1e4)), {}),
    "llama-sharded": (LlamaConfig, LlamaForCausalLM, shape(64, 144, 3, 2, 1, 32, tie_word_embeddings=False, rope_parameters=rope(1e4)), {"max_shard_size": "100KB"}),
    "llama3-rope": (LlamaConfig, LlamaForCausalLM, shape(64, 144, 2, 4, 2, 16, tie_word_embeddings=False, rope_parameters=rope(5e5, **LLAMA3_ROPE)), {}),
    "llama3-rope-legacy": (LlamaConfig, LlamaForCausalLM, shape(64, 144, 2, 4, 2, 16, tie_word_embeddings=False, rope_parameters=rope(5e5, **LLAMA3_ROPE)), {"legacy": True}),
    "llama-biased": (LlamaConfig, LlamaForCausalLM, shape(48, 80, 2, 3, 1, 16, tie_word_embeddings=False, attention_bias=True, mlp_bias=True, rope_parameters=rope(1e4)), {}),
    "llama-bf16": (LlamaConfig, LlamaForCausalLM, shape(64, 176, 2, 4, 2, 16, tie_word_embeddings=True, rope_parameters=rope(1e4)), {"dtype": torch.bfloat16}),
    "llama-f16": (LlamaConfig, LlamaForCausalLM, shape(64, 176, 2, 4, 2, 16, tie_word_embeddings=False, rope_parameters=rope(1e4)), {"dtype": torch.float16}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, shape(48, 104, 2, 4, 2, 12, tie_word_embeddings=True, rope_parameters=rope(1e6)), {}),
    "qwen2-untied": (Qwen2Config, Qwen2ForCausalLM, shape(96, 200, 2, 3, 1, 32, tie_word_embeddings=False, rope_parameters=rope(1e6)), {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, shape(48, 96, 2, 4, 2, 32, tie_word_embeddings=True, rope_parameters=rope(1e6)), {}),
    "qwen3-untied": (Qwen3Config, Qwen3ForCausalLM, shape(64, 160, 3, 4, 1, 64, tie_word_embeddings=False, rope_parameters=rope(1e6)), {}),
    "mistral": (MistralConfig, MistralForCausalLM, shape(64, 152, 2, 4, 2, 32, tie_word_embeddings=False, sliding_window=None, rope_parameters=rope(1e4)), {}),
}


def tokenizer():
    """A byte-level BPE of 320 symbols in all, special tokens first."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    inner.train_from_iterator(CORPUS, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=SPECIAL[0], eos_token=SPECIAL[2], pad_token=SPECIAL[0]
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def randomise(model, seed):
    """Weights that make the logits lively: matrices of variance 1/in, norms around one, biases around zero."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=draw)
            if name.endswith("norm.weight"):
                weight.copy_(1 + 0.2 * noise)
            elif weight.dim() == 1:
                weight.copy_(0.3 * noise)
            elif "embed_tokens" in name:
                weight.copy_(0.5 * noise)
            else:
                weight.copy_(noise / weight.shape[1] ** 0.5)


def to_legacy(folder):
    """Rewrite the rotary fields the way configurations before transformers 5 spell them."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = parameters
    config["torch_dtype"] = config.pop("dtype", "float32")
    path.write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    names = arguments.names or list(FOLDERS)
    for unknown in set(names) - set(FOLDERS):
        parser.error(f"no such folder: {unknown}; known: {', '.join(FOLDERS)}")
    words = tokenizer()
    for seed, (name, (config, model_class, fields, saving)) in enumerate(FOLDERS.items()):
        if name not in names:
            continue
        saving = dict(saving)
        legacy, dtype = saving.pop("legacy", False), saving.pop("dtype", torch.float32)
        model = model_class(config(**fields))
        randomise(model, seed)
        folder = arguments.out / name
        model.to(dtype).save_pretrained(folder, **saving)
        words.save_pretrained(folder)
        if legacy:
            to_legacy(folder)
        print(folder, sum(p.numel() for p in model.parameters()), "parameters")


if __name__ == "__main__":
    main()
