"""Logprobs and entropy of completion tokens, without ever holding the logits of a whole batch.

    logprob_n = log softmax(process_logits(head(h_n)))[o_n]        H_n = - sum_v p_nv log p_nv

The decoder runs without its language-model head; only hidden states that predict a completion token go
through the head, `chunk` of them at a time. Every chunk but the last is checkpointed: the backward pass
computes its logits again, so memory never holds more than one chunk's. (The last chunk's are still there when
the backward pass begins with them.) The distribution is `r1rl.objective.sampling.process_logits`', the one
that was sampled: temperature, top-k, top-p, min-p. The sampled token itself always stays in the support.

This serves any causal language model of transformers whose logits are its output embedding of the decoder's
last state, up to what `LogitHead` knows of: scaling (Granite, Cohere, Falcon-H1) and soft capping (Gemma).
`PolicyForward.verify` finds out if a model is one.

Legend: R rows and T positions of a micro-batch, N completion tokens, C of a chunk, D hidden size, V
vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from r1rl.attention.rectangles import RowsPlan
from r1rl.attention.varlen import VarlenPlan
from r1rl.compute.trials import Comparison, DifferentResult, Part, Standard, Trial
from r1rl.errors import UserError
from r1rl.objective.sampling import Sampling, process_logits

EntropyMode = Literal["none", "value", "gradient"]
"""The use of the entropy. value: for the metrics, without gradient and not computed again in the backward
pass; gradient: for an entropy bonus.
"""

ChunkLogprobs = Callable[["LogitHead", Tensor, Tensor, Sampling, EntropyMode], tuple[Tensor, Tensor | None]]

_MULTIPLIERS = ("logit_scale", "lm_head_multiplier")
_DIVISORS = ("logits_scaling",)
HEAD = Part("logits of the policy's head", "The policy can't be trained")


class LogitHead:
    """The head that makes logits of hidden states: the output embedding, then scaling and soft capping."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config()
        self.embedding = model.get_output_embeddings()
        self.scale = 1.0
        for name in _MULTIPLIERS:
            self.scale *= getattr(config, name, None) or 1.0
        for name in _DIVISORS:
            self.scale /= getattr(config, name, None) or 1.0
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    def __call__(self, hidden: Tensor) -> Tensor:
        """Return the logits [..., V] of hidden states [..., D], in the precision of the forward pass."""
        logits = self.embedding(hidden)
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


