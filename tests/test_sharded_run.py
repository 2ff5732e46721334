"""Runs under FSDP2, of two processes on the CPU: the same as one process, resumed exactly, and as precise as
they should be.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from run_helpers import newest, prepare, start_two, train, untimed
from safetensors.torch import load_file
from sharded_launch import ENVIRONMENT
from transformers import AutoModelForCausalLM

from r1rl.errors import UserError
from r1rl.runs.checkpoint import check_launch
from r1rl.runs.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("sharded"))


def launch(folder: Path, name: str, *words: str) -> RunDirectory:
    """Run `r1rl grpo` in two processes that share the model out."""
    launcher = (
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        str(Path(__file__).parent / "sharded_launch.py"),
    )
    return start_two(
        "grpo", folder / "recipe.yaml", f"run_name={name}", *words, launcher=launcher, environment=ENVIRONMENT
    )


SETTINGS = (
    "checkpoint.keep=0",
    "algorithm.beta=0.1",
    "algorithm.num_minibatches=2",
    "optimizer.epsilon=1.0e-4",
)
"""The settings of the runs: a reference policy, and an optimizer step for each half of a rollout.

The epsilon is larger, so that rounding in tiny gradients is not scaled up.
"""


@pytest.fixture(scope="module")
def finished(folder: Path) -> RunDirectory:
    """Train four steps in shards."""
    return launch(folder, "sharded", *SETTINGS)


def test_a_sharded_run_equals_one_process(folder: Path, finished: RunDirectory) -> None:
    alone = train(folder, "run_name=alone", *SETTINGS)
    for one, two in zip(untimed(alone), untimed(finished), strict=True):
        assert one == pytest.approx(two, rel=0, abs=2e-6)  # 6.4e-7 was seen, in the entropy
    # The same tensors under the same names: tied weights once.
    expected, found = (load_file(newest(directory) / "model.safetensors") for directory in (alone, finished))
    assert "lm_head.weight" not in expected
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # 3.8e-7 was seen, where training moved weights by 0.071.
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)
    loaded = AutoModelForCausalLM.from_pretrained(newest(finished))
    assert torch.equal(loaded.lm_head.weight, found["model.embed_tokens.weight"])


def test_a_sharded_run_is_resumed_exactly(folder: Path, finished: RunDirectory) -> None:
    shutil.copytree(finished.path, folder / "runs" / "resumed")
    resumed = launch(
        folder,
        "resumed",
        *SETTINGS,
        "--resume",
        str(folder / "runs" / "resumed" / "checkpoints" / "step-000002"),
    )
    assert untimed(resumed) == untimed(finished)
    expected, found = (
        load_file(newest(directory) / "model.safetensors") for directory in (finished, resumed)
    )
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_a_launch_of_the_other_kind_is_told_before_anything_is_touched(
    folder: Path, finished: RunDirectory
) -> None:
    assert (newest(finished) / "training" / "sharded").is_dir()
    with pytest.raises(
        UserError, match=r"saved in shards \(FSDP2\), and this launch keeps it whole.*model\.path="
    ):
        train(folder, "run_name=sharded", "max_steps=5", resume=str(finished.checkpoints / "step-000002"))
    assert newest(finished).name == "step-000004", "nothing was set aside"
    whole = train(folder, "run_name=whole", "max_steps=1", "evaluation.data=null")
    with pytest.raises(UserError, match=r"saved whole, and this launch keeps it in shards"):
        check_launch(newest(whole), sharded=True)


def test_the_loss_is_not_rounded(folder: Path) -> None:
    """The policy of accelerate for FSDP2 would return log-probabilities in bfloat16, and the whole loss would
    be computed in it.
    """
    directory = launch(
        folder, "bfloat16", "model.dtype=bfloat16", "evaluation.data=null", "algorithm.num_iterations=2"
    )
    ratios = torch.tensor([[record["ratio/max"], record["ratio/min"]] for record in directory.read_metrics()])
    assert (ratios != ratios.bfloat16()).all()


@pytest.mark.slow
def test_compiled_layers_can_be_sharded(folder: Path) -> None:
    """Layers are compiled on GPUs if nothing else is asked for."""
    settings = "model.dtype=bfloat16", "evaluation.data=null", "max_steps=2"
    plain, compiled = (
        launch(folder, "plain", *settings),
        launch(folder, "compiled", *settings, "update.compile=true"),
    )
    for one, two in zip(untimed(plain), untimed(compiled), strict=True):
        for name in ("entropy", "grad_norm"):
            assert one[name] == pytest.approx(two[name], rel=0.02)
