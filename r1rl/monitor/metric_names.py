"""The names of the metrics, each in one place. They are TRL's where TRL has the metric.

Every metric is a mean over the step's whole batch unless its comment says otherwise.
"""

from __future__ import annotations

STEP = "step"

REWARD = "reward"  # weighted sum of the rewards, over completions
REWARD_STD = "reward_std"  # standard deviation within a group, over groups
ACCURACY = "accuracy"  # the outcome, over completions that have one
FRAC_REWARD_ZERO_STD = "frac_reward_zero_std"  # groups whose rewards are all equal
# The rollouts trained since the weights that sampled: 0, or 1 for a rollout that was sampled ahead
# (one_step_off).
LAG = "rollout/lag"
REFILLED_GROUPS = "dynamic_sampling/refilled"  # groups that were replaced by fresh prompts, a count

MEAN_LENGTH = "completions/mean_length"  # tokens, EOS included
NUM_COMPLETIONS = "completions/number"  # a count; only by the values of a column
CLIPPED_RATIO = "completions/clipped_ratio"  # completions cut off at max_completion_length
REFLECTION_RATE = "reflection/rate"  # completions that question, check or redo their work
LANGUAGE_CONSISTENCY = "language/consistency"  # share of a completion's words that are of its main language

# In nats per token of the sampled distribution, over the tokens that were trained (see TRAINED_SHARE).
ENTROPY = "entropy"
KL = "kl"  # KL divergence from the reference, per trained token
CLIP_RATIO_LOW = "clip_ratio/low_mean"  # tokens whose ratio was clipped from below
CLIP_RATIO_HIGH = "clip_ratio/high_mean"  # ... from above
LOSS = "loss"  # sft: nats per trained token; reward-model: -log sigmoid of the margin, over pairs
TOKEN_ACCURACY = "token_accuracy"  # trained tokens that the model finds likeliest
PAIR_ACCURACY = "pair_accuracy"  # pairs whose chosen answer scores higher
PAIR_MARGIN = "pair_margin"  # score of the chosen answer minus that of the rejected one
TOKENS = "tokens"  # tokens that were forwarded, prompts included
GRAD_NORM = "grad_norm"  # norm of the gradient before clipping
LEARNING_RATE = "learning_rate"
TRAINED_SHARE = "update/trained_share"  # sequences that were forwarded: the others can't change the gradient
SKIPPED_UPDATES = "update/skipped"  # optimizer steps left out because their gradient was not finite
LOGPROB_DIFF_MEAN = "sampler/logprob_diff_mean"  # |trainer - sampler|, over tokens
LOGPROB_DIFF_MAX = "sampler/logprob_diff_max"  # maximum of |trainer - sampler|
CAPPED_SHARE = "sampler/capped_mean"  # tokens whose importance weight was capped

LOSS = "loss"  # distillation: what is minimised, over completion tokens as the recipe weighs them
LOSS_ON_POLICY = "loss/on_policy"  # its divergence, per token of completions that the student wrote
LOSS_OFF_POLICY = "loss/off_policy"  # ... of those from the file
# KL(teacher || student) in nats per completion token, whichever divergence is trained.
FORWARD_KL = "divergence/forward_kl"
REVERSE_KL = "divergence/reverse_kl"  # KL(student || teacher)
JSD = "divergence/jsd"  # Jensen-Shannon divergence with beta 1/2: at most ln 2
AGREEMENT = "agreement"  # completion tokens at which student and teacher have the same likeliest token
TEACHER_ENTROPY = "teacher/entropy"  # nats per completion token; ENTROPY is the student's

TIME_ROLLOUT = (
    "time/rollout"  # seconds of the slowest process, as all times; sampling that the update hid is not in it
)
# The seconds of sampling and grading beside the update (one_step_off), which are in no other phase.
TIME_ROLLOUT_HIDDEN = "time/rollout_hidden"
TIME_REWARD = "time/reward"
TIME_UPDATE = "time/update"
TIME_STEP = "time/step"
TOKENS_PER_SECOND = (
    "tokens_per_second"  # completion tokens that were sampled, those of replaced groups too, over time/step
)


def reward_mean(name: str) -> str:
    """Return the name of one reward's mean, before its weight, over the completions to which it applies."""
    return f"rewards/{name}/mean"


def by_value(column: str, value: object, name: str) -> str:
    """Return the name of a metric over the rows whose column has this value, such as
    domain/helpfulness/reward.
    """
    return f"{column}/{value}/{name}"
