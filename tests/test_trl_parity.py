"""The same tensors through TRL's GRPOTrainer and through r1rl: loss and gradient agree for every loss that
both have.

Where the two mean something else by the same name, the test says so and translates. Legend: B sequences, T
padded tokens, N tokens.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from r1rl.objective.advantages import group_advantages
from r1rl.objective.aggregation import count_trained, loss_weights, trained_sequences
from r1rl.objective.config import AlgorithmConfig
from r1rl.objective.losses import LossInputs, policy_loss

pytest.importorskip("trl")

LENGTHS = [7, 3, 5, 1]
TRUNCATED = [False, False, True, False]
MAX_LENGTH = 9


@pytest.fixture(scope="module")
def make_trainer(tmp_path_factory):
    """Build GRPOTrainers around a model of a few hundred parameters; nothing is downloaded or reported."""
    from accelerate.state import AcceleratorState, GradientState, PartialState
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    def forget_accelerator() -> None:
        """Make accelerate forget the precision of the first Accelerator of the process, since other tests
        choose another.
        """
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    forget_accelerator()
    words = {word: place for place, word in enumerate(["<pad>", "<eos>", "a", "b"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="a")), pad_token="<pad>", eos_token="<eos>"
    )
    shape = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    folder = tmp_path_factory.mktemp("trl")
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=4, **shape))
    model.save_pretrained(folder / "model")
    # Where TRL looks for the reference model when beta is not 0.
    model.config._name_or_path = str(folder / "model")

    def build(**choices: object) -> GRPOTrainer:
        arguments = GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
            per_device_train_batch_size=4, num_generations=4, max_completion_length=MAX_LENGTH, **choices,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model,
            reward_funcs=lambda completions, **columns: [0.0] * len(completions),
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["a"] * 4}),
            processing_class=tokenizer,
        )
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    yield build
    forget_accelerator()


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def tensors(spread: float = 0.4) -> SimpleNamespace:
    """Return padded logprobs of the policy, the old policy, the sampler and the reference, with ratios on
    both sides of every bound.
    """
    generator = torch.Generator().manual_seed(5)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(len(LENGTHS), max(LENGTHS), generator=generator, dtype=torch.float64)

    logprobs = -1.5 + noise(0.3)
    old = logprobs + noise(spread)
    mask = torch.arange(max(LENGTHS))[None, :] < torch.tensor(LENGTHS)[:, None]
    return SimpleNamespace(
        logprobs=logprobs, old=old, sampler=old + noise(0.5), reference=logprobs + noise(0.5),
        entropy=noise(0.2).abs() + 1, mask=mask,
        advantages=torch.tensor([1.3, -0.8, 0.6, -1.9], dtype=torch.float64),
    )  # fmt: skip


def trl_loss(
    trainer, case: SimpleNamespace, mask: Tensor, correction: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return TRL's loss and its gradient with respect to the logprobs [B, T]."""
    logprobs = case.logprobs.clone().requires_grad_()
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, case.entropy, None)
    ids = torch.zeros(mask.shape, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": torch.ones_like(ids[:, :1]), "completion_ids": ids,
        "completion_mask": mask.long(), "advantages": case.advantages, "old_per_token_logps": case.old,
        "ref_per_token_logps": case.reference, "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    if correction is not None:
        trainer.use_vllm, trainer.vllm_importance_sampling_correction = True, True
        inputs["importance_sampling_ratio"] = correction
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    return loss.detach(), logprobs.grad


def our_loss(
    config: AlgorithmConfig, case: SimpleNamespace, with_sampler: bool = False
) -> tuple[Tensor, Tensor]:
    """Return r1rl's loss and gradient, from the same tensors without their padding."""
    logprobs = case.logprobs.clone().requires_grad_()
    lengths = torch.tensor(LENGTHS)
    trained = trained_sequences(lengths, torch.tensor(TRUNCATED), config)
    counts = count_trained(lengths, trained)
    inputs = LossInputs(
        sequence_N=torch.repeat_interleave(torch.arange(len(LENGTHS)), lengths),
        lengths_R=lengths,
        advantages_R=case.advantages,
        weights_R=loss_weights(lengths, trained, counts, counts, config, MAX_LENGTH),
        old_logprobs_N=case.old[case.mask],
        sampler_logprobs_N=case.sampler[case.mask] if with_sampler else None,
        reference_logprobs_N=case.reference[case.mask],
    )
    loss, _ = policy_loss(logprobs[case.mask], case.entropy[case.mask], inputs, config)
    loss.backward()
    return loss.detach(), logprobs.grad


def assert_same(trl: tuple[Tensor, Tensor], ours: tuple[Tensor, Tensor]) -> None:
    assert trl[1].abs().max() > 1e-3
    torch.testing.assert_close(ours[0], trl[0], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(ours[1], trl[1], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize(
    ("trl", "own"),
    [
        ({}, {}),
        ({"epsilon_high": 0.28}, {"epsilon_high": 0.28}),
        ({"delta": 1.5}, {"delta": 1.5}),
        ({"importance_sampling_level": "sequence"}, {"importance_level": "sequence"}),
        (
            {"importance_sampling_level": "sequence", "epsilon": 0.05},
            {"importance_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.05},
        ),
        ({"beta": 0.1, "use_bias_correction_kl": False}, {"beta": 0.1}),
        ({"beta": 0.1}, {"beta": 0.1, "kl_bias_correction": True}),
        (
            {"beta": 0.1, "use_bias_correction_kl": False, "importance_sampling_level": "sequence"},
            {"beta": 0.1, "importance_level": "sequence"},
        ),
        ({"mask_truncated_completions": True}, {"mask_truncated": True}),
    ],
    ids=str,
)
def test_clipped_losses(make_trainer, loss_type, trl, own):
    case = tensors()
    config = AlgorithmConfig(aggregation=loss_type, **own)
    # TRL applies mask_truncated_completions to the completion mask before the loss sees it.
    mask = case.mask & ~torch.tensor(TRUNCATED)[:, None] if config.mask_truncated else case.mask
    assert_same(trl_loss(make_trainer(loss_type=loss_type, **trl), case, mask), our_loss(config, case))


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_cispo(make_trainer, level):
    """TRL's epsilon_high is the bound itself (r1rl: 1 + epsilon_high) and it has no lower bound (r1rl:
    epsilon_low 1).
    """
    config = AlgorithmConfig(
        surrogate="cispo", aggregation="dapo", epsilon_low=1.0, epsilon_high=0.3, importance_level=level
    )
    trainer = make_trainer(loss_type="cispo", epsilon_high=1.3, importance_sampling_level=level)
    assert_same(trl_loss(trainer, tensors(), tensors().mask), our_loss(config, tensors()))


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_truncated_importance_sampling(make_trainer, loss_type):
    """TRL computes the capped ratio (its token_truncate mode) before the loss; the cap of 1.5 binds for some
    tokens.
    """
    case = tensors()
    correction = (case.old - case.sampler).exp().clamp(max=1.5)
    assert (correction[case.mask] == 1.5).any()
    config = AlgorithmConfig(aggregation=loss_type, importance_cap=1.5)
    assert_same(
        trl_loss(make_trainer(loss_type=loss_type), case, case.mask, correction),
        our_loss(config, case, with_sampler=True),
    )


def test_entropy_bonus(make_trainer):
    """The mean over tokens that TRL takes has the weights of the loss with bnpo only; r1rl always uses these
    weights.
    """
    case = tensors()
    config = AlgorithmConfig(aggregation="bnpo", entropy_coefficient=0.05)
    assert_same(
        trl_loss(make_trainer(loss_type="bnpo", entropy_coef=0.05), case, case.mask), our_loss(config, case)
    )


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages(scale):
    """TRL computes advantages in the middle of `_generate_and_score_completions`: its three lines, with its
    own deviation.
    """
    from trl.trainer.utils import nanstd

    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.2, torch.nan, 1.0, 0.2]], dtype=torch.float64)
    deviation = nanstd(rewards, dim=1)[:, None] if scale == "group" else nanstd(rewards.flatten())
    expected = rewards - rewards.nanmean(dim=1, keepdim=True)
    expected = expected if scale == "none" else expected / (deviation + 1e-4)
    found = group_advantages(rewards, AlgorithmConfig(scale=scale))
    torch.testing.assert_close(found, expected.nan_to_num(0.0), rtol=1e-6, atol=1e-9)
