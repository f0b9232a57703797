"""Write the golden models of `crates/lm/tests/golden/`: weights from a formula, answers from transformers and autograd.

    python golden.py ../../crates/lm/tests/golden

No weight is stored. Every one follows from its tensor's place in the file's `tensors` list and its own place in the
tensor, in row-major order; all integers are unsigned and wrap at 32 bits:

    mix(x):   x ^= x >> 16;  x *= 0x7feb352d;  x ^= x >> 15;  x *= 0x846ca68b;  x ^= x >> 16
    hash:     h = mix(mix(tensor + 1) + element)
    unit:     u = (h >> 8) * 2^-23 - 1                in [-1, 1), exact in f32
    weight:   offset + scale * u                      scale is a power of two, so one f32 rounding at most

`tensors` gives each tensor's name, shape, scale and offset (1 for norms, else 0). Tokens come from the same hash
with tensor = 1000: h modulo vocab_size.

Two files a model: `NAME.json` (config, tensors, case, result) and `NAME.safetensors` (every gradient, f32).
The meaning of a case stands in gradients.py.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from gradients import nine_digits, run_case

ADAMW = {"steps": 20, "lr": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "max_norm": 1.0}
COMMON = {"max_position_embeddings": 128, "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu"}
CONFIGS = {
    "llama": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 61,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    },
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 53,
        "hidden_size": 32,
        "intermediate_size": 44,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 67,
        "hidden_size": 20,
        "intermediate_size": 36,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "rope_theta": 1000000.0,
    },
}
# Lengths and parents: ordinary segments, one of a single token, and two that continue one prompt.
SEGMENTS = [(17, None), (1, None), (6, None), (7, 2), (9, 2)]


def mix(x):
    """The 32-bit integer hash of the formula, on numpy arrays of u32."""
    x = x.astype(np.uint32)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    return x


def hashes(tensor, count):
    """`h` of the first `count` elements of a tensor."""
    return mix(mix(np.array([tensor + 1])) + np.arange(count, dtype=np.uint32))


def table(model):
    """The `tensors` list, in transformers' order of parameters."""
    rows = []
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            scale, offset = 0.25, 1.0
        elif name == "model.embed_tokens.weight":
            scale, offset = 0.5, 0.0
        else:
            scale, offset = 0.25, 0.0
        rows.append({"name": name, "shape": list(parameter.shape), "scale": scale, "offset": offset})
    return rows


def fill(model, rows):
    """Give every parameter its weights by the formula."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for index, row in enumerate(rows):
            unit = (hashes(index, int(np.prod(row["shape"]))) >> np.uint32(8)).astype(np.float32) * np.float32(2**-23) - 1
            weights = np.float32(row["offset"]) + np.float32(row["scale"]) * unit
            parameters[row["name"]].copy_(torch.from_numpy(weights.astype(np.float32)).view(row["shape"]))


def case_for(vocab_size):
    """Packed tokens in the segments above, with whole, fractional and zero target weights."""
    segments, start = [], 0
    for length, parent in SEGMENTS:
        segments.append({"start": start, "len": length, "parent": parent})
        start += length
    tokens = (hashes(1000, start) % np.uint32(vocab_size)).tolist()
    # The two continuations begin with the same token: the prompt's last, which each of them holds itself.
    tokens[segments[4]["start"]] = tokens[segments[3]["start"]]
    weights = [1.0] * start
    for segment in segments:
        weights[segment["start"]] = 0.0
    for t in range(20, 24):  # within the prompt: not trained
        weights[t] = 0.0
    weights[5], weights[30] = 0.5, 2.0
    return {"tokens": tokens, "segments": segments, "weights": weights, "adamw": ADAMW}


def write(name, folder):
    """One golden model."""
    config = COMMON | CONFIGS[name]
    fields = {k: v for k, v in config.items() if k not in ("architectures", "model_type")}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **fields))
    rows = table(model)
    fill(model, rows)
    case = case_for(config["vocab_size"])
    first = case["tokens"][: case["segments"][0]["len"]]
    with torch.no_grad():
        last_logits = model(input_ids=torch.tensor([first])).logits[0, -1].tolist()
    greedy = model.generate(
        torch.tensor([first[:4]]), max_new_tokens=16, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    result, gradients = run_case(model, case)
    result["last_logits_of_segment_0"] = nine_digits(last_logits)
    result["greedy_after_4_tokens_of_segment_0"] = greedy[0, 4:].tolist()
    golden = {"config": config, "tensors": rows, "case": case, "result": result}
    text = "{\n" + ",\n".join(f' "{key}": {json.dumps(value)}' for key, value in golden.items()) + "\n}\n"
    (folder / f"{name}.json").write_text(text)
    save_file({k: v.contiguous() for k, v in gradients.items()}, folder / f"{name}.safetensors")
    print(name, "loss", result["loss"], "->", result["adamw_losses"][-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in CONFIGS:
        write(name, arguments.out)


if __name__ == "__main__":
    main()
