"""The detection of reflection: the model questions, checks or redoes its own work.

The metric `reflection/rate` counts it. Word lists of this kind are reported by Open-Reasoner-Zero (arXiv
2503.24290, section 3: "wait", "recheck", "retry", "alternatively") and Oat (Liu et al., "There may not be aha
moment", appendix: "recheck", "rethink", "check again", ...). Words that also occur in plain solutions
("however", "try", "so") don't count here, nor do the same words in another sense ("a check for $50", "she
waits for 3 hours").
"""

# ruff: noqa: RUF001 (other scripts and typography are the matter of this file)

from __future__ import annotations

import re

_START = r"(?:^|[.!?:;,\n(\"“—–-]\s{0,4}|\b(?:but|oh|no|hmm+|so|okay|ok|and|then)[,.]?\s{1,4})"
"""The start of a sentence, a clause or a line."""

_ENGLISH = (
    # wait, ... / no. wait, ...; not: "wait for", "wait 3 hours"
    _START + r"wait\b(?!\s{1,4}(?:for|until|till|to|in|on|at|time|list|\d)\b|\s{0,4}\d)",
    r"\b(?:hold on|on second thought|think again|try again|start over|come to think of it|aha)\b",
    # check: yes / let's check / to check / check that ... / checking: ...
    # not: "a check for $50", "checked bags"
    r"\b(?:re-?|double[- ]?|cross[- ]?)check(?:s|ed|ing)?\b",
    r"\bcheck(?:ing)?\s{0,4}[:?]",
    r"\b(?:let'?s|let me|let us|i(?:'ll| will| should| must| need to| can| want to)|we(?:'ll| will| should| "
    r"must| need to| can)|to)"
    r"(?:\s{1,4}(?:now|just|quickly|also|first))?\s{1,4}check\b",
    _START + r"check(?:ing)?\s{1,4}(?:again|this|that|it|if|whether|by|our|my)\b",
    _START + r"check(?:ing)?\s{1,4}the\s{1,4}"
    r"(?:answer|result|solution|work|sum|product|calculation|equation|steps?)\b",
    r"\bsanity[- ]check",
    r"\b(?:re-?)?verif(?:y|ying|ies|ication)\b",
    r"\bre-?(?:think|assess|evaluat|examin|consider|analy[sz]|calculat|comput|count|try|visit|work)",
    r"\bre-?do(?:ing)? (?:this|that|the|it)\b",
    r"\blet me (?:see again|re-?read|redo|correct|fix|look again|go back)\b",
    # no, that's wrong / that's not right / I made a mistake
    _START
    + r"no(?:,\s{0,4}(?:wait|that|this|it|actually|i\b|let|not|but)|[.!]\s{0,4}(?:wait|that'?s|this is)\b)",
    r"\b(?:that|this|it)(?:'s| is| can'?t be) (?:not (?:right|correct)|wrong|incorrect|a mistake)\b",
    r"\bdoes(?:n't| not) (?:seem|look) right\b",
    r"\b(?:can'?t|cannot) be (?:right|correct)\b",
    r"\bi (?:made|must have made|see) (?:a|an|my) (?:mistake|error|slip)\b"
    r"|\bi was wrong\b|\bmy mistake\b|\boops\b",
    _START + r"(?:actually|hmm+|alternatively)\b",
)
_CHINESE = (
    r"(?<!\w)查[:：]|等等|等一下|等一等|慢着|且慢|不对|不，我|检查|验证|核对|验算|复查|反思|重新(?:计算|检查|考虑|审视|思考|算|看|推导)"
    "|再(?:检查|算|想|看|验证|核对|确认)|回头(?:看|检查)|让我(?:再|重新|确认|看看)|我(?:算|弄|搞|想)错了|哪里(?:错|出)了"
)
_REFLECTION = re.compile("|".join((*_ENGLISH, _CHINESE)), re.IGNORECASE)


def reflects(text: str) -> bool:
    """Return whether the text questions, checks or redoes its own work at least once."""
    return _REFLECTION.search(text.replace("’", "'")) is not None


def count_reflections(text: str) -> int:
    """Return the number of times that the text questions, checks or redoes its own work."""
    return sum(1 for _ in _REFLECTION.finditer(text.replace("’", "'")))
