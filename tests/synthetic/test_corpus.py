"""The pre-training corpus: covers every word of the benchmark, shares none of its people or
styles."""

from __future__ import annotations

import dataclasses
import json
import re

import numpy as np
import pytest

from cskt.config import MINI
from cskt.model.backbone import known_token_ids, tokenizer_for
from cskt.synthetic import corpus
from cskt.synthetic.captions import caption
from cskt.synthetic.corpus import ILLUSTRATION, corpus_caption, corpus_item
from cskt.synthetic.domains import DOMAINS, IDENTITIES, VIEWS, write_dataset
from cskt.synthetic.identities import Identity, sample_identity
from cskt.synthetic.render import render
from cskt.synthetic.style import Scene


def benchmark_captions(shots: int, captions: int) -> list[str]:
    """As many captions of each wording for each of some shots."""
    texts = []
    for seed in range(shots):
        rng = np.random.default_rng(seed)
        person = sample_identity(rng)
        view = VIEWS[seed % 4]
        style = DOMAINS["ABC"[seed % 3]].style
        _, labels = render(person, Scene(view, seed % 5, seed), style)
        for wording in captions * "ABC":
            texts.append(caption(person, labels, view, wording, rng))
    return texts


@pytest.mark.slow
def test_the_shipped_backbone_knows_every_token_of_the_benchmark():
    tokens = tokenizer_for(MINI)(benchmark_captions(shots=120, captions=4))
    assert set(tokens.unique().tolist()) - {0} <= known_token_ids(MINI)


def test_an_item_is_drawn_the_same_every_time():
    image, facts = corpus_item(7)
    again, facts_again = corpus_item(7)
    assert np.array_equal(image, again)
    assert facts == facts_again


def test_captions_run_from_short_to_long():
    rng = np.random.default_rng(0)
    lengths = []
    for index in range(24):
        _, facts = corpus_item(index)
        for _ in range(6):
            text = corpus_caption(facts, rng)
            lengths.append(len(text.split()))
            assert "{" not in text
            assert not re.search(r"\ba [aeiou]", text), text
    assert min(lengths) <= 4
    assert max(lengths) >= 25


def drawn_of(person: Identity) -> Identity:
    """The attributes that leave a trace in a picture: no colour of a thing that the person does not
    have."""
    unseen = []
    if person.bag == "none":
        unseen.append("bag_colour")
    if person.headwear == "none":
        unseen.append("headwear_colour")
    if person.lower == "none":
        unseen.append("lower_colour")
    if person.pattern == "plain":
        unseen.append("pattern_colour")
    if person.upper not in ("jacket", "coat"):
        unseen.append("inner_colour")
    if person.hair == "bald":
        unseen.append("hair_colour")
    return dataclasses.replace(person, **dict.fromkeys(unseen, "none"))


def test_the_corpus_shares_no_style_with_the_domains():
    for domain in DOMAINS.values():
        assert domain.style.backdrop != ILLUSTRATION.backdrop
        assert domain.style.head < 1.15


def benchmark_people() -> list[Identity]:
    """Everybody in the three domains: each person has a random stream of their own."""
    people = []
    for domain in DOMAINS.values():
        for identity in range(1, sum(IDENTITIES) + 1):
            rng = np.random.default_rng((domain.seed, 0, identity))
            people.append(sample_identity(rng))
    return people


def test_benchmark_people_are_those_that_are_written(tmp_path):
    write_dataset("B", tmp_path, identities=(1, 0, 1))
    rows = json.loads((tmp_path / "attributes.json").read_text())
    written = {row["id"]: Identity(**row["attributes"]) for row in rows}
    people_of_b = benchmark_people()[sum(IDENTITIES) :]
    assert list(written.values()) == people_of_b[:2]


def test_nobody_is_in_two_splits_or_two_domains_or_in_the_corpus():
    people = {drawn_of(person) for person in benchmark_people()}
    assert len(people) == 3 * sum(IDENTITIES)
    for index in range(300):
        person = sample_identity(np.random.default_rng((corpus.SEED, index)))
        assert drawn_of(person) not in people


def test_corpus_people_are_those_that_are_drawn():
    _, facts = corpus_item(2)
    person = sample_identity(np.random.default_rng((corpus.SEED, 2)))
    assert facts["person"] == dataclasses.asdict(person)
