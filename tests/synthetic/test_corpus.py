"""The pre-training corpus: covers every word of the benchmark, shares none of its people or
styles."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from cskt.backbones import known_token_ids, tokenizer_for
from cskt.config import MINI
from cskt.data.synthetic import corpus, domains
from cskt.data.synthetic.captions import caption
from cskt.data.synthetic.corpus import ILLUSTRATION, corpus_caption, corpus_item
from cskt.data.synthetic.domains import DOMAINS, VIEWS
from cskt.data.synthetic.identities import Identity, sample_identity
from cskt.data.synthetic.render import render
from cskt.data.synthetic.style import Scene


def benchmark_captions(shots: int, captions: int) -> list[str]:
    texts = []
    for seed in range(shots):
        rng, view = np.random.default_rng(seed), VIEWS[seed % 4]
        person = sample_identity(rng)
        labels = render(person, Scene(view, seed % 5, seed), DOMAINS["ABC"[seed % 3]])[1]
        texts += [
            caption(person, labels, view, domain, rng) for domain in "ABC" for _ in range(captions)
        ]
    return texts


def test_the_shipped_backbone_knows_every_token_of_the_benchmark():
    tokens = tokenizer_for(MINI)(benchmark_captions(shots=120, captions=4))
    assert set(tokens.unique().tolist()) - {0} <= known_token_ids(MINI)


def test_items_are_deterministic_and_captions_run_from_short_to_long():
    items = [corpus_item(index) for index in range(24)]
    again = corpus_item(7)
    assert np.array_equal(items[7][0], again[0]) and items[7][1] == again[1]
    rng = np.random.default_rng(0)
    texts = [corpus_caption(facts, rng) for _, facts in items for _ in range(6)]
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) <= 4 and max(lengths) >= 25
    assert not any("{" in text or re.search(r"\ba [aeiou]", text) for text in texts)


def drawn_of(person: Identity) -> tuple:
    """The attributes that leave a trace in a picture: no colour of a thing that the person does not
    have."""
    row = dataclasses.asdict(person)
    for thing, colour in (
        ("bag", "bag_colour"),
        ("headwear", "headwear_colour"),
        ("lower", "lower_colour"),
    ):
        row[colour] = row[colour] if row[thing] != "none" else "none"
    row["pattern_colour"] = row["pattern_colour"] if row["pattern"] != "plain" else "none"
    row["inner_colour"] = row["inner_colour"] if row["upper"] in ("jacket", "coat") else "none"
    row["hair_colour"] = row["hair_colour"] if row["hair"] != "bald" else "none"
    return tuple(row.values())


def test_the_corpus_shares_no_style_and_no_person_with_the_domains(monkeypatch, tmp_path):
    """The people are those of ``write_dataset``, undrawn and unwritten: each has a stream of its
    own."""
    assert all(
        style.backdrop != ILLUSTRATION.backdrop and style.head < 1.15 for style in DOMAINS.values()
    )
    people = []

    def sampled(rng: np.random.Generator) -> Identity:
        people.append(sample_identity(rng))
        return people[-1]

    monkeypatch.setattr(domains, "sample_identity", sampled)
    monkeypatch.setattr(domains, "_shots", lambda *_: iter(()))
    for domain in DOMAINS:
        domains.write_dataset(domain, tmp_path)
    assert len(people) == 3 * sum(domains.IDENTITIES)
    corpus_people = [
        sample_identity(np.random.default_rng((corpus._SEED, index))) for index in range(300)
    ]
    assert [dataclasses.asdict(who) for who in corpus_people[:3]] == [
        corpus_item(i)[1]["person"] for i in range(3)
    ]
    assert not set(map(drawn_of, corpus_people)) & set(map(drawn_of, people))
    assert len(set(map(drawn_of, people))) == len(
        people
    )  # nor is anybody in two splits or two domains
