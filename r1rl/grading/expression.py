r"""A parser for the expressions of answers: LaTeX and the plain notation of calculators, into a small tree.

Only this grammar is read, and nothing is ever evaluated as code. A tree is a tuple: ("n", Fraction), ("s",
name), ("+", a, b, ...), ("*", a, b, ...), ("/", a, b), ("^", a, b), ("f", name, argument, ...). Trees are
hashable and immutable.

Implicit products bind like explicit ones, and operators of the same rank associate to the left. `\frac12`
takes single digits, while `\sqrt12` and `x^12` take the whole number. An integer before a fraction of
integers is a mixed number. The constants are `e`, `i` and `\pi`. The letters `f`, `g` and `h` before a
bracket are functions; any other letter is a factor.
"""

from __future__ import annotations

from r1rl.grading.atoms import END, PRODUCT_COMMANDS, AtomParser, Node, negate, number, times
from r1rl.grading.tokens import Token, UnreadableError, tokenize

MAX_TOKENS = 400
_SIGNS = frozenset(["+", "-"])


def parse(text: str) -> Node:
    """Return the tree of an expression in normal form.

    Raise `UnreadableError` for anything else, text and relations included.
    """
    return parse_tokens(tokenize(text))


def parse_tokens(tokens: list[Token]) -> Node:
    """Return the tree of tokens, as `parse` does for text."""
    if not tokens:
        raise UnreadableError("nothing to read")
    if len(tokens) > MAX_TOKENS:
        raise UnreadableError("an expression of too many parts")
    parser = _Parser(tokens)
    node = parser.sum()
    if parser.peek() is not END:
        raise UnreadableError(f"did not expect {parser.peek().value!r}")
    return node


class _Parser(AtomParser):
    """A recursive-descent parser: sums of products of powers of atoms."""

    def sum(self) -> Node:
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
        return terms[0] if len(terms) == 1 else ("+", *terms)

    def product(self) -> Node:
        node = self.factor()
        while True:
            token = self.peek()
            if token.kind == "symbol" and token.value in "*/":
                self.position += 1
                # Two stars are Python's power.
                if token.value == "*" and self.peek().value == "*" and self.peek().kind == "symbol":
                    self.position += 1
                    node = ("^", node, self.signed_factor())
                    continue
                right = self.signed_factor()
                node = times(node, right) if token.value == "*" else ("/", node, right)
            elif token.kind == "command" and token.value in PRODUCT_COMMANDS:
                self.position += 1
                node = times(node, self.signed_factor())
            elif token.kind == "command" and token.value == "div":
                self.position += 1
                node = ("/", node, self.signed_factor())
            elif self.starts_factor(token):
                node = self.implicit(node)
            else:
                return node

    def implicit(self, left: Node) -> Node:
        """Return the product of `left` and the next factor, which no operator joins, or a mixed number."""
        token = self.peek()
        before = self.tokens[self.position - 1]
        if before.kind == "number" and "." not in before.value and left[0] == "n":
            if token.kind == "command" and token.value == "frac":
                fraction = self.factor()
                if fraction[0] == "/" and fraction[1][0] == "n" and fraction[2][0] == "n":
                    top, bottom = fraction[1][1], fraction[2][1]
                    if 0 < top < bottom and top.denominator == bottom.denominator == 1:
                        return ("n", left[1] + top / bottom)
                return times(left, fraction)
            if (
                token.kind == "number"
                and token.spaced
                and self.peek(1).value == "/"
                and self.peek(2).kind == "number"
            ):
                top, bottom = number(self.take().value), number(self.peek(1).value)
                self.position += 2
                if 0 < top < bottom:
                    return ("n", left[1] + top / bottom)
        if token.kind == "number" and before.kind == "number":
            raise UnreadableError("two numbers in a row")
        return times(left, self.factor())

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
        """Return an atom with its postfixes: power, factorial, degree sign."""
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
