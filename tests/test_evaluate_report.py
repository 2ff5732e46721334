"""The page report.html: complete, free of the network, safe against models' texts, and working in a real
browser.
"""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from r1rl.evaluation.charts import Point, Series, interval_bar, line_chart
from r1rl.evaluation.report import Evaluated, render_report
from r1rl.evaluation.report_page import SCRIPT
from r1rl.evaluation.results import Result, compare_results
from r1rl.scoring.completions import ScoredCompletion, ScoredProblem, Traits
from r1rl.scoring.figures import figures, problem_rows

EVIL = "</script><img src=x onerror=alert(1)> & \u2028 <b>bold</b>"
FINISH = ["eos", "eos", "length", "eos", "eos"]
OUTCOMES = ["correct", "wrong", "no_answer", "malformed", "timeout"]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")


def evaluated(model: str, step: int | None = None, right: int = 1, run: str | None = None) -> Evaluated:
    problems = []
    for number in range(6):
        outcomes = ["correct"] * right + OUTCOMES[1 : 6 - right]
        samples = [
            ScoredCompletion(
                place,
                f"{EVIL} {model} {number} {place}",
                20 * place + 5,
                FINISH[place],
                None if outcome == "timeout" else outcome == "correct",
                Traits(False, None, None),
                False,
                outcome,
                "7",
            )
            for place, outcome in enumerate(outcomes)
        ]
        problems.append(
            ScoredProblem(
                f"p{number}",
                f"Problem {number} {EVIL}",
                "4",
                "",
                samples,
                {"level": "<1>"},
                votes=((right,), 0, 5 - right),
            )
        )
    manifest = {"measured": {"benchmark": "bench<mark>"}, "model": {"label": model}, "example": EVIL}
    return Evaluated(Result(manifest, figures(problems, 5, 128), problem_rows(problems)), problems, run, step)


@pytest.fixture(scope="module")
def page() -> str:
    ones = [evaluated("base"), evaluated("run-1", 10, 2, "run"), evaluated("run-2", 20, 3, "run")]
    comparisons = [compare_results(ones[0].result, other.result) for other in ones[1:]]
    return render_report("My <report>", ones, comparisons)


class Outline(html.parser.HTMLParser):
    """The tags of a page, what they point to, and the content of its data element."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.data = ""
        self._in_data = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._in_data = tag == "script" and ("id", "data") in attrs

    def handle_data(self, data: str) -> None:
        if self._in_data:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def test_page_is_whole_and_needs_no_network(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    # Nothing that a model wrote has become markup.
    assert not {"img", "link", "iframe", "b"} & set(outline.tags)
    assert outline.tags.count("script") == 2
    assert not [name for name, _ in outline.attributes if name in ("src", "href")]
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttp", page)
    for title in (
        "Scores", "Differences", "What went wrong", "Right and other completions", "Groups",
        "More than one attempt", "Accuracy against the token limit", "Over training steps", "Problems",
        "Completions", "How it was measured",
    ):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    assert "Contamination probe" not in page
    assert page.count('class="problem"') == 6  # one line for each problem, with all models
    assert '>1/5<div class="note">1 wrong, 1 no answer, 1 malformed, 1 timeout; 1 truncated</div>' in page
    assert "My &lt;report&gt;" in page and "bench&lt;mark&gt;: run-1 minus base is +" in page
    rows = json.loads(outline.data)
    assert len(rows) == 3 * 6 * 5
    assert rows[0]["text"] == f"{EVIL} base 0 0" and rows[0]["outcome"] == "correct"
    assert {row["outcome"] for row in rows} == set(OUTCOMES)
    assert sum(row["truncated"] for row in rows) == 18


def test_the_contamination_probe_is_no_score() -> None:
    probe = evaluated("base")
    probe.result.manifest["measured"] |= {"grading": "continuation", "benchmark": "fresh-recited"}
    page = render_report("r", [evaluated("base"), probe], [])
    scores, probes = page.split("<h2>Contamination probe</h2>")
    assert "fresh-recited" not in scores and "<td>fresh-recited</td>" in probes.split("<h2>")[0]
    assert "<h2>Scores</h2>" not in render_report("r", [probe], [])


def test_a_single_model_has_no_curve_and_no_differences() -> None:
    page = render_report("r", [evaluated("base")], [])
    assert "Over training steps" not in page and "Differences" not in page


def test_long_evaluations_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("r1rl.evaluation.report.MAX_COMPLETIONS", 20)
    page = render_report("r", [evaluated("a"), evaluated("b")], [])
    outline = Outline()
    outline.feed(page)
    # Ten of each model: the first two problems, a's five completions beside b's.
    assert [row["model"] for row in json.loads(outline.data)] == [*"aaaaabbbbb"] * 2
    assert "20 of 60 completions" in page


def test_charts_place_their_points() -> None:
    bar = interval_bar({"value": 0.25, "ci95": [0.125, 0.5]})
    assert '<rect width="40.0"' in bar and 'x1="20.0"' in bar and 'x2="80.0"' in bar  # of 160
    assert interval_bar(None) == ""
    points = [Point(32, 0.0, None), Point(64, 0.2, (0.1, 0.4)), Point(128, 0.4, None)]
    chart = line_chart([Series("<a>", points)], "tokens", logarithmic=True)
    # x from 46 to 400 in equal steps of log2; y from 190 (0 %) to 10 (40 %)
    assert 'points="46.0,190.0 223.0,100.0 400.0,10.0"' in chart
    lengths = line_chart([Series("a", [Point(0, 30.0, None), Point(10, 120.0, None)])], "step", percent=False)
    # Of 200.
    assert 'points="46.0,163.0 400.0,82.0"' in lengths and ">200<" in lengths and "a: 120.0 at 10" in lengths
    assert "&lt;a&gt;: 20.0% at 64" in chart and "<a>" not in chart
    assert "nothing was graded" in line_chart([Series("a", [])], "tokens")


FAKE_DOCUMENT = """
const made = {};
const make = () => ({ value: "", checked: false, dataset: {}, children: [], listeners: {},
  append(...c) { this.children.push(...c); }, replaceChildren(...c) { this.children = c; },
  addEventListener(name, f) { this.listeners[name] = f; } });
