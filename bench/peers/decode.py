"""PyTorch's greedy decoding at the reference shape: new tokens a second, as JSON, one line a measurement.

    python decode.py [--model plain|transformers] [--dtype f32 bf16] [--batch 1 32 256] [--repeats 3] [--threads 2]

Prompt 32, 128 new. `tokens_per_s` counts the new tokens over the whole time, prefill included; for `plain`,
`decode_tokens_per_s` leaves the prefill (and the first token, which comes of it) out. `plain` is decoder.py with a
static cache; `transformers` is `generate`. No compilation: with a sequence that grows by one it recompiles or pads.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from transformers import LlamaForCausalLM

from decoder import DTYPES, Decoder, reference_config

PROMPT, NEW = 32, 128


@torch.inference_mode()
def plain_seconds(model, prompts):
    """Seconds of the prefill and of the remaining tokens."""
    began = time.perf_counter()
    cache = model.cache(len(prompts), PROMPT + NEW)
    tokens = model(prompts, cache, 0, last_only=True).argmax(-1)
    prefilled = time.perf_counter()
    produced = [tokens]
    for position in range(PROMPT, PROMPT + NEW - 1):
        tokens = model(tokens, cache, position).argmax(-1)
        produced.append(tokens)
    torch.cat(produced, 1).tolist()
    return prefilled - began, time.perf_counter() - prefilled


@torch.inference_mode()
def transformers_seconds(model, prompts):
    """Seconds of `generate`, with no way to end early."""
    began = time.perf_counter()
    model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        do_sample=False,
    ).tolist()
    return 0.0, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["plain", "transformers"], default="plain")
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["f32", "bf16"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 32, 256])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = reference_config()
    for dtype in arguments.dtype:
        model = Decoder(config) if arguments.model == "plain" else LlamaForCausalLM(config)
        model = model.to(DTYPES[dtype]).eval()
        measure = plain_seconds if arguments.model == "plain" else transformers_seconds
        for batch in arguments.batch:
            prompts = torch.randint(3, config.vocab_size, (batch, PROMPT))
            runs = [measure(model, prompts) for _ in range(arguments.repeats + 1)][1:]
            row = {
                "peer": f"torch {torch.__version__}",
                "model": arguments.model,
                "dtype": dtype,
                "batch": batch,
                "prompt": PROMPT,
                "new": NEW,
                "threads": arguments.threads,
                "tokens_per_s": batch * NEW / statistics.median(sum(run) for run in runs),
            }
            if arguments.model == "plain":
                row["decode_tokens_per_s"] = batch * (NEW - 1) / statistics.median(run[1] for run in runs)
            row["peak_bytes_so_far"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
