"""Filters of Milvus' language, such as ``camera == 'c3' and identity in [1, 2]``, as conditions of
SQLite, so that they mean the same in a folder and on a server.

Milvus' expressions are nearly Python's: a few words are changed, and Python's own parser reads the
rest. Nothing of it is ever run, and every value reaches SQLite as a parameter.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any, NamedTuple

from cskt.data.images import reason
from cskt.errors import ConfigurationError

COLUMNS = {"id": "text", "source": "text", "camera": "text", "time": "text", "identity": "number"}
MOST_TERMS = 500  # joined by "and" or "or": SQLite nests no deeper than 1000
META = "cskt_meta"  # stands for Milvus' $meta, which is no name in Python
LIKE = "@"  # stands for "like", an operator that Python lacks
# A text in quotes, a word or a sign. Whatever is in quotes stays as it is.
TOKEN = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\$?\w+|&&|\|\||!=|!""", re.DOTALL)
IN_PYTHON = {
    "&&": " and ",
    "||": " or ",
    "!": " not ",
    "and": "and",
    "or": "or",
    "not": "not",
    "in": "in",
    "is": "is",
    "like": LIKE,
    "null": "None",
    "true": "True",
    "false": "False",
    "$meta": META,
}
COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "=",
    ast.NotEq: "<>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Mod: "%",
}


class Operand(NamedTuple):
    """A side of a comparison: SQL, and whether it is a "text", a "number", or a "fact", which may
    be either and need not be there."""

    sql: str
    kind: str


class Condition(NamedTuple):
    """A condition on the rows of a folder, and the values of its parameters by name."""

    sql: str
    values: dict[str, Any]


class _Unfit(Exception):
    """What of a filter is not understood."""


def not_understood(where: str, why: str) -> ConfigurationError:
    """The error about a filter."""
    return ConfigurationError(
        f"the filter {where!r:.200} is not understood ({why}); "
        "write it like: camera == 'c3' and identity in [1, 2]"
    )