class PolicyForward(nn.Module):
    """The policy as a module whose forward pass gives logprobs: DDP's and accelerate's hooks apply to it."""

    def __init__(self, model: PreTrainedModel, sampling: Sampling, chunk: int) -> None:
        super().__init__()
        self.model = model
        self._no_split_modules = model._no_split_modules  # the layers that FSDP wraps one by one
        self.sampling = sampling
        self.chunk = chunk
        self.chunk_logprobs: ChunkLogprobs = chunk_logprobs
        """The function for a chunk; `r1rl.policy.compilation` may put a kernel's in its place."""
        self.trials: list[Trial] = []
        """The trials of the head and of what is faster than the plain forward."""

    def forward(
        self,
        input_ids_RT: Tensor,
        predictors_N: Tensor,
        targets_N: Tensor,
        entropy: EntropyMode = "none",
        positions_RT: Tensor | None = None,
        plan: VarlenPlan | RowsPlan | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return float32 logprobs [N] of the targets, and their entropies [N] or None.

        `predictors_N` are the places in the R * T positions of `input_ids_RT` whose states predict
        `targets_N`. Without a plan the rows are padded on the right, and there is no attention mask: under
        causal attention no token sees the padding to its right. With a plan (`r1rl.attention.packed`) they
        are packed, inside `packed_attention_in(model)`.
        """
        hidden_RTD = hidden_states(self.model, input_ids_RT, positions_RT, plan)
        hidden_ND = hidden_RTD.flatten(0, 1).index_select(0, predictors_N)
        return head_logprobs(
            LogitHead(self.model),
            hidden_ND,
            targets_N,
            self.sampling,
            self.chunk,
            entropy,
            self.chunk_logprobs,
        )

    @torch.no_grad()
    def verify(self, key: str = "model.path") -> None:
        """Compare our logits with the model's own on a few tokens, by a trial whose refusal can't be helped.

        Raises UserError where the architecture computes other logits. `key`: the recipe's name for the model.
        """
        model = self.model
        vocabulary = model.config.get_text_config().vocab_size
        input_ids = (torch.arange(8, device=model.device) * 7919 % vocabulary)[None]

        def judge() -> list[Comparison]:
            standard = Standard(
                lambda dtype: {"logits": model(input_ids=input_ids, use_cache=False).logits[0]},
                model.device,
                next(model.parameters()).dtype,
            )
            return standard.compare({"logits": LogitHead(model)(hidden_states(model, input_ids))[0]})

        was_training = model.training
        model.eval()
        try:
            trial = HEAD.judged(judge())
        except DifferentResult as error:
            trial = HEAD.refused(str(error))
        finally:
            model.train(was_training)
        if not trial.accepted:
            raise UserError(
                f"{key}: {type(model).__name__} computes its logits in a way that r1rl does not know "
                f"(more than output embedding, scaling and soft capping), so its logprobs would be wrong "
                f"({trial.reason}): use another model"
            )
        self.trials.append(trial)


def hidden_states(
    model: PreTrainedModel,
    input_ids_RT: Tensor,
    positions_RT: Tensor | None = None,
    plan: VarlenPlan | RowsPlan | None = None,
) -> Tensor:
    """Return the decoder's last hidden states [R, T, D]."""
    packed = {} if plan is None else {"position_ids": positions_RT, "packed_plan": plan}
    return model.get_decoder()(input_ids=input_ids_RT, use_cache=False, **packed).last_hidden_state


def head_logprobs(
    head: LogitHead,
    hidden_ND: Tensor,
    targets_N: Tensor,
    sampling: Sampling,
    chunk: int,
    entropy: EntropyMode,
    compute: ChunkLogprobs,
) -> tuple[Tensor, Tensor | None]:
    """Return logprobs and entropies of N states, computed `chunk` at a time.

    When gradients are on, all but the last chunk are checkpointed.
    """
    logprobs, entropies = [], []
    for first in range(0, targets_N.shape[0], chunk):
        arguments = (
            head,
            hidden_ND[first : first + chunk],
            targets_N[first : first + chunk],
            sampling,
            entropy,
        )
        if torch.is_grad_enabled() and first + chunk < targets_N.shape[0]:
            logprobs_C, entropy_C = checkpoint(compute, *arguments, use_reentrant=False)
        else:
            logprobs_C, entropy_C = compute(*arguments)
        logprobs.append(logprobs_C)
        entropies.append(entropy_C)
    return torch.cat(logprobs), None if entropy == "none" else torch.cat(entropies)


def chunk_logprobs(
    head: LogitHead, hidden_CD: Tensor, targets_C: Tensor, sampling: Sampling, entropy: EntropyMode
) -> tuple[Tensor, Tensor | None]:
    """Return float32 logprobs [C] of the targets, and their entropies [C] or None."""
    logprobs_CV = process_logits(head(hidden_CD), sampling, keep_B=targets_C).log_softmax(dim=-1)
    logprobs_C = logprobs_CV.gather(-1, targets_C[:, None]).squeeze(-1)
    if entropy == "none":
        return logprobs_C, None
    if entropy == "gradient":
        return logprobs_C, _entropy(logprobs_CV, sampling)
    # Last, and without gradient: the recomputation in the backward pass ends before it gets here.
    with torch.no_grad():
        return logprobs_C, _entropy(logprobs_CV, sampling)


def _entropy(logprobs_CV: Tensor, sampling: Sampling) -> Tensor:
    """Return entropies [C] in nats; tokens outside the support have probability 0 and add nothing."""
    probabilities_CV = logprobs_CV.exp()
    if sampling.truncates_vocabulary:
        logprobs_CV = logprobs_CV.masked_fill(logprobs_CV == -torch.inf, 0.0)
    return -(probabilities_CV * logprobs_CV).sum(dim=-1)
