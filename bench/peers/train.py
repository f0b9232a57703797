"""PyTorch's training step at the reference shape: tokens a second (median) and peak resident memory, as JSON.

    python train.py [--model plain|transformers] [--dtype f32|bf16] [--steps 12] [--threads 2] [--compile]

8 sequences of 256 tokens a step, cross-entropy, gradient clipping, fused AdamW. bf16 means autocast over f32 master
weights. `plain` is the hand-written model of decoder.py. Every measurement deserves a process of its own: the peak
is the process's.
"""

import argparse
import contextlib
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from transformers import LlamaForCausalLM

from decoder import Decoder, reference_config

BATCH, LENGTH, WARM_UP = 8, 256, 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["plain", "transformers"], default="plain")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    config = reference_config()
    model = Decoder(config) if arguments.model == "plain" else LlamaForCausalLM(config)
    forward = torch.compile(model) if arguments.compile else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    autocast = torch.autocast("cpu", torch.bfloat16) if arguments.dtype == "bf16" else contextlib.nullcontext()

    seconds = []
    for _ in range(WARM_UP + arguments.steps):
        tokens = torch.randint(config.vocab_size, (BATCH, LENGTH + 1))
        began = time.perf_counter()
        with autocast:
            logits = forward(tokens[:, :-1])
            logits = logits if arguments.model == "plain" else logits.logits
            loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - began)
    middle = statistics.median(seconds[WARM_UP:])
    print(
        json.dumps(
            {
                "peer": f"torch {torch.__version__}",
                "model": arguments.model + (" compiled" if arguments.compile else ""),
                "dtype": arguments.dtype,
                "threads": arguments.threads,
                "tokens_per_s": BATCH * LENGTH / middle,
                "seconds_per_step": middle,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
