"""PyTorch autograd's loss, gradients and AdamW losses for packed segments, to hold Ferule's hand-written backward against.

    python gradients.py run MODEL CASE.json OUT     OUT/result.json and OUT/gradients.safetensors
    python gradients.py compare OUT OTHER           exit code 1 where a norm of a difference exceeds 1e-4 of the norm

CASE.json: {"tokens": [N], "segments": [{"start", "len", "parent": null | index}], "weights": [N],
            "adamw": {"steps", "lr", "beta1", "beta2", "eps", "weight_decay", "max_norm"}}
or a golden file of crates/lm/tests/golden, whose case is taken.

`weights[t]` is the weight of `tokens[t]` as a target, predicted from the token before it; the first token of a
segment is never one. The loss is sum(weights * -logprob) / sum(weights). A segment with a parent continues that
segment: its positions go on from there, and attention sees the parent's tokens (and the parent's own parent's).
AdamW decays matrices only, never norms and biases; gradients are clipped by their global norm as
`torch.nn.utils.clip_grad_norm_` does.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4


def nine_digits(values):
    """Floats rounded to nine significant digits, which is enough to restore any f32."""
    return [None if v is None else float(f"{v:.9g}") for v in values]


def ancestry(segments, index):
    """Token indices of a segment's parents, outermost first, then its own."""
    segment = segments[index]
    before = [] if segment.get("parent") is None else ancestry(segments, segment["parent"])
    return before + list(range(segment["start"], segment["start"] + segment["len"]))


def packed_logprobs(model, tokens, segments):
    """Log-prob tensor of every token given those before it in its segment; the first of a segment is None."""
    chosen = [None] * len(tokens)
    for index, segment in enumerate(segments):
        if segment["len"] < 2:
            continue
        places = ancestry(segments, index)
        ids = torch.tensor([[tokens[p] for p in places]])
        logprobs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        for row in range(len(places) - segment["len"] + 1, len(places)):
            chosen[places[row]] = logprobs[row - 1, ids[0, row]]
    return chosen


def loss_of(model, case):
    """The weighted mean cross-entropy of a case, and its log-probs."""
    chosen = packed_logprobs(model, case["tokens"], case["segments"])
    terms = [-w * lp for w, lp in zip(case["weights"], chosen) if lp is not None and w != 0]
    total = sum(w for w, lp in zip(case["weights"], chosen) if lp is not None)
    return torch.stack(terms).sum() / total, chosen


def adamw_losses(model, case):
    """The loss before each AdamW step on the same case, and the gradient norm before clipping."""
    plan = case["adamw"]
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": plan["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=plan["lr"],
        betas=(plan["beta1"], plan["beta2"]),
        eps=plan["eps"],
    )
    losses, norms = [], []
    for _ in range(plan["steps"]):
        optimiser.zero_grad()
        loss, _ = loss_of(model, case)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), plan["max_norm"]).item())
        losses.append(loss.item())
        optimiser.step()
    return losses, norms


def run_case(model, case):
    """Everything of a case: result dictionary and gradients by tensor name. The model is trained on afterwards."""
    model.float().train()
    loss, chosen = loss_of(model, case)
    loss.backward()
    gradients = {name: p.grad.detach().clone() for name, p in model.named_parameters()}
    result = {
        "loss": float(f"{loss.item():.9g}"),
        "logprobs": nine_digits([None if lp is None else lp.item() for lp in chosen]),
        "gradient_norms": {name: float(f"{g.norm().item():.9g}") for name, g in gradients.items()},
    }
    if "adamw" in case:
        model.zero_grad()
        losses, norms = adamw_losses(model, case)
        result["adamw_losses"], result["adamw_gradient_norms"] = nine_digits(losses), nine_digits(norms)
    return result, gradients


def compare(ours, theirs):
    """Print every quantity's relative difference; return whether all are within the tolerance."""
    worst = 0.0

    def report(what, difference):
        nonlocal worst
        worst = max(worst, difference)
        print(f"{difference:.2e}  {what}")

    a, b = (json.loads((folder / "result.json").read_text()) for folder in (ours, theirs))
    report("loss", abs(a["loss"] - b["loss"]) / abs(b["loss"]))
    for key in ("adamw_losses", "adamw_gradient_norms"):
        if key in a and key in b:
            report(key, max(abs(x - y) / abs(y) for x, y in zip(a[key], b[key], strict=True)))
    a, b = (load_file(folder / "gradients.safetensors") for folder in (ours, theirs))
    if missing := set(a) ^ set(b):
        sys.exit(f"tensors on one side only: {sorted(missing)}")
    for name, gradient in b.items():
        report(name, ((a[name] - gradient).norm() / gradient.norm()).item())
    print(f"{worst:.2e}  worst")
    return worst <= TOLERANCE


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run")
    run.add_argument("model", type=Path)
    run.add_argument("case", type=Path)
    run.add_argument("out", type=Path)
    both = commands.add_parser("compare")
    both.add_argument("ours", type=Path)
    both.add_argument("theirs", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        sys.exit(0 if compare(arguments.ours, arguments.theirs) else 1)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    case = json.loads(arguments.case.read_text())
    result, gradients = run_case(model, case.get("case", case))
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_file(gradients, arguments.out / "gradients.safetensors")
    (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
