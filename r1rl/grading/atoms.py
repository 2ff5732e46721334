"""The atoms of expressions: numbers, letters, names with subscripts, commands and their arguments, functions.

`AtomParser` is the lower half of the parser in `expression`, whose upper half reads sums, products and
powers.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from r1rl.grading.tokens import Token, UnreadableError

Node = tuple[Any, ...]

MAX_DEPTH = 60
"""The deepest nesting of brackets, fractions and functions; no person would write a deeper answer."""
MAX_DIGITS = 2000

FUNCTIONS = frozenset(
    [
        "sin", "cos", "tan", "sec", "csc", "cot", "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln",
        "log", "exp", "arccot", "arcsec", "arccsc", "asin", "acos", "atan", "lcm", "gcd", "max", "min",
    ]
)  # fmt: skip
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}
_MANY = frozenset(["lcm", "gcd", "max", "min"])
_GREEK = frozenset(
    [
        "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu",
        "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta",
        "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega", "hbar", "ell", "infty",
    ]
)  # fmt: skip
_PLAIN_GREEK = frozenset(
    ["alpha", "beta", "gamma", "delta", "theta", "lambda", "omega", "sigma", "phi", "psi", "rho"]
)
_APPLIED = frozenset("fgh")
_CLOSE = {"(": ")", "[": "]", "{": "}"}
PRODUCT_COMMANDS = frozenset(["cdot", "times"])

ZERO: Node = ("n", Fraction(0))
MINUS_ONE: Node = ("n", Fraction(-1))
HALF: Node = ("n", Fraction(1, 2))
END = Token("end", "", False)


def number(text: str) -> Fraction:
    """Return the exact value of a number token such as "1,024", ".5" or "1.5e-3".

    Raise `UnreadableError` if it is absurdly long.
    """
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
    """Return the tree of -node."""
    if node[0] == "n":
        return ("n", -node[1])
    return times(MINUS_ONE, node)


def times(left: Node, right: Node) -> Node:
    """Return the tree of a product; a long product is one flat node."""
    return ("*", *left[1:], right) if left[0] == "*" else ("*", left, right)


class AtomParser:
    """A cursor over tokens and the methods that read one atom each, leaving `position` behind it."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = list(tokens)  # a run of letters is split in place
        self.position = 0
        self.depth = 0
        self.open_bars = 0

    def peek(self, ahead: int = 0) -> Token:
        """Return the token that is `ahead` places behind the next one, without moving; `END` if there is
        none.
        """
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self) -> Token:
        """Return the next token and move behind it."""
        token = self.peek()
        self.position += 1
        return token

    def accept(self, *values: str) -> bool:
        """Move behind the next token if it is one of these symbols or commands, and return whether it is."""
        token = self.peek()
        if token.value in values and token.kind in ("symbol", "command"):
            self.position += 1
            return True
        return False

    def expect(self, value: str) -> None:
        """Move behind the next token. Raise `UnreadableError` if it is not this symbol or command."""
        token = self.take()
        if token.value != value or token.kind not in ("symbol", "command"):
            raise UnreadableError(f"expected {value!r}")

    def sum(self) -> Node:
        """Read a whole expression. The upper half of the parser implements it."""
        raise NotImplementedError

    def factor(self) -> Node:
        """Read an atom with its postfixes. The upper half of the parser implements it."""
        raise NotImplementedError

    def implicit(self, left: Node) -> Node:
        """Return the product of `left` with the next factor. The upper half of the parser implements it."""
        raise NotImplementedError

    def starts_factor(self, token: Token) -> bool:
        """Return whether a factor can begin with this token. The upper half of the parser implements it."""
        raise NotImplementedError

    def short_exponent(self) -> Node:
        """Read an exponent without braces. The upper half of the parser implements it."""
        raise NotImplementedError

    def group(self) -> Node:
        """Read `{ sum }`, whose opening brace is the next token."""
        self.expect("{")
        node = self.sum()
        self.expect("}")
        return node

    def argument(self, whole_number: bool) -> Node:
        """Read the argument of a command: a group, or one token (one digit of a number unless
        `whole_number`).
        """
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
        """Read the next atom.

        Everything that can stand inside of something else comes through here, so here the depth is bounded.
        """
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise UnreadableError("nested too deeply")
        node = self.one_atom(self.take())
        self.depth -= 1
        return node

    def one_atom(self, token: Token) -> Node:
        """Read the atom that begins with this token, which is already taken."""
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
        r"""Read a number; with an overlined tail (`0.1\bar{6}`) it is a repeating decimal."""
        value = number(token.value)
        if "." in token.value and self.peek().kind == "command" and self.peek().value == "bar":
            digits = [self.peek(1 + k).value for k in range(3)]
            if digits[0] == "{" and digits[1].isdigit() and digits[2] == "}":
                self.position += 4
                places = len(token.value.partition(".")[2])
                return ("n", value + Fraction(int(digits[1]), (10 ** len(digits[1]) - 1) * 10**places))
        return ("n", value)

    def letters(self, token: Token) -> Node:
        """Read a run of letters: a function or constant by name, or a product of single letters."""
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
        """Return `node` with the subscript that follows it, if there is one, as part of its name."""
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
        """Read the atom that the command `name` begins, such as `frac`, `sqrt` or a function."""
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
        """Read the index and the radicand of a root."""
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
        r"""Read a named function with its base, power and argument: `\log_2 8`, `\sin^2 x`, `\cos(2t)`."""
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
        """Read the argument of a function without brackets of its own: one bracket, or the product up to a
        sign or another function.
        """
        token = self.peek()
        if token.kind == "symbol" and token.value in "([{|":
            return self.atom()  # without a power behind it: in `\sin(x)^2` the power belongs to the sine
        if token.kind == "symbol" and token.value == "-":
            self.position += 1
            return negate(self.function_argument())
        node = self.factor()
        while True:
            token = self.peek()
            if (token.kind == "command" and token.value in FUNCTIONS) or (
                token.kind == "word" and token.value in FUNCTIONS
            ):
                return node
            if (
                token.kind in ("number", "word", "command")
                and self.starts_factor(token)
                and token.value not in PRODUCT_COMMANDS
            ):
                node = self.implicit(node)
            else:
                return node

    def call(self) -> list[Node]:
        """Read the arguments in brackets: `( sum, sum, ... )`."""
        self.expect("(")
        arguments = [self.sum()]
        while self.accept(","):
            arguments.append(self.sum())
        self.expect(")")
        return arguments


def symbol(name: str) -> Node:
    """Return the tree of a variable or of one of the constants e, i, pi."""
    return ("s", name)
