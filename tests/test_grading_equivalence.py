"""Equal and unequal answers: tables of facts, one per kind of answer, and inputs that must neither raise nor
hang.
"""

# ruff: noqa: RUF001 - characters that look like ASCII are part of the cases

from __future__ import annotations

import random
import time
from fractions import Fraction

import pytest

from r1rl.grading import Outcome, Stage, grade
from r1rl.grading.evaluate import Evaluator, TooLargeError, exact
from r1rl.grading.expression import parse
from r1rl.grading.identity import same_up_to_factor, same_value
from r1rl.grading.normalize import clean
from r1rl.grading.tokens import UnreadableError
from r1rl.grading.units import split_unit

PATIENCE = 30.0
"""Seconds: these tests are about verdicts, on machines that may be busy."""

NUMBERS_EQUAL = [
    ("\\frac{1}{2}", ".5"),
    ("\\frac{1}{2}", "0.50"),
    ("\\frac12", "2/4"),
    ("1000", "1,000"),
    ("1,000", "1000"),
    ("1000", "1 000"),
    ("7425", "7,\\!425"),
    ("1300", "1\\,300"),
    ("1100", "1{,}100"),
    ("1000", "1,000.0"),
    ("73", "073"),
    ("12", "１２"),
    ("0.001", "10^{-3}"),
    ("120000", "1.2\\times10^{5}"),
    ("1e5", "100000"),
    ("1.45e-5", "1.45 \\cdot 10^{-5}"),
    ("5", "5."),
    ("5", " 5 "),
    ("5", "$5$"),
    ("5", "\\displaystyle 5"),
    ("5", "\\mathbf{5}"),
    ("5", "\\textbf{5}"),
    ("5", "\\frac{10}{2}"),
    ("-\\frac{3}{8}", "\\frac{-3}{8}"),
    ("-1", "−1"),
    ("1", "0.\\overline{9}"),
    ("\\frac{1}{6}", "0.1\\overline{6}"),
    ("3.5", "3\\frac12"),
    ("12.6", "12\\frac{3}{5}"),
    ("3.5", "3 1/2"),
    ("-1.5", "-1\\frac{1}{2}"),
    ("2^{10}", "1024"),
    ("5!", "120"),
    ("\\binom{5}{2}", "10"),
    ("8^{2/3}", "4"),
    ("1+2", "3"),
    ("½", "0.5"),
    ("0", "-0"),
    ("0", "0.0"),
    ("1.5", "1,5"),
    ("2", "two"),
    ("5", "5=5"),
    ("7", "\\text{The answer is }7"),
    ("\\sqrt{16}", "4"),
    ("\\gcd(12,18)", "6"),
    ("\\lfloor 3.7 \\rfloor", "3"),
]
NUMBERS_DIFFERENT = [
    ("5", "6"),
    ("5", "-5"),
    ("1000", "10,00"),
    ("5", "5.0000001"),
    ("5", "4.9999999"),
    ("1", "0.9999999999"),
    ("0", "1e-10"),
    ("0.33", "0.34"),
    ("1/2", "2/1"),
    ("31/2", "3 1/2"),
    ("3.89e-10", "4.89e-10"),
    ("98721", "98712"),
    ("0.5", "51/100"),
    ("1.5", "15"),
    ("1", "True"),
    ("5", "None"),
    ("5", "nan"),
    ("5", "inf"),
    ("5", "\\ldots"),
    ("5", ""),
    ("5", "x"),
    ("7", "lambda: 7"),
    ("7", "__import__('os')"),
    ("5", "five six"),
]
HEDGES = [
    ("5", "5 or 6"),
    ("5", "5, 6"),
    ("5", "5;6"),
    ("5", "\\{5,6\\}"),
    ("5", "[4,6]"),
    ("5", "4<x<6"),
    ("5", "5 \\pm 1"),
    ("5", "5=6"),
    ("6", "5=6"),
    ("7", "5=6=7"),
    ("5", "not 5"),
    ("5", "5 (or 6)"),
    ("5", "\\text{5 or 6}"),
    ("5", "5\\text{ (or possibly 6)}"),
    ("5", "x+y=5"),
    ("5", "2x=5"),
    ("5", "x>5"),
    ("B", "A or B"),
    ("A", "(A) or (B)"),
    ("A", "A. B"),
    ("B", "B or C"),
    ("B", "B, C"),
    ("\\text{yes}", "yes or no"),
    ("7", "7 and 8"),
    ("3", "\\pm 3"),
    ("1,2", "1,2,3"),
    ("x=2", "x=2 \\text{ or } x=3"),
]
ROUNDING_EQUAL = [
    ("\\frac{1}{3}", "0.333333"),
    ("\\frac{8}{63}", "0.1269841270"),
    ("2\\sqrt{3}", "3.4641016"),
    ("\\pi", "3.141593"),
    ("\\pi", "3.141592"),
    ("3.14", "\\pi"),
    ("0.333", "1/3"),
    ("1.41421", "\\sqrt{2}"),
    ("0.577", "\\frac{\\sqrt{3}}{3}"),
]
ROUNDING_DIFFERENT = [
    ("\\pi", "3.14"),
    ("2\\sqrt{3}", "3.4641"),
    ("2\\sqrt{3}", "3.4641017"),
    ("12\\pi", "37.7"),
    ("\\frac{22}{7}", "\\pi"),
    ("\\frac{1}{3}", "0.33"),
    ("3.14", "\\frac{157}{51}"),
    ("0.34", "1/3"),
    ("\\sqrt{2}", "1.4142145"),
]
UNITS_EQUAL = [
    ("15\\text{ cm}", "15"),
    ("15", "15cm"),
    ("15", "15 \\text{ cm}^2"),
    ("15\\text{ cm}", "15 \\text{ centimeters}"),
    ("18", "\\$18"),
    ("\\$18.90", "18.90"),
    ("18", "18 dollars"),
    ("\\$1,000", "1000 dollars"),
    ("24\\text{ hours}", "24 hour"),
    ("50\\%", "0.5"),
    ("50\\%", "50"),
    ("10", "10\\%"),
    ("0.1", "10\\%"),
    ("28\\%", "28 percent"),
    ("20\\%", "1/5"),
    ("30", "30^\\circ"),
    ("90^\\circ", "90°"),
    ("30^\\circ", "30 degrees"),
    ("\\frac{\\pi}{4}", "45^\\circ"),
    ("5^{\\circ}C", "5"),
    ("11 \\mathrm{~m}", "11"),
    ("210\\text{ ways}", "210"),
    ("350,000 pages", "350000"),
    ("60 \\text{ miles per hour}", "60 \\text{ mi}/\\text{h}"),
    ("5\\text{ apples}", "5"),
]
UNITS_DIFFERENT = [
    ("15\\text{ cm}", "15 m"),
    ("5\\text{ apples}", "5 oranges"),
    ("\\$5", "5 euros extra 6"),
    ("50\\%", "5"),
    ("50\\%", "5000\\%"),
    ("0.75", "75"),
    ("10", "0.1"),
    ("15\\text{ cm}^2", "15\\text{ cm}^3"),
    ("\\text{cm}", "\\text{m}"),
    ("30^\\circ", "31^\\circ"),
    ("2a", "2"),
    ("\\text{-5 apples}", "\\text{5 apples}"),
]
ALGEBRA_EQUAL = [
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("2\\sqrt{3}", "2\\sqrt3"),
    ("2\\sqrt{3}", "2√3"),
    ("3\\sqrt{13}", "3*sqrt(13)"),
    ("2\\sqrt{10}", "2\\cdot 10^{1/2}"),
    ("\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt{3}}"),
    ("\\sqrt{2}+\\sqrt{3}", "\\sqrt{5+2\\sqrt{6}}"),
    ("12\\pi", "12pi"),
    ("2\\pi", "2\\cdot\\pi"),
    ("x^2-1", "(x-1)(x+1)"),
    ("x^2+2x+1", "(x+1)^2"),
    ("x^{2}", "x**2"),
    ("x^2", "x²"),
    ("2x+3", "3+2x"),
    ("p - q", "-q + p"),
    ("ab", "ba"),
    ("\\frac{x+1}{x}", "1+\\frac{1}{x}"),
    ("n(n+1)/2", "\\frac{n^2+n}{2}"),
    ("\\tan^2(y)+1", "\\sec^2(y)"),
    ("\\sin(90^{\\circ}-x)", "\\cos x"),
    ("\\ln(ab)", "\\ln a+\\ln b"),
    ("\\log_2 8", "3"),
    ("\\log 100", "2"),
    ("e^{i\\pi}", "-1"),
    ("3+4i", "4i+3"),
    ("i^2", "-1"),
    ("2 \\sin b \\cos a", "2\\cos(a)\\sin(b)"),
    ("\\cos \\theta_1", "\\cos\\theta _1"),
    ("\\frac{1}{2}x", "\\frac{x}{2}"),
    ("e^{2x}", "\\exp(2x)"),
    ("\\binom{n}{2}", "\\frac{n(n-1)}{2}"),
    ("\\sin^{-1}(x)", "\\arcsin x"),
    ("\\vec{a}+2\\vec{b}", "2\\overrightarrow{b}+\\overrightarrow{a}"),
    ("x \\sqrt[3]{y}", "x y^{1/3}"),
    ("f(2x)+1", "1+f(2x)"),
    ("|x-1|", "|1-x|"),
]
ALGEBRA_DIFFERENT = [
    ("2\\sqrt{3}", "2"),
    ("\\sqrt[3]{2}", "\\sqrt{2}"),
    ("|x|", "x"),
    ("\\sqrt{x^2}", "x"),
    ("\\frac{a}{b}", "\\frac{b}{a}"),
    ("i", "-i"),
    ("i", "j"),
    ("x^2+2x+1", "x^2+2x+2"),
    ("\\frac{1}{2004!}", "\\frac{2}{2004!}"),
    ("\\binom{2n}{n}", "\\binom{3n}{n}"),
    ("x_0", "x_1"),
    ("e^{-2t}", "e^{-3t}"),
    ("\\frac{4^{2024}}{\\binom{4048}{2024}}-2", "\\frac{4^{2024}}{\\binom{4048}{2024}}+2"),
    ("f(x)", "fx"),
    ("\\sin x", "\\cos x"),
    ("c_1 e^x", "c_2 e^x"),
]
STRUCTURES_EQUAL = [
    ("(1,2)", "\\left(1,2\\right)"),
    ("(1,2)", "1,2"),
    ("(x,y)=(1,2)", "(1,2)"),
    ("(x,y)=(1,2)", "x=1,y=2"),
    ("x=1,y=2", "y=2,x=1"),
    ("x=1,x=2", "2,1"),
    ("x=0, \\frac{2\\pi}{3}", "\\frac{2\\pi}{3}, 0"),
    ("1,2,3", "3, 1, 2"),
    ("1,2", "\\{2,1\\}"),
    ("19, 46, and 82", "19, 46, \\text{ and } 82"),
    ("36,36,108", "108, 36, 36"),
    ("100,200", "200, 100"),
    ("\\pm 2", "2,-2"),
    ("3,-3", "x=\\pm 3"),
    ("1 \\pm \\sqrt{19}", "1-\\sqrt{19}, 1+\\sqrt{19}"),
    ("(1,2),(3,4)", "(3,4),(1,2)"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
    ("\\emptyset", "\\{\\}"),
    ("\\emptyset", "∅"),
    ("\\{1,2,3\\}", "\\{1,2\\}\\cup\\{2,3\\}"),
    ("[0,1)", "x\\in[0,1)"),
    ("x\\in[0,1)", "0\\le x<1"),
    ("(0,1)", "0<x<1"),
    ("x>5", "(5,\\infty)"),
    ("x>5", "5<x"),
    ("-x>-1", "x<1"),
    ("(-\\infty, 2]", "x \\le 2"),
    ("(-\\infty,2)\\cup(3,\\infty)", "x<2\\text{ or }x>3"),
    ("x \\ne 3", "(-\\infty,3)\\cup(3,\\infty)"),
    ("\\mathbb{R}", "(-\\infty,\\infty)"),
    ("(-\\infty,2]", "]-\\infty;2]"),
    ("[1,2]\\cup[3,4]", "[3,4] \\cup [1,2]"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,2)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix}1&\\frac42\\\\3&4\\end{bmatrix}"),
    ("3:4", "6:8"),
    ("3:4", "\\frac{3}{4}"),
    ("12:30", "12:30"),
    ("y=2x", "2x"),
    ("y=2x", "x=y/2"),
    ("f(x)=2x+3", "y=2x+3"),
    ("2x+3y=6", "4x+6y=12"),
    ("y=3x+2", "y-3x-2=0"),
    ("34x+45y-20z+100=0", "-34x-45y+20z-100=0"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("|AB|=1", "1"),
    ("A:B=1", "1"),
    ("AB=5", "5"),
    ("\\angle A = 30^\\circ", "30"),
    ("\\frac{\\sqrt{3}}{3} \\approx 0.577", "\\frac{\\sqrt{3}}{3}"),
    ("\\log_4(8)=\\frac{3}{2}", "1.5"),
    ("204_5", "204"),
    ("204_5", "204_{5}"),
    ("f(2)<f(1)<f(4)", "f(4) > f(1) > f(2)"),
]
STRUCTURES_DIFFERENT = [
    ("(1,2)", "2,1"),
    ("(1,2)", "(2,1)"),
    ("(1,2)", "(1,2,3)"),
    ("(1,2,3)", "(1,2)"),
    ("\\{1,2\\}", "(1,2)"),
    ("1,2", "1,2,2"),
    ("x=1,y=2", "x=2,y=1"),
    ("x=5", "y=5"),
    ("(1,2),(3,4)", "(2,1),(3,4)"),
    ("[0,1)", "[0,1]"),
    ("[-3,2]", "(-3,2)"),
    ("[x, x+1]", "[x+1, x]"),
    ("x>5", "x\\ge5"),
    ("x>5", "x<5"),
    ("x>5", "5"),
    ("(-\\infty,2)\\cup(3,\\infty)", "(-\\infty,2)"),
    ("x<1", "x>-1"),
    ("3:4", "4:3"),
    ("12:30", "12:31"),
    ("11_2", "11_3"),
    ("204_5", "205_5"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "(1,2,3,4)"),
    ("\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "\\begin{bmatrix}1&2\\\\3&4\\end{bmatrix}"),
    ("2x+3y=6", "2x+3y=7"),
    ("y=3x+2", "y-3x+2=0"),
    ("x+y=1", "1"),
    ("a+3z=0", "0"),
    ("7=11a+c", "11a+c"),
    ("xy=5", "5"),
    ("4x^2+8x+19=0", "5x^2+8x+19=0"),
    ("T=-10+110e^{kt}", "T=-11+110e^{kt}"),
    ("\\sqrt{67},-\\sqrt{85}", "\\sqrt{67}"),
    ("f(2)<f(1)<f(4)", "f(4)<f(1)<f(2)"),
    ("i^{4}=1", "2"),
    ("\\{2\\}\\cup[4,\\infty)", "[4,\\infty)"),
]
WORDS_EQUAL = [
    ("B", "(B)"),
    ("B", "\\text{B}"),
    ("\\text{(B)}", "B"),
    ("B", "(B) 5"),
    ("\\text{(B)}", "B. 12"),
    ("B", "b"),
    ("\\text{Monday}", "monday"),
    ("yes", "Yes."),
    ("\\text{Evelyn}", "Evelyn"),
    ("east", "\\text{east}"),
    ("\\text{Friday}", "\\mathrm{Friday}"),
    ("4:30 \\text{ p.m.}", "\\text{4:30 p.m.}"),
    ("\\text{A, C}", "C, A"),
    ("\\text{a necessary condition}", "\\textbf{a necessary condition}"),
]
WORDS_DIFFERENT = [
    ("B", "C"),
    ("B", "C. B"),
    ("yes", "no"),
    ("odd", "oddd"),
    ("\\text{Evelyn}", "\\text{Carla}"),
    ("\\text{A, C}", "A"),
    ("east", "seat"),
    ("\\text{no solution}", "5"),
    ("\\text{five}", "answer"),
    ("D", "The answer is not D"),
]


def outcome(gold: str, answer: str) -> Outcome:
    return grade("Therefore \\boxed{" + answer + "}.", gold, timeout=PATIENCE).outcome


@pytest.mark.parametrize(
    ("gold", "answer"),
    NUMBERS_EQUAL + ROUNDING_EQUAL + UNITS_EQUAL + ALGEBRA_EQUAL + STRUCTURES_EQUAL + WORDS_EQUAL,
)
def test_equal(gold, answer):
    assert outcome(gold, answer) is Outcome.CORRECT


@pytest.mark.parametrize(
    ("gold", "answer"),
    NUMBERS_DIFFERENT
    + HEDGES
    + ROUNDING_DIFFERENT
    + UNITS_DIFFERENT
    + ALGEBRA_DIFFERENT
    + STRUCTURES_DIFFERENT
    + WORDS_DIFFERENT,
)
def test_different(gold, answer):
    assert outcome(gold, answer) in (Outcome.WRONG, Outcome.MALFORMED)


@pytest.mark.parametrize(
    ("gold", "answer"),
    NUMBERS_EQUAL[:20]
    + UNITS_DIFFERENT
    + ALGEBRA_EQUAL
    + ALGEBRA_DIFFERENT
    + STRUCTURES_EQUAL[:30]
    + STRUCTURES_DIFFERENT[:25],
)
def test_verdict_does_not_change_when_gold_and_answer_are_exchanged(gold, answer):
    assert (outcome(gold, answer) is Outcome.CORRECT) == (outcome(answer, gold) is Outcome.CORRECT)


@pytest.mark.parametrize(
    ("gold", "answer", "stage"),
    [
        ("18", "18", Stage.TEXT),
        ("\\frac{1}{2}", "\\dfrac{1}{2}", Stage.TEXT),
        ("18", "18.0", Stage.NUMBER),
        ("\\sqrt{12}", "2\\sqrt{3}", Stage.NUMBER),
        ("(1,2)", "(1,3)", Stage.STRUCTURE),
        ("5", "9^{9^{9^{9}}}", Stage.GATE),
    ],
)
def test_cheapest_stage_decides(gold, answer, stage):
    assert grade("\\boxed{" + answer + "}", gold).stage is stage


@pytest.mark.parametrize("gold", ["", "   ", "$ $", "nan", "\\quad"])
def test_unreadable_gold_is_never_scored(gold):
    assert outcome(gold, "5") is Outcome.UNPARSEABLE_GOLD
    assert grade("no answer", gold).outcome is Outcome.UNPARSEABLE_GOLD


def test_gold_may_be_a_solution_with_a_box():
    assert outcome("We add and get $\\boxed{42}$.", "42") is Outcome.CORRECT


def test_gold_may_be_a_number_or_missing():
    assert grade("\\boxed{5}", 5).correct
    assert grade("\\boxed{1/2}", 0.5).correct
    assert grade("\\boxed{5}", None).outcome is Outcome.UNPARSEABLE_GOLD


def test_long_lists_take_bounded_time():
    roots = [f"\\sqrt{{{k}}}" for k in range(1, 140)]
    start = time.process_time()
    assert grade("\\boxed{" + ",".join(reversed(roots)) + "}", ",".join(roots)).correct
    other = grade(
        "\\boxed{" + ",".join(f"\\sqrt{{{k}.5}}" for k in range(1, 120)) + "}", ",".join(roots[:119])
    )
    assert other.outcome is Outcome.TIMEOUT
    assert time.process_time() - start < 0.5


def test_long_answers_are_compared_as_text_only():
    digits = "9" * 5000
    assert outcome(digits, digits) is Outcome.CORRECT
    assert outcome(digits, digits[:-1] + "8") is Outcome.WRONG
    assert grade("\\boxed{" + digits + "}", "5").stage is Stage.GATE


# -- the parts
# ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\frac34", Fraction(3, 4)),
        ("-2^{2}", Fraction(-4)),  # the sign comes after the power
        ("2^{3^{2}}", Fraction(512)),  # powers associate to the right: 2^9
        ("1/2/4", Fraction(1, 8)),  # quotients to the left: (1/2)/4
        ("6/2(1+2)", Fraction(9)),  # an implicit product binds like an explicit one: (6/2)*3
        ("2 \\frac{1}{3}", Fraction(7, 3)),
        ("2 \\cdot \\frac{1}{3}", Fraction(2, 3)),
        ("0.1\\bar{6}", Fraction(1, 6)),  # 0.1 + 6/90 = 15/90
        ("\\sqrt{\\frac{9}{4}}", Fraction(3, 2)),
        ("1,234,567", Fraction(1234567)),
        ("|-3|", Fraction(3)),
        ("3!", Fraction(6)),
        ("2**3", Fraction(8)),
    ],
)
def test_exact_values(text, value):
    assert exact(parse(text)) == value


