"""A rollout as plain values that `torch.load(weights_only=True)` reads, and back. Floats come back to the
last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from r1rl.grpo.collect import Counts, Rollout, ScoredGroup
from r1rl.rewards import RewardResult
from r1rl.types import Completion, FinishReason, Prompt


def rollout_state(rollout: Rollout, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return one process's rollout; `prompts` are those of the run, in which the groups' are named by their
    place.
    """
    places = {id(prompt): place for place, prompt in enumerate(prompts)}
    counts = rollout.counts
    return {
        "refilled": rollout.refilled,
        "lag": rollout.lag,
        "events": dict(counts.events),
        "reward_seconds": dict(counts.reward_seconds),
        "tracebacks": dict(counts.tracebacks),
        "waited_for_rewards": counts.waited_for_rewards,
        "sampled_tokens": counts.sampled_tokens,
        "groups": [
            {
                "slot": group.slot,
                "place": places[id(group.prompt)],
                "prompt_ids": group.prompt.token_ids,
                "completions": [
                    {
                        "token_ids": one.token_ids,
                        "logprobs": one.logprobs,
                        "text": one.text,
                        "finish_reason": one.finish_reason.value,
                    }
                    for one in group.completions
                ],
                "rewards": asdict(group.rewards),
            }
            for group in rollout.groups
        ],
    }


def rollout_from_state(
    shares: Sequence[dict[str, Any]],
    slots: Sequence[int],
    counted: Sequence[dict[str, Any]],
    prompts: Sequence[Prompt],
) -> Rollout | None:
    """Return the groups in these slots, from the shares of all processes that saved.

    The counts are those of the shares `counted`: each share must count in one process. Returns None, then in
    every process, if a prompt is no longer what it was.
    """
    by_slot = {group["slot"]: group for share in shares for group in share["groups"]}
    for group in by_slot.values():
        if group["place"] >= len(prompts) or prompts[group["place"]].token_ids != group["prompt_ids"]:
            return None
    counts = sum((_counts(share) for share in counted), Counts())
    first = shares[0]  # these two are the same in every process
    return Rollout(
        [_group(by_slot[slot], prompts) for slot in slots], counts, first["refilled"], first["lag"]
    )


def _counts(share: dict[str, Any]) -> Counts:
    return Counts(
        events=share["events"],
        reward_seconds=share["reward_seconds"],
        tracebacks=share["tracebacks"],
        waited_for_rewards=share["waited_for_rewards"],
        sampled_tokens=share["sampled_tokens"],
    )


def _group(plain: dict[str, Any], prompts: Sequence[Prompt]) -> ScoredGroup:
    completions = [
        Completion(one["token_ids"], one["logprobs"], one["text"], FinishReason(one["finish_reason"]))
        for one in plain["completions"]
    ]
    return ScoredGroup(plain["slot"], prompts[plain["place"]], completions, RewardResult(**plain["rewards"]))
