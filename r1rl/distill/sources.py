"""The sources of a step's completions: the student itself, or the file.

A step has P slots, one for each prompt. In the first lambda P of them the student answers a problem, G times
(on-policy); the others take G rows of the file each (off-policy). Process r of W holds the slots r, r + W,
... Random streams depend on (seed, step, slot) alone, so the completions are the same for any number of
processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from r1rl.compute.distributed import own_share
from r1rl.data import PromptOrder
from r1rl.distill.batches import TrainSequence
from r1rl.distill.completions import PreparedCompletion
from r1rl.distill.recipe import DistillRecipe
from r1rl.distill.vocabulary import known_part
from r1rl.objective.sampling import Sampling
from r1rl.rollout import RolloutEngine
from r1rl.seeds import derive_seed
from r1rl.types import FinishReason, Problem, Prompt


class Sources:
    """The sequences of each step, and the place in both sets of data."""

    def __init__(
        self,
        recipe: DistillRecipe,
        accelerator: Accelerator,
        engine: RolloutEngine,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        shared: int,
        prompts: Sequence[Prompt],
        rows: Sequence[PreparedCompletion],
        progress: Callable[[str, int, int], None],
    ) -> None:
        """Take both sets: `prompts` are for the student to answer (none if on_policy is 0), `rows` those of
        the file (none if it is 1).

        `shared`: ids that the teacher knows too. `progress(phase, done, total)` is told of every finished
        prompt.
        """
        self.recipe = recipe
        self.accelerator = accelerator
        self.engine = engine
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.shared = shared
        self.prompts = prompts
        self.rows = rows
        self.progress = progress
        self.orders: dict[str, PromptOrder] = {}
        if prompts and recipe.data is not None:
            self.orders["data"] = PromptOrder(len(prompts), recipe.seed, recipe.data.shuffle)
        if rows and recipe.completions is not None:
            self.orders["completions"] = PromptOrder(len(rows), recipe.seed, recipe.completions.shuffle)

    @property
    def epoch(self) -> float:
        """Passes over the data so far; of the two sets the one that is passed over more often."""
        return max(order.epoch for order in self.orders.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the places in both sets for a checkpoint, as JSON values."""
        return {name: order.state_dict() for name, order in self.orders.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint; a set that it did not have begins at its start. Raises DataError if the
        data has changed.
        """
        for name, order in self.orders.items():
            if name in state:
                order.load_state_dict(state[name])

    def take(self, step: int) -> list[TrainSequence]:
        """Return this process's sequences of the step, in the order of their slots."""
        slots = self.recipe.rollout.num_prompts
        answered = self.recipe.on_policy_prompts
        own = own_share(self.accelerator, range(slots))
        sequences = self._answer([slot for slot in own if slot < answered], step) if answered else []
        if answered < slots:
            per_slot = self.recipe.rollout.num_generations
            taken = self.orders["completions"].take((slots - answered) * per_slot)
            for slot in (slot for slot in own if slot >= answered):
                first = (slot - answered) * per_slot
                sequences += [self._read(slot, self.rows[index]) for index in taken[first : first + per_slot]]
        return sequences

    def _answer(self, slots: Sequence[int], step: int) -> list[TrainSequence]:
        """Return the student's completions for the next problems. Nothing here has a gradient: see
        docs/distillation.md.
        """
        taken = self.orders["data"].take(self.recipe.on_policy_prompts)
        prompts = [self.prompts[taken[slot]] for slot in slots]
        seeds = [derive_seed(self.recipe.seed, "rollout", step, slot) for slot in slots]
        groups = []
        num_generations = self.recipe.rollout.num_generations
        for group in self.engine.generate(
            [prompt.token_ids for prompt in prompts], num_generations, self.sampling, seeds
        ):
            groups.append(group)
            self.progress("rollout", len(groups), len(prompts))
        return [
            TrainSequence(
                slot=slots[group.index],
                prompt=prompts[group.index],
                completion_ids=known_part(completion.token_ids, self.shared),
                text=completion.text,
                finish_reason=completion.finish_reason,
                on_policy=True,
            )
            for group in sorted(groups, key=lambda group: group.index)
            for completion in group.completions
        ]

    def _read(self, slot: int, row: PreparedCompletion) -> TrainSequence:
        shown = row.demonstration
        prompt_ids, completion_ids = row.prompt_ids.tolist(), row.completion_ids.tolist()
        prompt, text = self.tokenizer.batch_decode([prompt_ids, completion_ids], skip_special_tokens=True)
        problem = Problem(id=shown.place, problem=shown.problem or prompt, answer=None, place=shown.place)
        ended = completion_ids[-1] in self.sampling.eos_token_ids
        reason = FinishReason.EOS if ended else FinishReason.STOP
        return TrainSequence(
            slot, Prompt(problem, prompt, prompt_ids), completion_ids, text, reason, on_policy=False
        )
