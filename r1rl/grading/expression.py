"""A parser for the expressions of answers: LaTeX and the plain notation of calculators, into a small tree.

Only this grammar is read, nothing is ever evaluated as code. A tree is a tuple: ("n", Fraction), ("s", name),
("+", a, b, ...), ("*", a, b, ...), ("/", a, b), ("^", a, b), ("f", name, argument, ...). Trees are hashable and immutable.

Conventions: implicit products bind like explicit ones and operators of the same rank associate to the left; `\\frac12` takes
single digits, `\\sqrt12` and `x^12` take the whole number; an integer before a fraction of integers is a mixed number; `e`,
`i` and `\\pi` are the constants; `f`, `g` and `h` before a bracket are functions, any other letter a factor.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from r1rl.grading.tokens import Token, UnreadableError, tokenize

Node = tuple[Any, ...]

MAX_DEPTH = 60
"""Brackets, fractions and exponents inside each other; deeper text is no answer that a person would write."""
MAX_DIGITS = 2000

FUNCTIONS = frozenset(
    "sin cos tan sec csc cot arcsin arccos arctan sinh cosh tanh ln log exp arccot arcsec arccsc asin acos atan lcm gcd max min".split()
)
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
_MANY = frozenset(["lcm", "gcd", "max", "min"])
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell infty".split()
)
_PLAIN_GREEK = frozenset(["alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "sigma", "phi", "psi", "rho"])
_APPLIED = frozenset("fgh")
_CLOSE = {"(": ")", "[": "]", "{": "}"}
_SIGNS = frozenset(["+", "-"])
_PRODUCT = frozenset(["cdot", "times"])

ONE: Node = ("n", Fraction(1))
MINUS_ONE: Node = ("n", Fraction(-1))
HALF: Node = ("n", Fraction(1, 2))
END = Token("end", "", False)


def number(text: str) -> Fraction:
    """The exact value of a number token such as "1,024", ".5" or "1.5e-3". Raises `UnreadableError` when it is absurdly long."""
    text = text.replace(",", "")
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or len(exponent) > 5:
        raise UnreadableError("a number of too many digits")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int(whole + decimals or "0"), 10 ** len(decimals))
    if exponent:
        power = int(exponent)
        if abs(power) > MAX_DIGITS:
            raise UnreadableError("a number of too many digits")
        value *= Fraction(10) ** power
    return value


def negate(node: Node) -> Node:
    """The tree of -node."""
    if node[0] == "n":
        return ("n", -node[1])
    return ("*", MINUS_ONE, node)


def parse(text: str) -> Node:
    """The tree of an expression in normal form. Raises `UnreadableError` for anything else, text and relations included."""
    return parse_tokens(tokenize(text))


def parse_tokens(tokens: list[Token]) -> Node:
    """`parse` on tokens."""
    if not tokens:
        raise UnreadableError("nothing to read")
    parser = _Parser(tokens)
    node = parser.sum()
    if parser.peek() is not END:
        raise UnreadableError(f"did not expect {parser.peek().value!r}")
    return node


class _Parser:
    """Recursive descent over the tokens; each method reads one construct and leaves `position` behind it."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = list(tokens)  # a run of letters is split in place
        self.position = 0
        self.depth = 0
        self.open_bars = 0

    def peek(self, ahead: int = 0) -> Token:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self) -> Token:
        token = self.peek()
        self.position += 1
        return token

    def accept(self, *values: str) -> bool:
        token = self.peek()
        if token.value in values and token.kind in ("symbol", "command"):
            self.position += 1
            return True
        return False

    def expect(self, value: str) -> None:
        token = self.take()
        if token.value != value or token.kind not in ("symbol", "command"):
            raise UnreadableError(f"expected {value!r}")

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        terms: list[Node] = []
        while True:
            negative = False
            signed = False
            while self.peek().kind == "symbol" and self.peek().value in _SIGNS:
                negative ^= self.take().value == "-"
                signed = True
            if terms and not signed:
                break
            term = self.product()
            terms.append(negate(term) if negative else term)
            if not (self.peek().kind == "symbol" and self.peek().value in _SIGNS):
                break
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Node:
        node = self.factor()
        while True:
            token = self.peek()
            if token.kind == "symbol" and token.value in "*/":
                self.position += 1
                if token.value == "*" and self.peek().value == "*" and self.peek().kind == "symbol":  # Python's power
                    self.position += 1
                    node = ("^", node, self.signed_factor())
                    continue
                right = self.signed_factor()
                node = ("*", node, right) if token.value == "*" else ("/", node, right)
            elif token.kind == "command" and token.value in _PRODUCT:
                self.position += 1
                node = ("*", node, self.signed_factor())
            elif token.kind == "command" and token.value == "div":
                self.position += 1
                node = ("/", node, self.signed_factor())
            elif self.starts_factor(token):
                node = self.implicit(node)
            else:
                return node

    def implicit(self, left: Node) -> Node:
        """The next factor after `left` without an operator: a mixed number or a product."""
        token = self.peek()
        before = self.tokens[self.position - 1]
        if before.kind == "number" and "." not in before.value and left[0] == "n":
            if token.kind == "command" and token.value == "frac":
                fraction = self.factor()
                if fraction[0] == "/" and fraction[1][0] == "n" and fraction[2][0] == "n":
                    top, bottom = fraction[1][1], fraction[2][1]
                    if 0 < top < bottom and top.denominator == bottom.denominator == 1:
                        return ("n", left[1] + top / bottom)
                return ("*", left, fraction)
            if token.kind == "number" and token.spaced and self.peek(1).value == "/" and self.peek(2).kind == "number":
                top, bottom = number(self.take().value), number(self.peek(1).value)
                self.position += 2
                if 0 < top < bottom:
                    return ("n", left[1] + top / bottom)
        if token.kind == "number" and before.kind == "number":
            raise UnreadableError("two numbers in a row")
        return ("*", left, self.factor())

    def starts_factor(self, token: Token) -> bool:
        if token.kind in ("number", "word"):
            return True
        if token.kind == "command":
            return token.value not in ("pm", "mp", "rfloor", "rceil", "}")
        if token.kind == "symbol":
            return token.value in "([{" or (token.value == "|" and not self.open_bars)
        return False

    def signed_factor(self) -> Node:
        if self.accept("-"):
            return negate(self.signed_factor())
        if self.accept("+"):
            return self.signed_factor()
        return self.factor()

    def factor(self) -> Node:
        """An atom with its postfixes: power, factorial, degree sign."""
        return self.postfix(self.atom())

    def postfix(self, node: Node) -> Node:
        while True:
            token = self.peek()
            if token.kind != "symbol":
                return node
            if token.value == "^":
                self.position += 1
                node = self.power(node)
            elif token.value == "!":
                self.position += 1
                node = ("f", "factorial", node)
            elif token.value == "'" and node[0] == "s":
                self.position += 1
                node = ("s", node[1] + "'")
            else:
                return node

    def power(self, base: Node) -> Node:
        token = self.peek()
        if token.kind == "command" and token.value == "circ":
            self.position += 1
            return ("f", "degree", base)
        if token.kind == "symbol" and token.value == "{":
            if self.peek(1).value in ("circ", "prime") and self.peek(1).kind == "command":
                name = self.peek(1).value
                self.position += 2
                while self.accept(name):
                    base = ("s", base[1] + "'") if base[0] == "s" else base
                self.expect("}")
                if name == "circ":
                    return ("f", "degree", base)
                if base[0] != "s":
                    raise UnreadableError("a derivative")
                return ("s", base[1] + "'")
            exponent = self.group()
        else:
            exponent = self.short_exponent()
        return ("^", base, exponent)

    def short_exponent(self) -> Node:
        if self.accept("-"):
            return negate(self.short_exponent())
        if self.peek().kind == "word" and len(self.peek().value) > 1:
            raise UnreadableError("an exponent of several letters without braces")
        atom = self.atom()
        if self.peek().kind == "symbol" and self.peek().value == "^":
            self.position += 1
            return self.power(atom)
        return atom

    def group(self) -> Node:
        """`{ sum }`, its opening brace being the next token."""
        self.expect("{")
        node = self.sum()
        self.expect("}")
        return node

    def argument(self, whole_number: bool) -> Node:
        """The argument of a command: a group, or one token (one digit of a number unless `whole_number`)."""
        token = self.peek()
        if token.kind == "symbol" and token.value == "{":
            return self.group()
        if token.kind == "number" and not whole_number and len(token.value) > 1:
            if not token.value[0].isdigit() or not token.value[1].isdigit():
                raise UnreadableError("an argument that is no digit")
            self.tokens[self.position] = Token("number", token.value[1:], False)
            return ("n", Fraction(int(token.value[0])))
        if token.kind == "word" and len(token.value) > 1:
            self.tokens[self.position] = Token("word", token.value[1:], False)
            return symbol(token.value[0])
        return self.atom()

    def atom(self) -> Node:
        token = self.take()
        if token.kind == "number":
            return self.decimal(token)
        if token.kind == "word":
            return self.letters(token)
        if token.kind == "command":
            return self.command(token.value)
        if token.kind == "symbol" and token.value in _CLOSE:
            bars, self.open_bars = self.open_bars, 0
            node = self.sum()
            self.open_bars = bars
            self.expect(_CLOSE[token.value])
            return node
        if token.kind == "symbol" and token.value == "|":
            self.open_bars += 1
            node = self.sum()
            self.open_bars -= 1
            self.expect("|")
            return ("f", "abs", node)
        if token.kind == "text" and token.value in ("e", "i"):
            return ("s", token.value)
        raise UnreadableError(f"did not expect {token.value!r}")

    def decimal(self, token: Token) -> Node:
        """A number; with an overlined tail (`0.1\\bar{6}`) a repeating decimal."""
        value = number(token.value)
        if "." in token.value and self.peek().kind == "command" and self.peek().value == "bar":
            digits = [self.peek(1 + k).value for k in range(3)]
            if digits[0] == "{" and digits[1].isdigit() and digits[2] == "}":
                self.position += 4
                places = len(token.value.partition(".")[2])
                return ("n", value + Fraction(int(digits[1]), (10 ** len(digits[1]) - 1) * 10**places))
        return ("n", value)

    def letters(self, token: Token) -> Node:
        """A run of letters: a function or constant by name, or a product of single letters."""
        word = token.value
        if word in FUNCTIONS:
            return self.function(_RENAMED.get(word, word))
        if word == "sqrt":
            return ("^", self.argument(whole_number=True), HALF)
        if word == "pi" or word in _PLAIN_GREEK:
            return self.subscript(("s", word))
        if word in ("infinity", "inf", "oo"):
            return ("s", "infty")
        if len(word) > 1:
            if len(word) > 4 or (len(word) > 2 and any(c in "aeiouAEIOU" for c in word)):
                raise UnreadableError(f"a word: {word}")
            self.position -= 1
            self.tokens[self.position : self.position + 1] = [
                Token("word", c, token.spaced and k == 0) for k, c in enumerate(word)
            ]
            return self.atom()
        node = self.subscript(symbol(word))
        if word in _APPLIED and self.peek().value == "(" and node[0] == "s":
            return ("f", "apply:" + node[1], *self.call())
        return node

    def subscript(self, node: Node) -> Node:
        """`node` with the subscript that follows it, if any, made part of its name."""
        if not (self.peek().kind == "symbol" and self.peek().value == "_"):
            return node
        self.position += 1
        if self.peek().value == "{":
            depth, parts = 0, []
            while True:
                token = self.take()
                if token is END:
                    raise UnreadableError("an open subscript")
                depth += {"{": 1, "}": -1}.get(token.value, 0)
                if depth == 0:
                    break
                parts.append(token.value)
            name = "".join(parts[1:])
        else:
            token = self.take()
            if token.kind == "word" and len(token.value) > 1:
                self.position -= 1
                self.tokens[self.position] = Token("word", token.value[1:], False)
            name = token.value[0] if token.kind == "word" else token.value
        if not name:
            raise UnreadableError("an empty subscript")
        return ("s", f"{node[1]}_{name}")

    def command(self, name: str) -> Node:
        if name == "frac":
            top = self.argument(whole_number=False)
            return ("/", top, self.argument(whole_number=False))
        if name == "sqrt":
            return self.root()
        if name == "binom":
            top = self.argument(whole_number=False)
            return ("f", "binomial", top, self.argument(whole_number=False))
        if name in FUNCTIONS:
            return self.function(_RENAMED.get(name, name))
        if name == "pi" or name in _GREEK:
            return self.subscript(("s", name))
        if name in ("vec", "bar", "hat", "tilde", "dot", "ddot"):
            inner = self.argument(whole_number=True)
            return self.subscript(("s", f"{name}:{inner[1] if inner[0] == 's' else inner}"))
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.expect("r" + name[1:])
            return ("f", "floor" if name == "lfloor" else "ceil", node)
        raise UnreadableError(f"\\{name}")

    def root(self) -> Node:
        index: Node = ("n", Fraction(2))
        if self.peek().value == "[" and self.peek().kind == "symbol":
            self.position += 1
            index = self.sum()
            self.expect("]")
        radicand = self.argument(whole_number=True)
        if index == ("n", Fraction(2)):
            return ("^", radicand, HALF)
        return ("f", "root", radicand, index)

    def function(self, name: str) -> Node:
        """A named function with its base, power and argument: `\\log_2 8`, `\\sin^2 x`, `\\cos(2t)`."""
        base: Node | None = None
        power: Node | None = None
        for _ in range(2):
            if self.peek().kind == "symbol" and self.peek().value == "_" and name == "log":
                self.position += 1
                base = self.argument(whole_number=True)
            elif self.peek().kind == "symbol" and self.peek().value == "^":
                self.position += 1
                power = self.group() if self.peek().value == "{" else self.short_exponent()
        if name in _MANY:
            return ("f", name, *self.call())
        argument = self.function_argument()
        if name == "exp":
            node: Node = ("^", ("s", "e"), argument)
        elif base is not None:
            node = ("/", ("f", "ln", argument), ("f", "ln", base))
        else:
            node = ("f", name, argument)
        if power is None:
            return node
        if power == MINUS_ONE and name in ("sin", "cos", "tan", "sinh", "cosh", "tanh"):
            return ("f", "arc" + name, argument)
        return ("^", node, power)

    def function_argument(self) -> Node:
        """What a function without its own brackets applies to: one bracket, or the product up to a sign or another function."""
        token = self.peek()
        if token.kind == "symbol" and token.value in "([{|":
            return self.postfix_free()
        if token.kind == "symbol" and token.value == "-":
            self.position += 1
            return negate(self.function_argument())
        node = self.factor()
        while True:
            token = self.peek()
            if token.kind == "command" and token.value in FUNCTIONS or token.kind == "word" and token.value in FUNCTIONS:
                return node
            if token.kind in ("number", "word", "command") and self.starts_factor(token) and token.value not in _PRODUCT:
                node = self.implicit(node)
            else:
                return node

    def postfix_free(self) -> Node:
        """A bracket without the power behind it: in `\\sin(x)^2` the power belongs to the sine."""
        return self.atom()

    def call(self) -> list[Node]:
        """`( sum, sum, ... )`"""
        self.expect("(")
        arguments = [self.sum()]
        while self.accept(","):
            arguments.append(self.sum())
        self.expect(")")
        return arguments


def symbol(name: str) -> Node:
    """The tree of a variable or of one of the constants e, i, pi."""
    return ("s", name)