def condition_of(where: str) -> Condition:
    """A filter as SQL over the columns :data:`COLUMNS` and ``facts``, a json text; "" fits every
    row.

    :class:`ConfigurationError` for what is not understood, and for a text compared with a number. A
    row that lacks a fact fits no comparison with it, ``is null`` aside.
    """
    if not where.strip():
        return Condition("1", {})
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes in a text
            tree = ast.parse(TOKEN.sub(_in_python, where).strip(), mode="eval")
        translation = _Translation()
        return Condition(translation.condition(tree.body), translation.values)
    except (_Unfit, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise not_understood(where, reason(error)) from error


def _in_python(match: re.Match[str]) -> str:
    token = match[0]
    return IN_PYTHON.get(token.lower(), token)


class _Translation:
    """From the tree of an expression to SQL; ``values`` are those of its parameters."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def _parameter(self, value: Any) -> str:
        name = f"value{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def condition(self, node: ast.expr) -> str:
        """What is true or false of a row."""
        if isinstance(node, ast.BoolOp):
            if len(node.values) > MOST_TERMS:
                raise _Unfit(f"more than {MOST_TERMS} terms; use in [...]")
            joint = " AND " if isinstance(node.op, ast.And) else " OR "
            return "(" + joint.join(self.condition(part) for part in node.values) + ")"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return f"(NOT {self.condition(node.operand)})"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return self._like(node.left, node.right)
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            parts = []
            for index, operator in enumerate(node.ops):
                parts.append(self._comparison(sides[index], operator, sides[index + 1]))
            return "(" + " AND ".join(parts) + ")"
        raise _Unfit(f"{ast.unparse(node)} is neither true nor false")

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> str:
        first = self._operand(left)
        if isinstance(operator, ast.In | ast.NotIn):
            return self._membership(first, isinstance(operator, ast.In), right)
        if isinstance(operator, ast.Is | ast.IsNot):
            if not isinstance(right, ast.Constant) or right.value is not None:
                raise _Unfit("after is comes null or not null")
            return f"{first.sql} IS {'NOT ' if isinstance(operator, ast.IsNot) else ''}NULL"
        second = self._operand(right)
        kinds = {first.kind, second.kind}
        if kinds == {"text", "number"}:
            raise _Unfit(f"{ast.unparse(left)} and {ast.unparse(right)} are of two types")
        sign = COMPARISONS[type(operator)]
        compared = f"{first.sql} {sign} {second.sql}"
        if sign in ("=", "<>") or kinds in ({"text"}, {"number"}):
            return compared
        # SQLite orders every number before every text; Milvus compares what is of one type.
        types = [_type_of(first.sql), _type_of(second.sql)]
        return f"({compared} AND {types[0]} = {types[1]})"

    def _membership(self, operand: Operand, included: bool, right: ast.expr) -> str:
        if not isinstance(right, ast.List | ast.Tuple):
            raise _Unfit("after in comes a list, such as [1, 2]")
        values = []
        for element in right.elts:
            value = _value(element)
            if "fact" not in (operand.kind, _kind(value)) and operand.kind != _kind(value):
                raise _Unfit(f"{ast.unparse(element)} is of another type")
            values.append(value)
        listed = self._parameter(json.dumps(values))
        word = "IN" if included else "NOT IN"
        return f"{operand.sql} {word} (SELECT value FROM json_each({listed}))"

    def _like(self, left: ast.expr, right: ast.expr) -> str:
        operand = self._operand(left)
        pattern = _value(right)
        if operand.kind == "number" or not isinstance(pattern, str):
            raise _Unfit("like compares texts")
        return f"{operand.sql} GLOB {self._parameter(_glob(pattern))}"

    def _operand(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.Name) and node.id in COLUMNS:
            return Operand(node.id, COLUMNS[node.id])
        if isinstance(node, ast.Name | ast.Subscript):
            return Operand(f"json_extract(facts, {self._parameter(_path(node))})", "fact")
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            first = self._operand(node.left)
            second = self._operand(node.right)
            if "text" in (first.kind, second.kind):
                raise _Unfit(f"{ast.unparse(node)} calculates with a text")
            sign = ARITHMETIC[type(node.op)]
            return Operand(f"({_number(first)} {sign} {_number(second)})", "number")
        value = _value(node)
        return Operand(self._parameter(value), _kind(value))


def _type_of(sql: str) -> str:
    """ "text" or not, which is all that an order needs to know."""
    return f"(typeof({sql}) = 'text')"


def _number(operand: Operand) -> str:
    """An operand to calculate with: SQLite would make numbers of texts."""
    if operand.kind == "number":
        return operand.sql
    return f"iif({_type_of(operand.sql)}, NULL, {operand.sql})"


def _kind(value: str | float) -> str:
    return "text" if isinstance(value, str) else "number"


def _value(node: ast.expr) -> str | float:
    """A text, number or truth value as it is written."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if not isinstance(number, str):
            return -number
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float):
        if isinstance(node.value, int) and abs(node.value) >= 2**63:
            raise _Unfit("a number has more than 64 bits")
        return node.value
    raise _Unfit(f"{ast.unparse(node)} is no value")


def _path(node: ast.expr) -> str:
    """Where a fact is in a row's json: ``colour``, ``$meta['colour']``, ``seen['at'][0]``."""
    if isinstance(node, ast.Name):
        return "$" if node.id == META else f"$.{json.dumps(node.id, ensure_ascii=False)}"
    if not isinstance(node, ast.Subscript):
        raise _Unfit(f"{ast.unparse(node)} is no fact")
    key = _value(node.slice)
    if isinstance(key, str):
        if '"' in key or "\\" in key:
            raise _Unfit(f"{key!r} is no name of a fact")
        return f'{_path(node.value)}."{key}"'
    if not isinstance(key, int) or key < 0:
        raise _Unfit(f"{key!r} is no place in a list")
    return f"{_path(node.value)}[{key}]"


def _glob(pattern: str) -> str:
    """A pattern of Milvus' ``like`` (% for any text, _ for any character) as one of GLOB, which
    tells capitals apart as Milvus does."""
    wild = {"%": "*", "_": "?"}
    characters = []
    escaped = False
    for character in pattern:
        if character == "\\" and not escaped:
            escaped = True
            continue
        if character in wild and not escaped:
            characters.append(wild[character])
        elif character in "*?[":
            characters.append(f"[{character}]")
        else:
            characters.append(character)
        escaped = False
    return "".join(characters)
