"""Write requirements-dev.lock: the versions that `pip install -e ".[dev]"` has installed in this environment.

`make lock` runs it. The file lists every package that r1rl's dependencies and its extra `dev` lead to, and
nothing else that may be installed. It has no hashes, addresses or local version suffixes, so that one file
serves builds of torch for CPUs and for GPUs. What torch pins itself (NVIDIA's libraries, triton) is left out.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements-dev.lock"
HEADER = """\
# The versions that r1rl is developed and tested with, written by `make lock`. To install exactly these:
#   make test PIP_ARGS="-c requirements-dev.lock"
"""
PINNED_BY_TORCH = ("nvidia-", "cuda-", "triton")
"""Beginnings of names that torch's own metadata pins, different for each of its builds."""


def declared() -> Iterator[Requirement]:
    """Yield the requirements of pyproject.toml: the dependencies and the extra `dev`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in (*project["dependencies"], *project["optional-dependencies"]["dev"]):
        yield Requirement(line)


def locked() -> dict[str, str]:
    """Return the installed version of every package that the declared requirements lead to, by its name."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, extra) for requirement in declared() for extra in ("", *requirement.extras)]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen or name.startswith(PINNED_BY_TORCH):
            continue
        seen.add((name, extra))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise SystemExit(f'{name} is not installed: run pip install -e ".[dev]" first.') from None
        versions[name] = Version(found.version).public
        for needed in map(Requirement, found.requires or ()):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(needed, inner) for inner in ("", *needed.extras)]
    return versions


def main() -> int:
    """Write the lock file."""
    lines = [f"{name}=={version}\n" for name, version in sorted(locked().items())]
    LOCK.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{LOCK.name}: {len(lines)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
