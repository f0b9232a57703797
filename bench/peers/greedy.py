"""Greedy text of transformers and of `ferule generate`, compared token by token.

    python greedy.py MODEL [MODEL ...] [--prompt TEXT ...] [--new 200]
    python greedy.py MODEL --answers OUT.jsonl         compare with an existing output of `ferule generate`

Identical is asked for up to the first place where the peer's two best logits lie closer than 1e-3: from there on,
either choice is right. Without --prompt the prompts are random token lists.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import ferule_binary

CLOSE = 1e-3
PROMPT_LENGTHS = [1, 5, 24]


def prompts(arguments, config, folder):
    """Token lists to continue."""
    if arguments.prompt:
        words = AutoTokenizer.from_pretrained(folder)
        return [words(text)["input_ids"] for text in arguments.prompt]
    draw = torch.Generator().manual_seed(9)
    return [torch.randint(config.vocab_size, (n,), generator=draw).tolist() for n in PROMPT_LENGTHS]


def end_tokens(model):
    """The ids that end a text, by the generation config first."""
    ids = model.generation_config.eos_token_id
    ids = model.config.eos_token_id if ids is None else ids
    return set(ids if isinstance(ids, list) else [] if ids is None else [ids])


@torch.no_grad()
def greedy(model, tokens, new):
    """Greedy continuation without its end token, and at each place the margin between the two best logits."""
    ends, produced, margins, cache = end_tokens(model), [], [], None
    ids = torch.tensor([tokens])
    for _ in range(new):
        answer = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = answer.past_key_values
        best = answer.logits[0, -1].float().topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        choice = best.indices[0].item()
        if choice in ends:
            break
        produced.append(choice)
        ids = torch.tensor([[choice]])
    return produced, margins


def judge(ours, theirs, margins):
    """(good, number of equal tokens, place where the peer's margin is first too close or None)."""
    sure = next((i for i, margin in enumerate(margins) if margin < CLOSE), None)
    equal = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
    good = (equal == len(ours) == len(theirs)) or (sure is not None and equal >= sure)
    return good, equal, sure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--prompt", action="append")
    parser.add_argument("--new", type=int, default=200)
    parser.add_argument("--answers", type=Path)
    parser.add_argument("--ferule")
    arguments = parser.parse_args()
    all_good = True
    for folder in arguments.models:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        rows = [{"tokens": t} for t in prompts(arguments, AutoConfig.from_pretrained(folder), folder)]
        if arguments.answers:
            answers = [json.loads(line) for line in arguments.answers.open()]
        else:
            command = ["generate", "--model", folder, "--dtype", "f32", "--temperature", 0]
            command += ["--max-new-tokens", arguments.new]
            answers = ferule_binary.json_lines(command, rows, arguments.ferule)
        for row, answer in zip(rows, answers, strict=True):
            theirs, margins = greedy(model, row["tokens"], arguments.new)
            ours = answer["tokens"]
            if ours and ours[-1] in end_tokens(model):
                ours = ours[:-1]
            good, equal, sure = judge(ours, theirs, margins)
            all_good &= good
            print(
                json.dumps(
                    {
                        "model": folder.name,
                        "prompt_tokens": len(row["tokens"]),
                        "good": good,
                        "equal": equal,
                        "peer_tokens": len(theirs),
                        "ferule_tokens": len(ours),
                        "first_close_call": sure,
                    }
                )
            )
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    main()
