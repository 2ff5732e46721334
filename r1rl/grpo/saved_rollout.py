"""A rollout as plain values that `torch.load(weights_only=True)` reads, and back. Floats come back to the
last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from r1rl.grpo.collect import Collected, ScoredGroup
from r1rl.rewards import RewardResult
from r1rl.types import Completion, FinishReason, Prompt

COUNTERS = ("reward_seconds", "tracebacks", "waited_for_rewards", "refilled", "sampled_tokens", "lag")
"""What a `Collected` holds besides its groups and its events."""


def as_plain(collected: Collected, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """One process's rollout; `prompts` are those of the run, in which the groups' are named by their place."""
    places = {id(prompt): place for place, prompt in enumerate(prompts)}
    return {
        **{name: getattr(collected, name) for name in COUNTERS},
        "events": dict(collected.events),
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
            for group in collected.groups
        ],
    }


def from_plain(
    shares: Sequence[dict[str, Any]],
    slots: Sequence[int],
    counted: Sequence[dict[str, Any]],
    prompts: Sequence[Prompt],
) -> Collected | None:
    """The groups in these slots, from the shares of all processes that saved, with the counters of the shares
    `counted`: each share must count in one process. None, then in every process, if a prompt is no longer
    what it was.
    """
    by_slot = {group["slot"]: group for share in shares for group in share["groups"]}
    for group in by_slot.values():
        if group["place"] >= len(prompts) or prompts[group["place"]].token_ids != group["prompt_ids"]:
            return None
    collected = Collected(groups=[_group(by_slot[slot], prompts) for slot in slots])
    collected.refilled, collected.lag = shares[0]["refilled"], shares[0]["lag"]  # the same in every process
    for share in counted:
        collected.events.update(share["events"])
        collected.tracebacks = {**share["tracebacks"], **collected.tracebacks}
        collected.waited_for_rewards += share["waited_for_rewards"]
        collected.sampled_tokens += share["sampled_tokens"]
        for name, seconds in share["reward_seconds"].items():
            collected.reward_seconds[name] = collected.reward_seconds.get(name, 0.0) + seconds
    return collected


def _group(plain: dict[str, Any], prompts: Sequence[Prompt]) -> ScoredGroup:
    completions = [
        Completion(one["token_ids"], one["logprobs"], one["text"], FinishReason(one["finish_reason"]))
        for one in plain["completions"]
    ]
    return ScoredGroup(plain["slot"], prompts[plain["place"]], completions, RewardResult(**plain["rewards"]))
