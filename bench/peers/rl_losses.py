"""TRL's own losses on fixed small tensors, as JSON for `crates/train/tests/golden/`.

    python rl_losses.py ../../crates/train/tests/golden

* `policy_losses.json`: GRPO, BNPO, DAPO, Dr. GRPO, GSPO (`GRPOTrainer._compute_loss`) and RLOO
  (`RLOOTrainer._compute_loss`). Each case gives the loss and `coefficients`, its derivative by every policy log-prob.
  Only the model's forward pass is replaced: it returns the given log-probs. Per-token lists are ragged, one row a
  completion, without padding.
* `preference_losses.json`: DPO, IPO, robust DPO (`DPOTrainer._compute_loss`) and KTO (`KTOTrainer._compute_loss`), with
  the same derivative, and the rewards and margins that both trainers log; and which completion KTO puts behind which
  prompt to estimate the divergence, from a real trainer's data set.
* `advantages.json`: what both trainers make of given rewards; null is an abstention (no reward function gave a score).
* `divergences.json`: GKD's generalised Jensen-Shannon divergence (`GKDTrainer.generalized_jsd_loss`; beta 0 is
  forward KL(teacher || student), beta 1 reverse KL), per row, with the derivative by the student's logits; and the
  forward KL over the teacher's top-k tokens with one bucket for the tail, from TRL's `_add_tail_bucket`.

Everything is computed in float64.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import transformers
import trl
from datasets import Dataset
from trl import DPOTrainer, GRPOConfig, GRPOTrainer, KTOConfig, KTOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.gkd import GKDTrainer
from trl.experimental.server_distillation.server_distillation_trainer import _add_tail_bucket

from make_models import FOLDERS, tokenizer

LENGTHS = [5, 7, 1, 6, 3, 4]  # two groups of three completions
ADVANTAGES = [1.2, -0.7, -0.5, 0.0, 0.9, -0.9]

# `ratio` and `aggregate` are Ferule's words for TRL's `importance_sampling_level` and `loss_type`.
POLICY_CASES = [
    {"name": "grpo", "aggregate": "grpo", "ratio": "token"},
    {"name": "grpo_on_policy", "aggregate": "grpo", "ratio": "token", "on_policy": True},
    {"name": "grpo_kl", "aggregate": "grpo", "ratio": "token", "beta": 0.04},
    {"name": "grpo_clip_higher", "aggregate": "grpo", "ratio": "token", "epsilon_high": 0.28},
    {"name": "grpo_two_sided", "aggregate": "grpo", "ratio": "token", "delta": 1.4},
    {"name": "grpo_truncated_masked", "aggregate": "grpo", "ratio": "token", "masked_rows": [1]},
    {"name": "bnpo", "aggregate": "bnpo", "ratio": "token"},
    {"name": "dapo", "aggregate": "dapo", "ratio": "token", "epsilon_high": 0.28},
    {"name": "dapo_kl", "aggregate": "dapo", "ratio": "token", "epsilon_high": 0.28, "beta": 0.1},
    {"name": "dr_grpo", "aggregate": "dr_grpo", "ratio": "token", "max_completion_length": 8},
    {"name": "gspo", "aggregate": "grpo", "ratio": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},
    {"name": "gspo_wide", "aggregate": "grpo", "ratio": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15},
    {"name": "gspo_kl", "aggregate": "grpo", "ratio": "sequence", "epsilon_low": 0.1, "epsilon_high": 0.15, "beta": 0.04},
]
DEFAULTS = {
    "name": None,
    "aggregate": None,
    "ratio": None,
    "epsilon_low": 0.2,
    "epsilon_high": 0.2,
    "beta": 0.0,
    "delta": None,
    "max_completion_length": 8,
    "masked_rows": [],
}


def ragged(tensor, lengths=LENGTHS):
    """Rows of a padded tensor, cut to their lengths."""
    return [row[:n].tolist() for row, n in zip(tensor, lengths)]


def policy_inputs():
    """Padded log-probs under policy, sampler and reference. Log-ratios reach 0.5, so that many are clipped."""
    draw = torch.Generator().manual_seed(7)
    shape = (len(LENGTHS), max(LENGTHS))
    policy = -3 * torch.rand(shape, generator=draw, dtype=torch.float64) - 0.05
    sampler = (policy + torch.rand(shape, generator=draw, dtype=torch.float64) - 0.5).clamp(max=-0.01)
    reference = (policy + 0.6 * torch.rand(shape, generator=draw, dtype=torch.float64) - 0.3).clamp(max=-0.01)
    mask = (torch.arange(shape[1])[None, :] < torch.tensor(LENGTHS)[:, None]).double()
    return policy, sampler, reference, mask


class OneProcess:
    """The few things that the losses ask of `accelerate`, for a single process."""

    num_processes = 1
    sync_gradients = True
    device = torch.device("cpu")

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction):
        return x


def trainer_stub(logprobs, **fields):
    """A stand-in for a trainer whose model answers with the given log-probs."""
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        accelerator=OneProcess(),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        _metrics={"train": defaultdict(list)},
        **fields,
    )


def policy_case(case):
    """One case of the GRPO family: loss and derivative by every policy log-prob."""
    case = DEFAULTS | case
    policy, sampler, reference, mask = policy_inputs()
    if case.pop("on_policy", False):
        sampler = policy.clone()
    policy.requires_grad_()
    mask[case["masked_rows"]] = 0
    trainer = trainer_stub(
        policy,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level=case["ratio"],
        loss_type=case["aggregate"],
        beta=case["beta"],
        epsilon_low=case["epsilon_low"],
        epsilon_high=case["epsilon_high"],
        max_completion_length=case["max_completion_length"],
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False,
        args=SimpleNamespace(delta=case["delta"], use_bias_correction_kl=False, steps_per_generation=1),
    )
    empty = torch.zeros((len(LENGTHS), 0), dtype=torch.long)
    inputs = {
        "prompt_ids": empty,
        "prompt_mask": empty,
        "completion_ids": torch.zeros_like(mask, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor(ADVANTAGES, dtype=torch.float64),
        "old_per_token_logps": sampler,
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask.sum(),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return case | {"logprobs_sampler": ragged(sampler), "loss": loss.item(), "coefficients": ragged(policy.grad)}


def rloo_case(name, epsilon_low, epsilon_high):
    """TRL's RLOO: one ratio a sequence, the product of its tokens' ratios (not their geometric mean)."""
    policy, sampler, _, mask = policy_inputs()
    sampler = policy + 0.3 * (sampler - policy)
    policy.requires_grad_()
    trainer = trainer_stub(policy, epsilon_low=epsilon_low, epsilon_high=epsilon_high)
    empty = torch.zeros((len(LENGTHS), 0), dtype=torch.long)
    inputs = {
        "prompt_ids": empty,
        "prompt_mask": empty,
        "completion_ids": torch.zeros_like(mask, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor(ADVANTAGES, dtype=torch.float64),
        "old_logps": (sampler * mask).sum(1),
    }
    loss = RLOOTrainer._compute_loss(trainer, None, inputs)
    loss.backward()
    return {
        "name": name,
        "aggregate": "rloo",
        "ratio": "sequence_product",
        "epsilon_low": epsilon_low,
        "epsilon_high": epsilon_high,
        "logprobs_sampler": ragged(sampler),
        "loss": loss.item(),
        "coefficients": ragged(policy.grad),
    }


def policy_losses():
    """The whole of policy_losses.json."""
    policy, _, reference, _ = policy_inputs()
    cases = [policy_case(case) for case in POLICY_CASES]
    cases += [rloo_case("rloo", 0.2, 0.2), rloo_case("rloo_clip_higher", 0.1, 0.3)]
    return {
        "logprobs_policy": ragged(policy),
        "logprobs_reference": ragged(reference),
        "advantages": ADVANTAGES,
        "cases": cases,
    }


PAIR_LENGTHS = [(5, 3), (2, 6), (4, 4), (1, 2)]  # completion tokens of the chosen and the rejected side
THUMB_LENGTHS = [4, 2, 6, 1, 3]
THUMBS = [True, False, True, True, False]

# `label_smoothing` is the share of pairs that are taken to be the wrong way round; TRL reads it in `robust` alone.
PAIR_CASES = [
    {"name": "sigmoid", "loss_type": "sigmoid", "beta": 0.1},
    {"name": "sigmoid_steep", "loss_type": "sigmoid", "beta": 0.9},
    {"name": "ipo", "loss_type": "ipo", "beta": 0.1},
    {"name": "ipo_steep", "loss_type": "ipo", "beta": 0.6},
    {"name": "robust", "loss_type": "robust", "beta": 0.1, "label_smoothing": 0.1},
    {"name": "robust_steep", "loss_type": "robust", "beta": 0.9, "label_smoothing": 0.3},
]
# `kl_shift` moves the policy on the mismatched completions, so that the estimate is positive or, clamped, zero.
THUMB_CASES = [
    {"name": "kto", "beta": 0.1, "kl_shift": 0.4},
    {"name": "kto_weighted", "beta": 0.5, "desirable_weight": 1.0, "undesirable_weight": 1.33, "kl_shift": 0.4},
    {"name": "kto_clamped", "beta": 0.5, "kl_shift": -0.4},
    {"name": "kto_all_desirable", "beta": 0.5, "kl_shift": 0.4, "labels": [True] * 5},
    {"name": "kto_all_undesirable", "beta": 0.5, "kl_shift": 0.4, "labels": [False] * 5},
]


def sequences(seed, lengths):
    """Padded policy and reference log-probs, and the mask of real tokens. Log-ratios of a token reach 0.8."""
    draw = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    policy = -3 * torch.rand(shape, generator=draw, dtype=torch.float64) - 0.05
    reference = policy + 1.6 * torch.rand(shape, generator=draw, dtype=torch.float64) - 0.8
    mask = (torch.arange(shape[1])[None, :] < torch.tensor(lengths)[:, None]).double()
    return policy, reference.clamp(max=-0.01), mask


def completion_inputs(mask, prefix=""):
    """What a collator makes of completions behind a prompt of one token: the model sees one token more than it answers for."""
    whole = torch.cat([torch.zeros_like(mask[:, :1]), mask], dim=1).long()
    return {
        f"{prefix}input_ids": torch.zeros_like(whole),
        f"{prefix}attention_mask": torch.ones_like(whole),
        f"{prefix}completion_mask": whole,
    }


def model_answer(logprobs, mask):
    """The output of a model with TRL's fused head: log-probs of the labelled tokens, zero elsewhere."""
    nothing = torch.zeros_like(logprobs)
    return SimpleNamespace(log_probs=logprobs * mask, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def preference_stub(**fields):
    """A stand-in for a DPO or KTO trainer whose reference log-probs come with the batch."""
    return SimpleNamespace(
        accelerator=OneProcess(),
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
        **fields,
    )


def logged(trainer, names):
    """The last value that a trainer logged under each name."""
    metrics = trainer._metrics["train"]
    return {name.replace("/", "_"): metrics[name][-1] for name in names if metrics[name]}


def pair_case(case):
    """One case of DPO: loss and derivative by every policy log-prob, chosen sides first."""
    case = {"label_smoothing": 0.0} | case
    lengths = [chosen for chosen, _ in PAIR_LENGTHS] + [rejected for _, rejected in PAIR_LENGTHS]
    policy, reference, mask = sequences(17, lengths)
    policy.requires_grad_()
    trainer = preference_stub(
        beta=case["beta"],
        label_smoothing=case["label_smoothing"],
        loss_types=[case["loss_type"]],
        loss_weights=[1.0],
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
    )
    chosen, rejected = (reference * mask).sum(1).chunk(2)
    inputs = completion_inputs(mask) | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    loss = DPOTrainer._compute_loss(trainer, lambda **_: model_answer(policy, mask), inputs, False)
    loss.backward()
    figures = logged(trainer, ["rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"])
    return case | {"loss": loss.item(), "coefficients": ragged(policy.grad, lengths)} | figures


def thumb_case(case):
    """One case of KTO: loss and derivative by every policy log-prob."""
    case = {"desirable_weight": 1.0, "undesirable_weight": 1.0, "labels": THUMBS} | case
    policy, reference, mask = sequences(19, THUMB_LENGTHS)
    policy.requires_grad_()
    # The same lengths in another order: each completion stands behind the next prompt.
    lengths = THUMB_LENGTHS[-1:] + THUMB_LENGTHS[:-1]
    kl_reference, _, kl_mask = sequences(23, lengths)
    kl_reference -= 0.5
    kl_policy = kl_reference + case.pop("kl_shift")

    def model(input_ids, **_):
        return model_answer(kl_policy, kl_mask) if input_ids is kl_inputs["KL_input_ids"] else model_answer(policy, mask)

    trainer = preference_stub(
        beta=case["beta"],
        loss_type="kto",
        calculate_KL=True,
        desirable_weight=case["desirable_weight"],
        undesirable_weight=case["undesirable_weight"],
    )
    trainer._compute_kl_logps = partial(KTOTrainer._compute_kl_logps, trainer)
    kl_inputs = completion_inputs(kl_mask, "KL_")
    inputs = completion_inputs(mask) | kl_inputs
    inputs["label"] = torch.tensor(case["labels"])
    inputs["ref_logps"] = (reference * mask).sum(1)
    inputs["ref_KL_logps"] = (kl_reference * kl_mask).sum(1)
    loss = KTOTrainer._compute_loss(trainer, model, inputs, False)
    loss.backward()
    mismatched = {
        "kl_logprobs_policy": ragged(kl_policy, lengths),
        "kl_logprobs_reference": ragged(kl_reference, lengths),
        "loss": loss.item(),
        "coefficients": ragged(policy.grad, THUMB_LENGTHS),
    }
    return case | mismatched | logged(trainer, ["kl", "rewards/chosen", "rewards/rejected", "rewards/margins"])


def mismatched_completions():
    """Of a real trainer's batch of five, the place of the completion that stands behind each prompt in the estimate of the divergence."""
    words = tokenizer()
    texts = ["一", "心", "意", "马", "到"]
    rows = {"prompt": texts, "completion": [text * 2 for text in texts], "label": THUMBS}
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as out:
        config, model_class, fields, _ = FOLDERS["llama"]
        model_class(config(**fields)).save_pretrained(folder)
        words.save_pretrained(folder)
        arguments = KTOConfig(
            output_dir=out,
            per_device_train_batch_size=len(texts),
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
        )
        trainer = KTOTrainer(model=folder, args=arguments, train_dataset=Dataset.from_dict(rows), processing_class=words)
        made = trainer.train_dataset
        own = [list(ids) for ids in made["completion_ids"]]
        return [own.index(list(ids)) for ids in made["KL_completion_ids"]]


def preference_losses():
    """The whole of preference_losses.json."""
    lengths = [chosen for chosen, _ in PAIR_LENGTHS] + [rejected for _, rejected in PAIR_LENGTHS]
    pairs, pairs_reference, _ = sequences(17, lengths)
    thumbs, thumbs_reference, _ = sequences(19, THUMB_LENGTHS)
    half = len(PAIR_LENGTHS)
    return {
        "chosen_policy": ragged(pairs, lengths)[:half],
        "rejected_policy": ragged(pairs, lengths)[half:],
        "chosen_reference": ragged(pairs_reference, lengths)[:half],
        "rejected_reference": ragged(pairs_reference, lengths)[half:],
        "pairs": [pair_case(case) for case in PAIR_CASES],
        "thumbs_policy": ragged(thumbs, THUMB_LENGTHS),
        "thumbs_reference": ragged(thumbs_reference, THUMB_LENGTHS),
        "thumbs": [thumb_case(case) for case in THUMB_CASES],
        "mismatched": mismatched_completions(),
    }


REWARDS = [
    [1.0, 0.0, 0.25, 0.0],
    [0.5, 0.5, 0.5, 0.5],
    [0.1, 0.9, None, 0.4],
    [0.0, 0.0, 0.0, 1.0],
]


def trainer_advantages(trainer_class, config_class, model_folder, **options):
    """Run one generation of a real trainer whose reward function hands out REWARDS, and read its advantages."""
    group = len(REWARDS[0])
    flat = [reward for rewards in REWARDS for reward in rewards]

    def reward(completions, **_):
        assert len(completions) == len(flat)
        return flat

    seen = []

    class Recorder(trainer_class):
        def _generate_and_score_completions(self, inputs):
            output = super()._generate_and_score_completions(inputs)
            seen.append(output["advantages"].tolist())
            return output

    with tempfile.TemporaryDirectory() as out:
        config = config_class(
            output_dir=out,
            per_device_train_batch_size=len(flat),
            num_generations=group,
            max_completion_length=2,
            max_steps=1,
            use_cpu=True,
            bf16=False,
            report_to=[],
            disable_tqdm=True,
            **options,
        )
        data = Dataset.from_dict({"prompt": ["一心一意"] * len(REWARDS)})
        words = tokenizer()
        Recorder(model=str(model_folder), reward_funcs=reward, args=config, train_dataset=data, processing_class=words).train()
    values = seen[0]
    return [values[i : i + group] for i in range(0, len(values), group)]


def advantages():
    """The whole of advantages.json. TRL's standard deviation is the sample's (n - 1), plus 1e-4."""
    with tempfile.TemporaryDirectory() as folder:
        config, model_class, fields, _ = FOLDERS["llama"]
        model_class(config(**fields)).save_pretrained(folder)
        tokenizer().save_pretrained(folder)
        grpo = partial(trainer_advantages, GRPOTrainer, GRPOConfig, folder)
        rloo = partial(trainer_advantages, RLOOTrainer, RLOOConfig, folder, beta=0.0)
        return {
            "rewards": REWARDS,
            "cases": [
                {"name": "grpo", "scale": "group", "advantages": grpo(scale_rewards="group")},
                {"name": "grpo_batch_scale", "scale": "batch", "advantages": grpo(scale_rewards="batch")},
                {"name": "dr_grpo", "scale": "none", "advantages": grpo(scale_rewards="none")},
                {"name": "rloo", "scale": "none", "advantages": rloo(normalize_advantages=False)},
                {"name": "rloo_normalised", "scale": "batch", "advantages": rloo(normalize_advantages=True)},
            ],
        }


def divergences():
    """The whole of divergences.json."""
    draw = torch.Generator().manual_seed(11)
    student = 2 * torch.randn((4, 13), generator=draw, dtype=torch.float64)
    teacher = 2 * torch.randn((4, 13), generator=draw, dtype=torch.float64)
    cases = []
    for beta in (0, 0.1, 0.5, 0.9, 1):
        for temperature in (1.0, 2.0):
            logits = student.clone().requires_grad_()
            rows = GKDTrainer.generalized_jsd_loss(logits, teacher, beta=beta, temperature=temperature, reduction="none").sum(-1)
            rows.sum().backward()
            cases.append({"beta": beta, "temperature": temperature, "values": rows.tolist(), "d_logits": logits.grad.tolist()})
    sparse = []
    for k in (1, 4):
        for temperature in (1.0, 2.0):
            logits = student.clone().requires_grad_()
            top = (teacher / temperature).log_softmax(-1).topk(k)
            mine = (logits / temperature).log_softmax(-1).gather(-1, top.indices)
            valid = torch.ones_like(top.indices, dtype=torch.bool)
            theirs, _ = _add_tail_bucket(top.values, valid)
            mine, _ = _add_tail_bucket(mine, valid)
            rows = F.kl_div(mine, theirs, reduction="none", log_target=True).sum(-1)
            rows.sum().backward()
            sparse.append(
                {
                    "k": k,
                    "temperature": temperature,
                    "ids": top.indices.tolist(),
                    "logprobs": top.values.tolist(),
                    "values": rows.tolist(),
                    "d_logits": logits.grad.tolist(),
                }
            )
    return {"student_logits": student.tolist(), "teacher_logits": teacher.tolist(), "cases": cases, "sparse": sparse}


def shortened(value):
    """The same structure with ten significant digits a float: f64's noise has no place in a diff."""
    if isinstance(value, float):
        return float(f"{value:.10g}")
    if isinstance(value, list):
        return [shortened(v) for v in value]
    if isinstance(value, dict):
        return {k: shortened(v) for k, v in value.items()}
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    transformers.logging.set_verbosity_error()
    documents = {
        "policy_losses": policy_losses,
        "preference_losses": preference_losses,
        "advantages": advantages,
        "divergences": divergences,
    }
    for name, make in documents.items():
        document = {"source": f"TRL {trl.__version__}, bench/peers/rl_losses.py"} | shortened(make())
        lines = [f" {json.dumps(k)}: " + compact(v) for k, v in document.items()]
        (arguments.out / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def compact(value):
    """JSON with one line a case."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n  " + ",\n  ".join(json.dumps(v) for v in value) + "\n ]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
