"""Trials: a fast way to compute something is tried, compared with the plain way, and left out if it is worse.

There is one criterion. A way's error is its distance from the same computation in float32, as the mean over
positions (tokens) of the root mean square over a position's values, in units of the reference's own root mean
square. The fast way is accepted if

    error(fast) <= max(1.5 error(plain), 1e-4)

- In bfloat16 the question is how far from float32 plain bfloat16 is already. On trained weights no fixed
  bound can tell: outliers make plain bfloat16 differ by a sixth of the logits' standard deviation at its
  worst position. With Qwen2.5-Coder-0.5B-Instruct fast ways were 0.94 to 1.02 times as far as plain bfloat16.
  A position shifted by one, a hidden key and a stale key were 2.6 to 5.2 times as far on random tokens, 1.4
  to 2.0 times on text. The worst position can't tell an error from rounding, the mean can. Both kinds of
  input are tried.
- In float32 the plain way is the reference, and 1e-4 is more than rounding in another order makes of it. With
  SmolLM2-135M-Instruct packed sequences in float32 came within 2e-6, and planted errors began at 0.03. The
  same bound holds in lower precision where the plain way happens to be exact.

The reference is `float32_arithmetic`: the plain code, each operation with its arguments in float32. Weights
in lower precision become float32 for the length of one operation, so no second copy of a model is ever made.

Trials use fixed tokens and fixed seeds and measure no time, so the same weights are judged alike at every
start. Every trial leaves a `Trial`; `trial_report` says what was refused, why, and what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from r1rl.compute.graphs import describe

MOST_ERROR = 1.5
"""The largest error of a fast way, in errors of the plain way."""
ROUNDING = 1e-4
"""The largest error that rounding may make in float32, in root mean squares of the values."""

Outputs = Mapping[str, Tensor]
"""Values [positions, size] by what they are: logits, hidden states, logprobs, gradients."""

Draws = tuple[Tensor, Tensor]
"""Tokens and their log-probabilities [rows, steps]."""

LOW_PRECISION = (torch.bfloat16, torch.float16)
DTYPE_OF: Any = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]


class DifferentResult(Exception):
    """A fast way does not give what the plain one gives; the message is a clause that says how."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The errors of a fast way and of the plain way, against float32, for one kind of value."""

    quantity: str
    fast: float
    plain: float

    @property
    def accepted(self) -> bool:
        """The criterion's answer; it is false for a fast way whose error is not a number."""
        return self.fast <= max(MOST_ERROR * self.plain, ROUNDING)

    def __str__(self) -> str:
        if self.plain == 0:
            return f"{self.quantity} differ from the plain way's by {self.fast:.2g} of their root mean square"
        return (
            f"{self.quantity} are {self.fast / self.plain:.3g} times as far from float32 as the plain way's "
            f"({self.fast:.2g} and {self.plain:.2g} of their root mean square)"
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A fast way that can be left out."""

    name: str
    without: str
    """The beginning of a sentence that says what is done without it: "The policy is not compiled"."""
    cost: str = ""
    """The price of leaving it out, as a clause: "an update takes about 1.4 times as long"; empty: unknown."""

    def refused(self, reason: str) -> Trial:
        """Return the record of a part that is left out for this reason."""
        return Trial(self.name, False, self.without, reason, self.cost)

    def skipped(self, reason: str) -> Trial:
        """Return the record of a part that is not tried, since it would not pay here."""
        return Trial(self.name, False, self.without, reason)

    def judged(self, comparisons: Sequence[Comparison]) -> Trial:
        """Return the record of a part that is accepted if all comparisons are, else refused for the first
        that isn't.
        """
        refused = next((comparison for comparison in comparisons if not comparison.accepted), None)
        reason = "" if refused is None else str(refused)
        return Trial(self.name, refused is None, self.without, reason, self.cost, tuple(comparisons))


@dataclass(frozen=True, slots=True)
class Trial:
    """The record of one part that was tried."""

    part: str
    accepted: bool
    without: str
    reason: str = ""
    """The reason why it was refused, as a clause."""
    cost: str = ""
    comparisons: tuple[Comparison, ...] = ()

    @property
    def line(self) -> str:
        """A sentence that says what was refused, why and at what price; empty if it was accepted."""
        if self.accepted:
            return ""
        return f"{self.without}: {self.reason}{f'; {self.cost}' if self.cost else ''}."


def trial_report(trials: Iterable[Trial]) -> list[str]:
    """Return one line for each trial that was refused."""
    return [trial.line for trial in trials if not trial.accepted]


def trial_records(trials: Iterable[Trial]) -> list[dict[str, Any]]:
    """Return the trials as plain data, for a run's environment.json and summary.json."""
    return [asdict(trial) for trial in trials]


def run_trial(part: Part, judge: Callable[[], Sequence[Comparison]]) -> Trial:
    """Try a part: `judge` computes with it and returns its comparisons, or raises DifferentResult.

    Whatever else it raises refuses the part as well: a kernel is missing, a graph can't be compiled.
    Only OutOfMemoryError is raised on.
    """
    try:
        return part.judged(judge())
    except torch.OutOfMemoryError:
        raise
    except DifferentResult as error:
        return part.refused(str(error))
    except Exception as error:
        return part.refused(describe(error))


class Standard:
    """The reference that fast ways are compared with, and the plain way's distance from it."""

    def __init__(self, compute: Callable[[torch.dtype], Outputs], device: torch.device, dtype: torch.dtype):
        """Take the plain way, `compute(dtype)`, and its reference, `compute(torch.float32)`.

        In exact float32 the plain way is its own reference.
        """
        plain = compute(dtype)
        if is_exact(dtype):
            self.reference = plain
        else:
            with float32_arithmetic(device):
                self.reference = compute(torch.float32)
        self.plain_errors = {name: relative_error(plain[name], self.reference[name]) for name in plain}

    def compare(self, fast: Outputs) -> list[Comparison]:
        """Return the errors of a fast way's values. Raises DifferentResult for another shape."""
        return [
            Comparison(name, relative_error(fast[name], self.reference[name]), plain)
            for name, plain in self.plain_errors.items()
        ]


def relative_error(found: Tensor, reference: Tensor) -> float:
    """Return mean_positions(rms(found - reference)) / rms(reference) of values [positions, size].

    Raises DifferentResult for tensors of different shapes.
    """
    if found.shape != reference.shape:
        raise DifferentResult(f"its result has the shape {[*found.shape]} instead of {[*reference.shape]}")
    rows = 64  # of logits: few enough that their differences are small beside them
    pairs = zip(found.split(rows), reference.split(rows), strict=True)
    distances = [(one.float() - other.float()).square().mean(-1).sqrt() for one, other in pairs]
    size = reference.float().square().mean().sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return (torch.cat(distances).mean() / size).item()


def compare_draws(found: Draws, expected: Draws, tolerance: float) -> None:
    """Raise DifferentResult unless tokens drawn in two ways, and their log-probabilities, agree.

    Rounding may differ, so a token may flip now and then, and what follows it is another completion; but at
    least half of them must be the same, and the log-probabilities of these must agree within the tolerance.
    """
    same_RS = (found[0] == expected[0]).cumprod(1).bool()
    if same_RS.float().mean() < 0.5:
        raise DifferentResult("other tokens are drawn than by the plain way")
    difference = (found[1] - expected[1])[same_RS].abs().max().item()
    if not difference <= tolerance:
        raise DifferentResult(f"log-probabilities differ from the plain way's by {difference:.2g}")


def is_exact(dtype: torch.dtype) -> bool:
    """Return true if matrix products are those of float32."""
    return dtype is torch.float32 and torch.get_float32_matmul_precision() == "highest"


@contextmanager
def float32_arithmetic(device: torch.device) -> Iterator[None]:
    """Compute in real float32 in here, whatever the weights' precision, and leave all settings as they were.

    There is no autocast, no TF32, and attention is written out. An operation takes its arguments of lower
    precision in float32, which is exact; the backward pass makes them float32 again when it needs them.
    """
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    upcasting = Upcasting()
    try:
        with (
            torch.autocast(device.type, enabled=False),
            sdpa_kernel([SDPBackend.MATH]),
            saved_tensors_hooks(upcasting.pack, unpack),
            upcasting,
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


class Upcasting(TorchFunctionMode):
    """Operations with their arguments of lower precision in float32, for the length of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self._originals: dict[int, Tensor] = {}
        """The tensors that the operation in progress has in float32, by the address of that version."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func == DTYPE_OF:  # model code asks its weights for the precision to compute in
            dtype = func(*args)
            return torch.float32 if dtype in LOW_PRECISION else dtype
        if name in ("__get__", "__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__")):
            return func(*args, **kwargs)
        self._originals.clear()
        args, kwargs = tree_map_only(Tensor, self._upcast, (args, kwargs))
        try:
            return func(*args, **kwargs)
        finally:
            self._originals.clear()

    def _upcast(self, tensor: Tensor) -> Tensor:
        if tensor.dtype not in LOW_PRECISION:
            return tensor
        exact = tensor.float()
        self._originals[exact.untyped_storage().data_ptr()] = tensor.detach()
        return exact

    def pack(self, tensor: Tensor) -> Tensor | View:
        """Keep a float32 version for the backward pass as what it was made of."""
        original = self._originals.get(tensor.untyped_storage().data_ptr())
        if original is None:
            return tensor
        return View(original, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))


class View(NamedTuple):
    """A view of a float32 version, kept as the tensor that the version is made of."""

    original: Tensor
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


def unpack(packed: Tensor | View) -> Tensor:
    """Return the tensor that `Upcasting.pack` was given."""
    if isinstance(packed, Tensor):
        return packed
    return packed.original.float().as_strided(packed.size, packed.stride, packed.offset)