@pytest.mark.parametrize(
    "text", ["", "2+", "\\frac{1}", "(1", "1)", "5 6", "hello", "\\int x", "x=1", "\\sqrt{", "^2", "{}", "2^"]
)
def test_unreadable_text_is_refused(text):
    with pytest.raises(UnreadableError):
        parse(text)


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "2^{100000}", "5000!", "10^{30000}", "((10^{300})^{300})"])
def test_values_too_large_to_compute_are_refused(text):
    with pytest.raises(TooLargeError):
        exact(parse(text))


def test_huge_values_of_functions_are_refused():
    with pytest.raises(TooLargeError):
        Evaluator().value(parse("e^{e^{e^{e^{e}}}}"), {})


def test_identities_are_decided_at_random_points():
    evaluator = Evaluator()
    assert same_value(evaluator, parse("(a+b)^3"), parse("a^3+3a^2 b+3a b^2+b^3")) is True
    assert same_value(evaluator, parse("(a+b)^3"), parse("a^3+3a^2 b+3a b^2+b^2")) is False
    assert (
        same_value(evaluator, parse("1/0"), parse("x")) is None
        or same_value(evaluator, parse("1/0"), parse("x")) is False
    )


def test_factor_of_an_inequality_must_be_positive():
    evaluator = Evaluator()
    left, right = parse("2x-4y"), parse("2y-x")
    assert same_up_to_factor(evaluator, left, right, positive=False) is True  # the factor is -2
    assert same_up_to_factor(evaluator, left, right, positive=True) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24\\text{ units}", ("24", "unit")),
        ("11.6 \\text{ lb} / \\text{in}^{2}", ("11.6", "lb/in2")),
        ("5 square meters", ("5", "m2")),
        ("60 mph", ("60", "mph")),
        ("3 sqrt", ("3 sqrt", None)),
        ("x^2", ("x^2", None)),
        ("5\\text{ or }6", ("5\\text{ or }6", None)),
    ],
)
def test_units_are_split_off(text, expected):
    assert split_unit(text) == expected


