"""The normal form of an answer: the same mathematics spelled one way, so that most right answers are equal as
text.

No step changes a value: layout commands are removed, synonyms become one command, Unicode becomes LaTeX. The
result is LaTeX that the tokenizer reads.
"""

# ruff: noqa: RUF001 - the Unicode characters that look like ASCII are what this module replaces

from __future__ import annotations

import re
import unicodedata

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_FRACTION_SLASH = re.compile("(\\d+)\u2044(\\d+)")
_UNICODE_ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z]|(?=[({]))")

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "×": "\\times ", "·": "\\cdot ", "⋅": "\\cdot ", "∙": "\\cdot ",
    "÷": "\\div ", "π": "\\pi ", "∞": "\\infty ", "°": "^{\\circ}", "º": "^{\\circ}", "≤": "\\leq ",
    "⩽": "\\leq ", "≥": "\\geq ", "⩾": "\\geq ", "≠": "\\neq ", "≈": "\\approx ", "±": "\\pm ", "∓": "\\mp ",
    "∪": "\\cup ", "∩": "\\cap ", "∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}",
    "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}", "θ": "\\theta ", "α": "\\alpha ",
    "β": "\\beta ", "γ": "\\gamma ", "λ": "\\lambda ", "μ": "\\mu ", "φ": "\\phi ", "ω": "\\omega ",
    "σ": "\\sigma ", "∠": "\\angle ", "△": "\\triangle ", "…": "\\ldots ", "′": "'", "’": "'", "“": '"',
    "”": '"', "，": ",", "。": ".", "；": ";", "：": ":", "、": ",", "（": "(", "）": ")",
    "％": "%", "∨": "\\lor ",
    "∧": "\\land ", "€": "\\euro ", "£": "\\pounds ", "≡": "\\equiv ", "∼": "\\sim ", "\u200b": "",
    "\ufeff": "", "\u2061": "",
}  # fmt: skip
_UNICODE_TABLE = str.maketrans(_UNICODE)

# These commands only lay out; those that stand for a space become a space.
_LAYOUT = frozenset(
    [
        "left", "right", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr",
        "Biggl", "Biggr", "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "middle", "rm",
        "bf", "it", ",", "!", "notag", "nonumber", "hfill", "mathbf", "mathit", "boldsymbol", "bm",
    ]
)  # fmt: skip
_SPACES = frozenset(
    ["quad", "qquad", " ", ";", ":", ">", "enspace", "thinspace", "\n", "newline", "hspace", "\\ "]
)
_SYNONYMS = {
    "dfrac": "\\frac", "tfrac": "\\frac", "cfrac": "\\frac", "dbinom": "\\binom", "tbinom": "\\binom",
    "le": "\\leq", "leqslant": "\\leq", "ge": "\\geq", "geqslant": "\\geq", "ne": "\\neq", "lt": "<",
    "gt": ">", "$": "", "%": "%", "&": "&", "#": "#", "_": "_", "lbrace": "\\{", "rbrace": "\\}",
    "lbrack": "[", "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|", "ast": "\\cdot",
    "bullet": "\\cdot", "varnothing": "\\emptyset", "degree": "^{\\circ}", "dots": "\\ldots",
    "cdots": "\\ldots", "dotsc": "\\ldots", "textdollar": "", "textdegree": "^{\\circ}", "land": "\\land",
    "wedge": "\\land", "vee": "\\lor", "varphi": "\\phi", "varepsilon": "\\epsilon", "vartheta": "\\theta",
    "overrightarrow": "\\vec", "overline": "\\bar", "minus": "-", "colon": ":", "backslash": "\\setminus",
    "infin": "\\infty", "to": "\\to", "rightarrow": "\\to", "lparen": "(", "rparen": ")", "langle": "(",
    "rangle": ")", "R": "\\mathbb{R}", "reals": "\\mathbb{R}", "percent": "%", "lg": "\\log", "tg": "\\tan",
    "ctg": "\\cot", "arctg": "\\arctan",
}  # fmt: skip
_TEXT_COMMANDS = frozenset(
    [
        "text", "textbf", "textit", "textrm", "textsf", "texttt", "textnormal", "mathrm", "mathsf", "mathtt",
        "mathnormal", "mbox", "hbox", "operatorname", "emph", "underline",
    ]
)  # fmt: skip

