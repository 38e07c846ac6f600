"""The words of the captions: a lexicon shared by all, and one wording for each domain."""

from __future__ import annotations

from dataclasses import dataclass

from cskt.synthetic.tables import table

_WORDS = table("words")
LEXICON: dict[str, tuple[str, str, str, str]] = _WORDS["lexicon"]
PLURAL: tuple[str, ...] = _WORDS["plural"]
PRONOUNS: dict[str, dict[str, str]] = _WORDS["pronouns"]


@dataclass(frozen=True)
class Wording:
    """A domain's way of writing: its word among the four of the lexicon (``synonym``), how often it
    writes "a pair of" (``pair``), and its templates, each one sentence.

    ``openings`` name the hair and ``bare_openings`` do not; ``worn`` and ``carried`` add what the
    opening leaves out, and ``view`` how the person is seen, in the words of ``views``. {He} and the
    like open a sentence.
    """

    synonym: int
    pair: float
    openings: tuple[str, ...]
    bare_openings: tuple[str, ...]
    worn: tuple[str, ...]
    carried: tuple[str, ...]
    view: tuple[str, ...]
    views: dict[str, tuple[str, ...]]


WORDINGS = {domain: Wording(**fields) for domain, fields in _WORDS["wordings"].items()}
