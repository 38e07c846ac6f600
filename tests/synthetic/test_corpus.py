"""The pre-training corpus: covers every word of the benchmark, shares none of its people or styles."""

from __future__ import annotations

import re

import numpy as np

from cskt.backbones import known_token_ids, tokenizer_for
from cskt.config import MINI
from cskt.data.synthetic.captions import caption
from cskt.data.synthetic.corpus import ILLUSTRATION, corpus_caption, corpus_item
from cskt.data.synthetic.domains import DOMAINS
from cskt.data.synthetic.identities import sample_identity
from cskt.data.synthetic.render import Scene, render


def benchmark_captions(count: int) -> list[str]:
    texts = []
    for seed in range(count):
        rng, view = np.random.default_rng(seed), ("front", "back", "left", "right")[seed % 4]
        person = sample_identity(rng)
        labels = render(person, Scene(view, seed % 5, seed), DOMAINS["ABC"[seed % 3]])[1]
        texts += [caption(person, labels, view, domain, rng) for domain in "ABC"]
    return texts


def test_the_shipped_backbone_knows_every_token_of_the_benchmark():
    tokens = tokenizer_for(MINI)(benchmark_captions(400))
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


def test_the_corpus_shares_no_style_and_no_person_with_the_domains():
    assert all(style.backdrop != ILLUSTRATION.backdrop and style.head < 1.15 for style in DOMAINS.values())
    corpus = {tuple(corpus_item(index)[1]["person"].values()) for index in range(150)}
    domains = {tuple(sample_identity(np.random.default_rng((seed, 0))).to_dict().values()) for seed in (11, 22, 33)}
    assert not corpus & domains
