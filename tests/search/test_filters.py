"""Filters of Milvus' language as conditions of SQLite."""

from __future__ import annotations

import json
import sqlite3

import pytest

from cskt.errors import ConfigurationError
from cskt.search.filters import condition_of

ROWS = [
    ("a", "in/a.png", 1, "c1", "2024", {"colour": "red", "size": 3, "seen": {"at": ["x", "y"]}}),
    ("b", "in/b*.png", 2, "c2", None, {"colour": "Red", "size": "3"}),
    ("c", "in/c.png", None, None, None, {}),
]


def fitting(where: str) -> str:
    """The ids of the rows that a filter passes."""
    condition = condition_of(where)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE image (id, source, identity INTEGER, camera, time, facts)")
    for *columns, facts in ROWS:
        database.execute("INSERT INTO image VALUES (?,?,?,?,?,?)", [*columns, json.dumps(facts)])
    rows = database.execute(f"SELECT id FROM image WHERE {condition.sql}", condition.values)
    return "".join(row[0] for row in rows)


@pytest.mark.parametrize(
    "where, ids",
    [
        ("", "abc"),
        ("camera == 'c1' or identity == 2", "ab"),
        ("camera != 'c1'", "b"),
        ("!(camera == 'c1')", "b"),
        ("camera IS NULL", "c"),
        ("camera is not null and identity > -1", "ab"),
        ("colour == 'red'", "a"),
        ("colour like '_ed'", "ab"),
        ("source LIKE '%*%'", "b"),
        ("size > 2", "a"),
        ("size >= '3'", "b"),
        ("size in [3]", "a"),
        ("size + 1 == 4 && identity in [1, 2]", "a"),
        ("seen['at'][1] == 'y'", "a"),
        ("$meta['colour'] == \"Red\"", "b"),
        ("colour == 'and || not'", ""),
    ],
)
def test_a_filter_passes_the_rows_that_fit(where, ids):
    assert fitting(where) == ids


@pytest.mark.parametrize(
    "where",
    [
        "camera",
        "1",
        "camera == 3",
        "identity == 'x'",
        "identity in ['x']",
        "identity in camera",
        "camera = 'x'",
        "f(camera) == 1",
        "camera == 'x'; DROP TABLE image",
        "camera.x == 1",
        "identity == 99999999999999999999",
        "(" * 500 + "identity == 1" + ")" * 500,
        " or ".join(["identity == 1"] * 600),
        "camera == 'x",
        "lambda: 1",
        'seen["a\\"b"] == 1',
    ],
)
def test_what_is_no_filter_gets_a_sentence(where):
    with pytest.raises(ConfigurationError, match=r"(?s)the filter .* is not understood"):
        condition_of(where)
