"""TRL's GRPOTrainer end to end at the reference shape: seconds a step and peak resident memory, as JSON.

    python grpo.py [--dtype f32|bf16] [--steps 4] [--threads 2]

A step samples 16 prompts of 32 tokens x group of 8 x 64 new tokens, grades them with a trivial rule, and trains on
all 128 completions in one AdamW step; no reference model (beta 0), one epoch over the rollouts, TRL's defaults
otherwise. f32 and bf16 are TRL's `bf16` flag (autocast over f32 weights). The first step is left out.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
import warnings

import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from decoder import reference_config

PROMPTS, PROMPT_TOKENS, GROUP, NEW = 16, 32, 8, 64


def words(vocab_size):
    """A tokenizer whose n-th symbol is the word `wn`, so that a prompt of 32 words has 32 tokens."""
    vocabulary = {f"w{i}": i for i in range(vocab_size)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="w3"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="w0", eos_token="w1", pad_token="w2", unk_token="w3")


def prompts(count, vocab_size):
    """Prompts of 32 random words each."""
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(4, vocab_size, (count, PROMPT_TOKENS), generator=draw).tolist()
    return [" ".join(f"w{i}" for i in row) for row in rows]


def even_words(completions, **_):
    """A rule as cheap as can be: the share of words with an even number."""
    shares = []
    for completion in completions:
        numbers = [int(word[1:]) for word in completion.split()]
        shares.append(sum(n % 2 == 0 for n in numbers) / max(len(numbers), 1))
    return shares


class Clock(TrainerCallback):
    """When each optimiser step ended."""

    def __init__(self):
        self.ends = [time.perf_counter()]

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()

    config = reference_config()
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=LlamaForCausalLM(config),
            reward_funcs=even_words,
            processing_class=words(config.vocab_size),
            train_dataset=Dataset.from_dict({"prompt": prompts(PROMPTS * (arguments.steps + 1), config.vocab_size)}),
            callbacks=[clock],
            args=GRPOConfig(
                output_dir=out,
                per_device_train_batch_size=PROMPTS * GROUP,
                num_generations=GROUP,
                max_completion_length=NEW,
                generation_kwargs={"min_new_tokens": NEW},
                max_steps=arguments.steps + 1,
                learning_rate=1e-5,
                use_cpu=True,
                bf16=arguments.dtype == "bf16",
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                logging_steps=1000,
            ),
        )
        clock.ends = [time.perf_counter()]
        trainer.train()
    seconds = [b - a for a, b in zip(clock.ends, clock.ends[1:])][1:]
    print(
        json.dumps(
            {
                "peer": f"TRL {trl.__version__}, torch {torch.__version__}",
                "dtype": arguments.dtype,
                "threads": arguments.threads,
                "prompts": PROMPTS,
                "group": GROUP,
                "prompt_tokens": PROMPT_TOKENS,
                "new_tokens": NEW,
                "seconds_per_step": statistics.median(seconds),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
