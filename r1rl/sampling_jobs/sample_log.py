"""Completions on disk as they finish, so that an interrupted evaluation loses none of them.

Every process appends to a file of its own and reads the files of all, so an evaluation may go on with another
number of processes. One line is one completion; a line that was cut off by a crash is dropped, and its
completion is sampled again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from r1rl.errors import UserError
from r1rl.types import Sample

PATTERN = "samples-*.jsonl"


class SampleLog:
    """The completions of one model on one benchmark. A context manager; `append` writes one line and hands it
    to the system.
    """

    def __init__(self, folder: Path, process: int) -> None:
        self.folder = folder
        self.path = folder / f"samples-{process:05d}.jsonl"
        self._file: IO[str] | None = None

    def __enter__(self) -> SampleLog:
        self.folder.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(self.path)
        self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, sample: Sample) -> None:
        """Write a completion. A killed process loses nothing that was appended; only a crash of the machine
        may.
        """
        assert self._file is not None, "the log is open inside its with block only"
        try:
            self._file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(
                f"{self.path} can't be written: {reason}. Free the disk and start again: it goes on."
            ) from error

    def read(self) -> dict[tuple[str, int], Sample]:
        """Return the completions of all whole lines in all processes' files."""
        found: dict[tuple[str, int], Sample] = {}
        for path in sorted(self.folder.glob(PATTERN)):
            for sample in _samples(path.read_bytes().split(b"\n")[:-1]):
                found.setdefault(sample.key, sample)
        return found


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """The place of each completion in the files of a folder, for logs that are too large to hold at once."""

    places: dict[tuple[str, int], tuple[Path, int]]
    """The file of each sample, by its key, and the byte at which its line starts."""

    @classmethod
    def of(cls, folder: Path) -> SampleIndex:
        """Index all whole lines of all processes' files. The first one, in the order of the files, counts
        where two have the same key.
        """
        places: dict[tuple[str, int], tuple[Path, int]] = {}
        for path in sorted(folder.glob(PATTERN)):
            start = 0
            with path.open("rb") as file:
                for line in file:
                    for sample in _samples([line] if line.endswith(b"\n") else []):
                        places.setdefault(sample.key, (path, start))
                    start += len(line)
        return cls(places)

    def read(self, keys: Iterable[tuple[str, int]]) -> Iterator[Sample]:
        """Yield the completions of these keys, which must be there, in this order."""
        with ExitStack() as files:
            opened: dict[Path, IO[bytes]] = {}
            for key in keys:
                path, start = self.places[key]
                if path not in opened:
                    opened[path] = files.enter_context(path.open("rb"))
                opened[path].seek(start)
                yield from _samples([opened[path].readline()])


def _samples(lines: Iterable[bytes]) -> Iterable[Sample]:
    for line in lines:
        try:
            record = json.loads(line)
            yield Sample(
                **{
                    **record,
                    "cuts": tuple((tokens, characters) for tokens, characters in record.get("cuts", ())),
                }
            )
        except (ValueError, TypeError, AttributeError):  # the middle of a file on a disk that was full
            continue


def _cut_torn_line(path: Path) -> None:
    """Shorten the file to its last whole line, so that the next one starts on a line of its own."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)


OWN_COLUMNS = (
    "id", "problem", "answer", "prompt", "prefill", "completion", "finish_reason", "tokens", "sample", "seed",
    "model", "round",
)  # fmt: skip