def test_normal_form_keeps_a_superscript_a_power():
    assert clean("x²") == "x^{2}"
    assert clean("½") == "\\frac{1}{2}"


# -- hostile input
# ---------------------------------------------------------------------------------------------------

PIECES = [
    *"0123456789xyzE+-*/^_(){}[]|!,.:;=<>%'\"& ~$\\?", "\\frac", "\\sqrt", "\\text{", "\\text{cm}", "\\left(",
    "\\right)", "\\pi", "\\le ", "\\cup", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "^{", "_{", "\\pm",
    "\\infty", "\\sin", "\\log", "9^", "cm ", "m/s ", "and ", "or ", "1,000", "0.5", "10^", "\\{", "\\}",
    "\\cdot", "\\in", "\\circ", "²", "√", "π",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_never_raises_and_never_takes_long(seed):
    from r1rl.grading.compare import Comparer
    from r1rl.grading.grade import decide_cheaply, read_gold

    generator = random.Random(seed)
    comparer = Comparer(Evaluator())
    for _ in range(150):
        few = generator.sample(PIECES, 3)
        size = generator.choice((5, 20, 80, 400))
        answer = "".join(generator.choice(PIECES if generator.random() < 0.6 else few) for _ in range(size))
        gold = generator.choice(
            ["5", "\\frac{1}{2}", "x^2+1", "(1,2)", "[0,1)", "x>5", "\\sqrt{2}", "y=2x", answer[::-1]]
        )
        start = time.process_time()
        decide_cheaply(comparer, read_gold, gold, answer)
        assert time.process_time() - start < 0.5, answer


@pytest.mark.parametrize(
    "unit",
    [
        "(",
        "{",
        "\\boxed{",
        "<think>",
        "$",
        "\\text{",
        "cm ",
        "9",
        "1,",
        "\\sin",
        "a/",
        "-",
        "\\frac",
        "x=",
        "\\\\",
        "^",
    ],
)
def test_long_repetitions_take_linear_time(unit):
    start = time.process_time()
    grade(unit * 30_000, "5")
    grade("\\boxed{" + unit * 200 + "}", "5", timeout=0.1)
    assert time.process_time() - start < 1.0
