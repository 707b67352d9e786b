"""CASES BY AN EXPRESSION: ``slices <= 110 and hu_min >= -1024`` read, checked and asked of each case's facts.

Comes in: text, then tables of facts. Goes out: yes, no, or None where a fact that decides is not known. The text is
taken apart into a few kinds of parts, which alone are followed: comparison, ``and``, ``or``, ``not``, ``in``,
arithmetic, numbers, strings, ``None``, names of facts. Nothing in it is run.
"""

from __future__ import annotations

import ast
import difflib
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from hilum.errors import UsageError

LONGEST = 2000
_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_EXAMPLE = '"slices <= 110 and hu_min >= -1024", "case in (\'a\', \'b\')", "tumour_ml / kidney_ml > 0.1"'


@dataclass(frozen=True)
class Where:
    """An expression that was checked.

    Attributes:
        text: as it was given.
        names: the facts that it asks for.
    """

    text: str
    names: frozenset[str]
    tree: ast.expr

    def known(self, names: Collection[str]) -> None:
        """Check that all facts are known ones.

        Raises:
            UsageError: a name that is not, with the nearest that are.
        """
        for name in sorted(self.names - set(names)):
            near = " or ".join(difflib.get_close_matches(name, sorted(names), 3, 0.5))
            known = ", ".join(sorted(names))
            raise UsageError(
                f"--where asks for {name!r}, which is no fact of these cases",
                wanted=f"{near}; known are {known}" if near else f"one of {known}",
            )

    def __call__(self, facts: Mapping[str, Any]) -> bool | None:
        """Whether a case is meant; None where a fact that decides is not known of it.

        ``and``, ``or`` and ``not`` follow Kleene: what is not known stays so, unless the other side decides.

        Raises:
            UsageError: text compared with numbers, a division by nought, a sum as answer.
        """
        try:
            answer = _value(self.tree, facts)
        except (TypeError, ArithmeticError, ValueError) as error:
            raise UsageError(
                f"--where {self.text!r} cannot be answered for case {facts.get('case', '?')} ({error})"
            ) from None
        if answer is None or isinstance(answer, bool):
            return answer
        raise UsageError(f"--where {self.text!r} gives {answer!r}", wanted=f"a comparison, such as {_EXAMPLE}")


def parse_where(text: str) -> Where:
    """Read an expression.

    Raises:
        UsageError: it is empty, too long, no expression, or holds something else than comparisons and arithmetic.
    """
    if not text.strip() or len(text) > LONGEST:
        found = "is empty" if not text.strip() else f"has {len(text)} characters"
        raise UsageError(f"--where {found}", wanted=f"at most {LONGEST} characters, such as {_EXAMPLE}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        names: set[str] = set()
        _check(tree, names)
    except SyntaxError as error:
        raise UsageError(f"--where {text!r} cannot be read ({error.msg})", wanted=f"such as {_EXAMPLE}") from None
    except (RecursionError, MemoryError, ValueError) as error:
        raise UsageError(f"--where cannot be read ({type(error).__name__})", wanted=f"such as {_EXAMPLE}") from None
    return Where(text, frozenset(names), tree)


def _check(node: ast.expr, names: set[str]) -> None:
    """Refuse every kind of part that is not listed here; collect names."""
    children: list[ast.expr] = []
    allowed = True
    if isinstance(node, ast.BoolOp):
        children = node.values
    elif isinstance(node, ast.UnaryOp):
        allowed, children = isinstance(node.op, ast.Not | ast.USub | ast.UAdd), [node.operand]
    elif isinstance(node, ast.BinOp):
        allowed, children = type(node.op) in _ARITHMETIC, [node.left, node.right]
    elif isinstance(node, ast.Compare):
        kinds = (*_COMPARISONS, ast.In, ast.NotIn, ast.Is, ast.IsNot)
        allowed, children = all(isinstance(op, kinds) for op in node.ops), [node.left, *node.comparators]
        for op, right in zip(node.ops, node.comparators, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                allowed = allowed and isinstance(right, ast.Tuple | ast.List | ast.Set | ast.Name | ast.Constant)
            if isinstance(op, ast.Is | ast.IsNot):
                allowed = allowed and isinstance(right, ast.Constant) and right.value is None
    elif isinstance(node, ast.Tuple | ast.List | ast.Set):
        children = node.elts
    elif isinstance(node, ast.Name):
        names.add(node.id)
    else:
        allowed = isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | bool | None)
    if not allowed:
        raise UsageError(
            f"--where holds {ast.unparse(node)!r}",
            wanted="names of facts, numbers, strings, comparisons, and, or, not, in, + - * / // %",
        )
    for child in children:
        _check(child, names)


def _value(node: ast.expr, facts: Mapping[str, Any]) -> Any:
    """What a part is worth for a case; None is "not known"."""
    if isinstance(node, ast.BoolOp):
        return _joined(isinstance(node.op, ast.And), [_truth(_value(part, facts)) for part in node.values])
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, facts)
        if value is None:
            return None
        return (
            not _truth(value) if isinstance(node.op, ast.Not) else -value if isinstance(node.op, ast.USub) else +value
        )
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, facts), _value(node.right, facts)
        if left is None or right is None:
            return None
        if isinstance(left, str) or isinstance(right, str):
            raise TypeError("text has no arithmetic")
        return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.Compare):
        values = [_value(part, facts) for part in (node.left, *node.comparators)]
        pairs = zip(node.ops, values, values[1:], strict=False)
        return _joined(True, [_compared(op, left, right) for op, left, right in pairs])
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [_value(part, facts) for part in node.elts]
    if isinstance(node, ast.Name):
        value = facts.get(node.id)
        return None if isinstance(value, float) and math.isnan(value) else value
    assert isinstance(node, ast.Constant)
    return node.value


def _compared(op: ast.cmpop, left: Any, right: Any) -> bool | None:
    if isinstance(op, ast.Is | ast.IsNot):
        return (left is None) == isinstance(op, ast.Is)
    if left is None or right is None:
        return None
    if isinstance(op, ast.In | ast.NotIn):
        return (left in right) == isinstance(op, ast.In)
    return bool(_COMPARISONS[type(op)](left, right))


def _truth(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise TypeError(f"{value!r} is neither true nor false")


def _joined(every: bool, parts: list[bool | None]) -> bool | None:
    """Kleene's ``and`` (or ``or``): one that decides decides, else one that is not known leaves it open."""
    if any(part is (not every) for part in parts):
        return not every
    return None if any(part is None for part in parts) else every
