"""Learning curves of the fast path and of the reference path, side by side.

    python scripts/compare_learning_curves.py --steps 24 --seeds 0 1 2

The fast path is the recipe's own: the native engine and packed sequences. The reference path samples with
transformers' generate and trains padded sequences. Both draw from the same random streams, so a seed starts
with the same completions; after the first updates rounding makes them differ. The curves should agree: the
table shows, for windows of steps, the mean reward of each path over the seeds, the spread of the seeds
(standard deviation), and the difference of the paths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from r1rl.runs.run_directory import RunDirectory

RECIPE = Path(__file__).parent.parent / "recipes" / "zero_rl" / "tiny.yaml"
PATHS = {
    "fast": ["rollout.engine=native", "update.layout=packed"],
    "reference": ["rollout.engine=transformers", "update.layout=padded", "update.share_prompts=false"],
}
QUIET = [
    "logging.live=false",
    "logging.completions_every=0",
    "evaluation.data=null",
    "evaluation.every_steps=0",
    "checkpoint.every_steps=0",
]


def rewards_of(path: str, seed: int, steps: int, folder: Path) -> list[float]:
    """Return the mean reward of each step; a run that is there already is read."""
    name = f"{path}-{seed}"
    directory = RunDirectory(folder / name)
    if len(directory.read_metrics()) < steps:
        overrides = [
            f"run_name={name}",
            f"output_dir={folder}",
            f"seed={seed}",
            f"max_steps={steps}",
            *PATHS[path],
            *QUIET,
        ]
        command = [sys.executable, "-m", "r1rl", "grpo", str(RECIPE), *overrides]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [float(record["reward"]) for record in directory.read_metrics()][:steps]


def main() -> None:
    """Run both paths for all seeds and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--window", type=int, default=6)
    parser.add_argument("--folder", type=Path, default=Path("runs/learning-curves"))
    options = parser.parse_args()
    curves = {
        path: [rewards_of(path, seed, options.steps, options.folder) for seed in options.seeds]
        for path in PATHS
    }
    print("| steps | fast | reference | difference | spread of seeds |\n|---|---|---|---|---|")
    for first in range(0, options.steps, options.window):
        windows = {
            path: [statistics.mean(curve[first : first + options.window]) for curve in curves[path]]
            for path in PATHS
        }
        fast, other = (statistics.mean(windows[path]) for path in PATHS)
        spread = statistics.mean(statistics.stdev(values) for values in windows.values())
        last = min(first + options.window, options.steps)
        print(f"| {first + 1} to {last} | {fast:.3f} | {other:.3f} | {fast - other:+.3f} | {spread:.3f} |")
    print(json.dumps(curves))


if __name__ == "__main__":
    main()
