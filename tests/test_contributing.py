"""The map of the rooms and the two routes in CONTRIBUTING.md agree with the package."""

from __future__ import annotations

import functools
import importlib
import re
from pathlib import Path

import pytest

from tests.test_layers import LAYERS

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROUTES = [
    found.splitlines() for found in re.findall(r"^From a [^\n]*:\n\n((?:\d+\. .*\n(?: .*\n)*)+)", PAGE, re.M)
]
STEPS = [line for route in ROUTES for line in route]


def test_the_map_names_exactly_the_rooms_in_the_order_of_the_layers() -> None:
    mapped = re.findall(r"^\| (\d+) \| `(\w+)` \| (\S.*) \|$", PAGE, re.M)
    assert [(int(layer), room) for layer, room, _ in mapped] == [
        (number, room) for number, rooms in enumerate(LAYERS, 1) for room in rooms
    ]


def test_there_are_two_routes_of_ten_lines() -> None:
    assert [[line.partition(".")[0] for line in route] for route in ROUTES] == [
        [str(number) for number in range(1, 11)] for _ in range(2)
    ]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.partition("`")[2].partition("`")[0])
def test_every_step_of_a_route_names_functions_that_exist(step: str) -> None:
    named = re.findall(r"`(r1rl[\w.]*):([\w.]+)`", step)
    assert named
    for module, path in named:
        assert callable(functools.reduce(getattr, path.split("."), importlib.import_module(module)))
