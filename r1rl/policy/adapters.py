"""The policy as a frozen model with trained adapters (`model.lora`): made, continued from a checkpoint, and
as its own reference.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel

from r1rl import models
from r1rl.config.schema import LoRAConfig, PolicyConfig
from r1rl.models.lora import add_adapters, load_adapter_weights, without_adapters
from r1rl.policy.logprobs import PolicyForward
from r1rl.seeds import derive_seed


def adapt(
    model: PreTrainedModel, config: PolicyConfig, lora: LoRAConfig, seed: int, checkpoint: Path | None
) -> None:
    """Freeze the model and give it adapters: new ones, the same in every process, or those of the checkpoint
    that a run goes on from.

    Raises UserError for adapters that fit neither the model nor the checkpoint.
    """
    base = base_name(config.path)
    add_adapters(model, lora, base, config.revision, derive_seed(seed, "adapters"))
    if checkpoint is not None:
        load_adapter_weights(model, checkpoint, base)


def base_name(path: str) -> str:
    """Return the name that a saved adapter has for its model: an embedded model's name, a hub name, or a
    folder's whole path.
    """
    return str(Path(path).resolve()) if path not in models.EMBEDDED and Path(path).is_dir() else path


class BasePolicy(nn.Module):
    """The reference of the KL term where adapters are trained: the policy without them. It has no weights of
    its own.
    """

    def __init__(self, policy: PolicyForward) -> None:
        super().__init__()
        self.policy = policy

    @property
    def model(self) -> PreTrainedModel:
        """The policy's."""
        return self.policy.model

    def forward(self, *arguments: object) -> tuple[Tensor, Tensor | None]:
        """See `PolicyForward.forward`."""
        with without_adapters(self.model):
            result: tuple[Tensor, Tensor | None] = self.policy(*arguments)
        return result
