"""The small language that a ``$`` expression may use; checked as a syntax tree, never evaluated.

MONAI replaces every ``@id`` in an expression by a piece of Python text and hands the result to ``eval``. The same
replacement is made here first, so that what is checked is what would be evaluated, quotes and all.

Allowed: numbers, text, lists, tuples, sets, dictionaries, arithmetic, comparisons, ``and``/``or``/``not``,
``x if c else y``, indexing, references, listed names, calls of listed callables and of listed methods. Refused:
everything else, among it lambda, comprehensions, f-strings, ``*args``, powers, assignments and several statements.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import TYPE_CHECKING

from vol3d.sharing.literals import Problem, argument_problem, text_problem
from vol3d.sharing.refusal import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vol3d.sharing.policy import Policy

MAX_CHARACTERS = 2000
_REFERENCES = "__local_refs"
# The pattern of monai.bundle.reference_resolver.ReferenceResolver.id_matcher.
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_IMPORT = re.compile(r"import (\w+)")

_PLAIN_NODES = (
    ast.Expression,
    ast.List,
    ast.Tuple,
    ast.Set,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.IfExp,
    ast.Subscript,
    ast.Slice,
    ast.expr_context,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod)


def expression_problems(text: str, policy: Policy) -> list[Problem]:
    """Return every reason against an expression; ``text`` comes without its leading ``$``.

    Example:
        >>> from vol3d.sharing.policy import load_policy
        >>> expression_problems("@lr * 0.5", load_policy())
        []
        >>> expression_problems("__import__('os')", load_policy())[0][0]
        'audit.call'
    """
    if len(text) > MAX_CHARACTERS:
        return [("audit.expression", f"an expression of {len(text)} characters", "use a vol3d function")]
    if "#" in text or "\\" in text or not text.isprintable():
        return [("audit.expression", "'#', a backslash or a control character", "write :: and plain text")]
    text = text.strip()
    imported = _IMPORT.fullmatch(text)
    if imported:
        if imported[1] in policy.imports:
            return []
        return [("audit.import", f"import of {imported[1]}", "call a vol3d function that does the work")]
    try:
        return list(_problems(_parse(_as_monai_evaluates(text)), policy))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [("audit.expression", f"not one plain expression: {shorten(text)}", "write one Python expression")]


def _as_monai_evaluates(text: str) -> str:
    # Longest first, one after the other: the order in which update_refs_pattern replaces.
    for match in sorted(_REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(match, f"{_REFERENCES}['{match[1:]}']")
    return text


def _parse(text: str) -> ast.Expression:
    with warnings.catch_warnings():
        # Python warns of odd spellings such as `0and 1`, with the stranger's text on the terminal.
        warnings.simplefilter("ignore", SyntaxWarning)
        return ast.parse(text, mode="eval")


def _problems(node: ast.AST, policy: Policy) -> Iterator[Problem]:
    if _is_reference(node):
        return
    if isinstance(node, ast.Constant):
        yield from _constant_problems(node)
    elif isinstance(node, ast.Name | ast.Attribute):
        yield from _name_problems(node, policy)
    elif isinstance(node, ast.Call):
        yield from _call_problems(node, policy)
    elif isinstance(node, ast.BinOp):
        yield from _arithmetic_problems(node, policy)
    elif isinstance(node, ast.Dict):
        yield from _dict_problems(node, policy)
    elif isinstance(node, _PLAIN_NODES):
        for child in ast.iter_child_nodes(node):
            yield from _problems(child, policy)
    else:
        yield ("audit.expression", f"the construct {type(node).__name__}", "use a vol3d function that does the work")


def _arithmetic_problems(node: ast.BinOp, policy: Policy) -> Iterator[Problem]:
    if not isinstance(node.op, _ARITHMETIC):
        yield ("audit.expression", f"the operator {type(node.op).__name__}", "use + - * / // %")
    elif isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
        yield ("audit.expression", "text formatting with %", "join text with +")
    yield from _problems(node.left, policy)
    if isinstance(node.op, ast.Add) and _is_reference(node.left, policy.path_roots) and _is_subpath(node.right):
        return
    yield from _problems(node.right, policy)


def _constant_problems(node: ast.Constant) -> Iterator[Problem]:
    if isinstance(node.value, str):
        problem = text_problem(node.value)
        if problem:
            yield problem
    elif node.value is not None and not isinstance(node.value, bool | int | float):
        yield ("audit.expression", f"the constant {shorten(node.value)}", "use a number or text")


def _name_problems(node: ast.Name | ast.Attribute, policy: Policy) -> Iterator[Problem]:
    dotted = dotted_name(node)
    if dotted is not None:
        if not policy.allows_value(dotted):
            yield ("audit.name", f"the name {shorten(dotted)}", "use a listed name (docs/sharing.md)")
    elif isinstance(node, ast.Attribute):
        if node.attr not in policy.attributes:
            yield ("audit.attribute", f"the attribute {shorten(node.attr)}", "use a listed attribute (docs/sharing.md)")
        yield from _problems(node.value, policy)


def _call_problems(node: ast.Call, policy: Policy) -> Iterator[Problem]:
    dotted = dotted_name(node.func)
    if dotted is not None:
        if not policy.allows_call(dotted):
            yield ("audit.call", f"the call of {shorten(dotted)}", "call a listed function (docs/sharing.md)")
    elif isinstance(node.func, ast.Attribute) and node.func.attr in policy.methods:
        yield from _problems(node.func.value, policy)
    else:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else "a computed value"
        yield ("audit.call", f"the call of {shorten(name)}", "call a listed method (docs/sharing.md)")
    for argument in node.args:
        yield from _problems(argument, policy)
    for keyword in node.keywords:
        yield from _pair_problems(keyword.arg, keyword.value, policy)


def _dict_problems(node: ast.Dict, policy: Policy) -> Iterator[Problem]:
    for key, value in zip(node.keys, node.values, strict=True):
        if not isinstance(key, ast.Constant):
            yield ("audit.expression", "a dictionary key that is not a literal", "write the key out")
            continue
        yield from _pair_problems(str(key.value), value, policy)


def _pair_problems(name: str | None, value: ast.expr, policy: Policy) -> Iterator[Problem]:
    if name is None:
        yield ("audit.expression", "**arguments", "write the arguments out")
    elif name in policy.arguments:
        literal = value.value if isinstance(value, ast.Constant) else ...
        problem = argument_problem(name, literal, policy.arguments[name])
        if problem:
            yield problem
    yield from _problems(value, policy)


def dotted_name(node: ast.AST) -> str | None:
    """Return ``a.b.c`` for a chain of attributes that starts at a plain name, else None."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _is_reference(node: ast.AST, ids: frozenset[str] | None = None) -> bool:
    return (
        isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Name)
        and node.value.id == _REFERENCES
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, str)
        and (ids is None or node.slice.value in ids)
    )


def _is_subpath(node: ast.AST) -> bool:
    """Tell whether ``node`` is text such as ``'/models/model.pt'``, which is only safe behind a path."""
    if not (isinstance(node, ast.Constant) and isinstance(node.value, str)):
        return False
    return node.value.startswith("/") and text_problem(node.value[1:]) is None