globalThis.document = { getElementById: id => made[id] ??= make(), createElement: () => make(), body: make(),
  querySelectorAll: () => [made.button] };
made.button = Object.assign(make(), { textContent: "p3", dataset: { benchmark: "bench<mark>" } });
globalThis.Option = class { constructor(text, value) { Object.assign(this, { text, value }); } };
globalThis.location = { hash: HASH };
document.getElementById("data").textContent = DATA;
"""
ASK = """
const state = () => [made.count.textContent, made.completions.children.length];
const log = [state()];
made.next.listeners.click(); log.push(state());
made.outcome.value = "wrong"; made.outcome.listeners.change(); log.push(state());
made.truncated.checked = true; made.truncated.listeners.change(); log.push(state());
made.completions.scrollIntoView = () => {};
made.button.listeners.click(); log.push(state());
console.log(JSON.stringify([made.outcome.children.map(o => o.text), log]));
"""


def run_script(rows: list[dict[str, Any]], fragment: str = "") -> Any:
    program = (
        FAKE_DOCUMENT.replace("HASH", json.dumps(fragment)).replace("DATA", json.dumps(json.dumps(rows)))
        + SCRIPT
        + ASK
    )
    done = subprocess.run(
        [str(NODE), "-e", program.replace('"use strict";', "")], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="needs node")
def test_the_script_filters_and_turns_pages(page: str) -> None:
    outline = Outline()
    outline.feed(page)
    options, log = run_script(json.loads(outline.data))
    assert options == ["all", *sorted(OUTCOMES)]
    # base has 6 of each outcome; run-1 (2 right) and run-2 (3 right) have 6 wrong each: 18 wrong, of which
    # only run-1's
    # third sample (place 2) is cut off, being its first wrong one after two right ones
    assert log[0] == ["90 of 90 completions, page 1 of 5", 20]
    assert log[1] == ["90 of 90 completions, page 2 of 5", 20]
    assert log[2] == ["18 of 90 completions, page 1 of 1", 18]
    assert log[3] == ["6 of 90 completions, page 1 of 1", 6]
    # A click on problem p3: its 5 completions of 3 models.
    assert log[4] == [
        "15 of 90 completions, page 1 of 1",
        15,
    ]
    assert run_script(json.loads(outline.data), "#model=base&words=base+3")[1][0] == [
        "5 of 90 completions, page 1 of 1",
        5,
    ]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(
    ("fragment", "script", "shown", "counted"),
    [
        ("", "", 20, "90 of 90"),
        ("#outcome=wrong&model=base", "", 6, "6 of 90"),
        ("#outcome=timeout", "document.querySelectorAll('button.problem')[2].click();", 15, "15 of 90"),
    ],
    ids=["all", "filtered", "problem"],
)
def test_page_in_a_real_browser(
    page: str, tmp_path: Path, fragment: str, script: str, shown: int, counted: str
) -> None:
    file = tmp_path / "report.html"
    file.write_text(page.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
        profile,
    ]
    done = subprocess.run(
        [str(BROWSER), *options, file.as_uri() + fragment],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert 'data-ready="yes"' in done.stdout
    assert done.stdout.count("<article>") == shown
    assert f"{counted} completions" in done.stdout
    assert "<img" not in done.stdout
