"""vLLM's CPU build, greedy decoding of a Hugging Face folder: new tokens a second, as JSON, one line a measurement.

    python vllm_cpu.py FOLDER [--dtype bfloat16] [--batch 1 16] [--prompt 32] [--new 128]

It runs in an environment of its own (README.md). `tokens_per_s` counts the new tokens of all sequences over the wall time of the whole
batch, prefill included.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from vllm import LLM, SamplingParams, __version__


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    context = arguments.prompt + arguments.new + 32
    engine = LLM(
        str(arguments.model), dtype=arguments.dtype, max_model_len=context, max_num_seqs=max(arguments.batch),
        enable_prefix_caching=False,
    )
    sampling = SamplingParams(temperature=0.0, max_tokens=arguments.new, ignore_eos=True)
    for batch in arguments.batch:
        prompts = [
            {"prompt_token_ids": [1000 + (37 * sequence + 11 * i) % 20000 for i in range(arguments.prompt)]}
            for sequence in range(batch)
        ]
        seconds = []
        for _ in range(arguments.repeats + 1):
            began = time.perf_counter()
            answers = engine.generate(prompts, sampling, use_tqdm=False)
            seconds.append(time.perf_counter() - began)
            if any(len(answer.outputs[0].token_ids) != arguments.new for answer in answers):
                raise SystemExit("vLLM stopped early")
        row = {
            "peer": f"vLLM (CPU) {__version__}",
            "model": arguments.model.name,
            "dtype": arguments.dtype,
            "batch": batch,
            "prompt": arguments.prompt,
            "new": arguments.new,
            "tokens_per_s": batch * arguments.new / statistics.median(seconds[1:]),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