_COMMAND = re.compile(r"\\([A-Za-z]+\*?|.|\n)(\s*)", re.DOTALL)
_DELIMITER = re.compile(r"\\(?:left|right)\s*\.(?!\d)")
_NAMED_SPACE = re.compile(r"\\[hv]space\*?\s*\{[^{}]*\}")
_BRACED_COMMA = re.compile(r"(?<=\d)\{\s*,\s*\}(?=\s*\d)")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?: \d{3})+)(?!\d)")
_THIN_SPACED = re.compile(r"(?<=\d)(,?)\\[,!]\s*(?=\d{3}(?!\d))")
_SPACES_RUN = re.compile(r"\s+")
_LEAD = re.compile(
    r"^(?:\\text ?\{\s*)?(?:(?:so|thus|hence|therefore)[, ]+)?(?:the\s+)?(?:(?:final|correct|right)\s+)?"
    r"(?:answer|solution|result)\s*(?:is|are|[:=])\s*:?\s*(\}\s*)?",
    re.IGNORECASE,
)


def _unify(match: re.Match[str]) -> str:
    name, space = match.group(1), match.group(2)
    if name in _LAYOUT:
        return space
    if name in _SPACES:
        return " "
    if name in _SYNONYMS:
        return _SYNONYMS[name] + space
    if name in _TEXT_COMMANDS:
        return "\\text" + space
    return "\\" + name + space


def _from_unicode(text: str) -> str:
    text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m.group().translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m.group().translate(_SUBSCRIPTS) + "}", text)
    text = _UNICODE_ROOT.sub(lambda m: "\\sqrt{" + m.group(1) + "}" if m.group(1) else "\\sqrt", text)
    text = text.translate(_UNICODE_TABLE)
    if text.isascii():
        return text
    text = _FRACTION_SLASH.sub(r"\\frac{\1}{\2}", unicodedata.normalize("NFKC", text))
    return text.translate(_UNICODE_TABLE)


def clean(text: str) -> str:
    """Return the normal form of an answer's LaTeX, which is empty if the answer is nothing but layout."""
    if not text.isascii():
        text = _from_unicode(text)
    if "\\" in text:
        if "\\begin" not in text:
            # Doubled backslashes of a badly escaped file; in a matrix they end a row.
            text = text.replace("\\\\", "\\")
        text = _DELIMITER.sub("", text)
        text = _NAMED_SPACE.sub(" ", text)
        text = _THIN_SPACED.sub(r"\1", text)
        text = text.replace("\\(", " ").replace("\\)", " ").replace("\\[", " ").replace("\\]", " ")
        text = _COMMAND.sub(_unify, text)
    if "$" in text:
        text = text.replace("$", "")
    if "*" in text and text.startswith("**") and text.endswith("**"):
        text = text.strip("*")
    if "{" in text:
        text = _BRACED_COMMA.sub(",", text)
    text = _SPACES_RUN.sub(" ", text.replace("~", " ")).strip()
    lead = _LEAD.match(text)
    if lead and lead.group().startswith("\\text") == bool(lead.group(1)):
        text = text[lead.end() :]
    while text and text[-1] in ".,;:\\":
        text = text[:-1].rstrip()
    if " " in text:
        text = _SPACED_THOUSANDS.sub(lambda m: m.group().replace(" ", ""), text)
    return text


_KEY_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_KEY_SPACES = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_KEY_BRACES = re.compile(r"\{([A-Za-z0-9])\}")
_NOT_LETTERS = re.compile(r"[\W_]+")
_NOT_LETTERS_OR_SIGNS = re.compile(r"[^\w.:+\-/]+|\.(?!\d)")


def text_key(cleaned: str) -> str:
    """Return the text that two equal answers share: the normal form without spaces, text commands and idle
    braces.
    """
    return _KEY_BRACES.sub(r"\1", _KEY_SPACES.sub("", _KEY_TEXT.sub(r" \1 ", cleaned).rstrip(" .")))


def words_key(words: str) -> str:
    """Return the text that two equal answers in words share: the letters in lower case, beside digits also
    signs, points and colons.
    """
    words = words.lower()
    drop = _NOT_LETTERS_OR_SIGNS if any(char.isdigit() for char in words) else _NOT_LETTERS
    return drop.sub("", words) or words.strip()
