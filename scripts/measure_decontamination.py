"""A measurement of r1rl.data.decontaminate: benchmark problems are planted in a corpus, word for word and
paraphrased.

    python scripts/measure_decontamination.py [--rows 100000] [--planted 100] [--seed 0] [--generated]
    [--list]

It prints the problems of each kind that were found, the false alarms, and the time. --generated uses no
files; --list shows misses and false alarms.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from contamination_corpus import SHARED, make_corpus, read_paraphrases

from r1rl.data.decontaminate import BenchmarkProblem, find_contaminated
from r1rl.select.recipe import DecontaminationConfig


def main() -> None:
    """Make the corpus, search it, and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--planted", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threshold", type=float, default=DecontaminationConfig().threshold)
    parser.add_argument("--generated", action="store_true")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    corpus = make_corpus(options.rows, options.planted, options.seed, None if options.generated else SHARED)
    problems = [
        BenchmarkProblem(name, identity, text)
        for name, own in corpus.benchmarks.items()
        for identity, text in own
    ]
    started, worked = time.perf_counter(), time.process_time()
    matches = find_contaminated(corpus.rows, problems, options.threshold)
    seconds, work = time.perf_counter() - started, time.process_time() - worked
    found = {match.row: match for match in matches}
    wrong = [match for match in matches if match.row not in corpus.exact | corpus.paraphrased]
    kept = sorted(corpus.kept_words)
    print(
        f"{len(corpus.rows)} rows, seed {options.seed}; {len(problems)} benchmark problems of "
        f"{', '.join(corpus.benchmarks)}"
    )
    print(f"exact: {len(corpus.exact & found.keys())} of {len(corpus.exact)}")
    print(
        f"paraphrased: {len(corpus.paraphrased & found.keys())} of {len(corpus.paraphrased)}; of their "
        f"words the problem has"
    )
    low, middle, high = kept[len(kept) // 10], kept[len(kept) // 2], kept[-len(kept) // 10]
    print(f"  {low:.0%} (lowest tenth), {middle:.0%} (median), {high:.0%} (highest tenth)")
    print(f"false alarms: {len(wrong)}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{seconds:.1f} s, {work:.1f} s of processor time, {memory:.2f} GiB at most")
    if not options.generated:
        print_by_hand(corpus.rows, problems, options.threshold)
    if options.list:
        for match in wrong:
            print(
                f"\nfalse alarm, {match.kind} {match.score}: {corpus.rows[match.row]}\n  "
                f"{match.problem.benchmark}: {match.problem.text}"
            )
        for row in sorted((corpus.exact | corpus.paraphrased) - found.keys()):
            print(f"\nmissed: {corpus.rows[row]}")


def print_by_hand(rows: list[str], problems: list[BenchmarkProblem], threshold: float) -> None:
    """Print how many of the paraphrases that were written by hand are found, planted in the same corpus."""
    written = read_paraphrases()
    found = {
        match.row - len(rows) for match in find_contaminated([*rows, *written.values()], problems, threshold)
    }
    print(f"paraphrased by hand: {sum(place in found for place in range(len(written)))} of {len(written)}")
    print(
        f"  missed: {', '.join(name for place, name in enumerate(written) if place not in found) or 'none'}"
    )


if __name__ == "__main__":
    main()
