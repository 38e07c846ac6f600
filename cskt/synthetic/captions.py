"""The caption grammar: English sentences about what one image shows, from its attribute row and its
label map.

A caption never mentions what the view hides; of what is visible it mentions some. Three wordings,
one per domain, share one lexicon with the pre-training corpus.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from cskt.synthetic.canvas import PART
from cskt.synthetic.identities import Identity
from cskt.synthetic.lexicon import LEXICON, PLURAL, PRONOUNS, WORDINGS, Wording
from cskt.synthetic.tables import table

_GROUPS: dict[str, dict[str, float]] = table("words")["groups"]
_BALD_PIXELS: int = table("words")["bald_pixels"]
SHORTEST, LONGEST = 20, 45  # words of a caption


def with_article(phrase: str) -> str:
    """``a`` or ``an`` by the first sound."""
    article = "an" if phrase[0] in "aeiou" else "a"
    return f"{article} {phrase}"


def join(phrases: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of none, the empty string."""
    if len(phrases) < 2:
        return "".join(phrases)
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def visible_attributes(person: Identity, labels: np.ndarray, view: str) -> dict[str, str]:
    """What this image shows of the person: attribute group -> phrase key (``"upper": "t-shirt"``
    ...).

    A backpack seen from the front is only its straps and is not named; a ponytail is not seen from
    the front.
    """
    pixels = np.bincount(labels.ravel(), minlength=len(PART)) * (128 * 64 / labels.size)
    front = view == "front"
    kinds = {
        "hair": person.hair,
        "upper": person.upper,
        "lower": person.lower,
        "shoes": person.shoes,
        "headwear": person.headwear,
        "eyewear": person.eyewear,
        "inner": "t-shirt" if front else "none",
        "bag": person.bag,
        "scarf": "scarf",
        "umbrella": "umbrella",
    }
    if front and person.hair == "ponytail":
        kinds["hair"] = "tied"
    if front and person.bag == "backpack":
        kinds["bag"] = "none"
    bald = person.hair == "bald" and person.headwear == "none"
    shown = {}
    for group, kind in kinds.items():
        seen = pixels[PART[group]] >= _GROUPS[group]["pixels"]
        if group == "hair" and bald:
            seen = seen or pixels[PART["skin"]] >= _BALD_PIXELS
        if seen and kind != "none":
            shown[group] = kind
    return shown


@dataclass(frozen=True)
class Phrases:
    """Noun phrases for one person; ``synonym`` is the vocabulary, a column of the lexicon (None
    draws a synonym anew each time), and ``pair`` how often it says "a pair of"."""

    person: Identity
    view: str
    rng: np.random.Generator
    synonym: int | None
    pair: float = 0.0

    def word(self, key: str) -> str:
        """The vocabulary's word for a key, now and then another one."""
        if key not in LEXICON:
            return key
        words = LEXICON[key]
        if self.synonym is not None and self.rng.random() < 0.85:
            return words[self.synonym]
        return words[int(self.rng.integers(len(words)))]

    def noun(self, colour: str, kind: str) -> str:
        """A thing in its colour: ``a blue bag``, ``white boots``."""
        phrase = f"{self.word(colour)} {self.word(kind)}"
        if kind not in PLURAL:
            return with_article(phrase)
        if self.rng.random() < self.pair:
            return f"a pair of {phrase}"
        return phrase

    def hair(self, style: str) -> str:
        """``short black hair`` and the like."""
        colour = self.word(self.person.hair_colour)
        if style == "ponytail" and self.rng.random() < 0.5:
            return f"a {colour} ponytail"
        if style == "bald":
            return "a bald head"
        if style in ("ponytail", "bun"):
            return f"{colour} hair in a {style}"
        if style == "tied":
            return f"{colour} hair"
        return f"{style} {colour} hair"

    def upper(self, inner: bool) -> str:
        """The upper garment with its pattern; ``inner`` adds the t-shirt under it."""
        person, rng = self.person, self.rng
        second = self.word(person.pattern_colour)
        pattern = self._pattern()
        colour = self.word(person.upper_colour)
        kind = self.word(person.upper)
        if pattern:
            phrase = with_article(f"{colour} and {second} {pattern} {kind}")
        else:
            phrase = with_article(f"{colour} {kind}")
        if person.pattern == "striped" and not pattern:
            phrase += f" with {second} stripes"
        if person.pattern == "logo" and self.view == "front" and rng.random() < 0.8:
            logo = rng.choice(["logo", "print", "emblem"])
            phrase += f" with {with_article(second)} {logo} on the chest"
        if inner:
            phrase += f" over {self.noun(person.inner_colour, 't-shirt')}"
        return phrase

    def _pattern(self) -> str:
        """The adjective, or none: then there is no pattern, or it is said otherwise."""
        if self.person.pattern == "striped" and self.rng.random() < 0.5:
            return "striped"
        if self.person.pattern == "checked":
            return str(self.rng.choice(["checked", "plaid", "checkered"]))
        return ""

    def eyewear(self, kind: str) -> str:
        """Glasses or sunglasses."""
        if self.rng.random() < self.pair:
            return with_article(f"pair of {self.word(kind)}")
        return self.word(kind)

    def of(self, group: str, kind: str, inner: bool = False) -> str:
        """The phrase of one visible attribute group; ``inner`` adds what is under the upper
        garment."""
        if group == "hair":
            return self.hair(kind)
        if group == "upper":
            return self.upper(inner)
        if group == "eyewear":
            return self.eyewear(kind)
        return self.noun(self.person.colour(group), kind)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _words(text: str) -> int:
    return len(text.split())


def _choose_groups(shown: dict[str, str], most: int, rng: np.random.Generator) -> list[str]:
    """Of the visible groups, those that a caption mentions: at most ``most``."""
    groups = [group for group in shown if rng.random() < _GROUPS[group]["mentioned"]]
    if "upper" not in groups and "lower" not in groups:
        groups += [group for group in ("upper", "lower") if group in shown]
    if len(groups) > most:
        groups = [str(group) for group in rng.permutation(groups)[:most]]
    return groups


def _pick(phrases: dict[str, str], groups: tuple[str, ...]) -> list[str]:
    return [phrases[group] for group in groups if group in phrases]


def _say(
    templates: tuple[str, ...], fills: dict[str, str], many_worn: bool, rng: np.random.Generator
) -> str:
    """One of the templates that fit, filled: one about the look of the hair needs such a look, one
    in the plural several things."""
    fitting = []
    for template in templates:
        wants_look = "{look}" in template
        wants_many = "were" in template
        if (fills["look"] or not wants_look) and (many_worn or not wants_many):
            fitting.append(template)
    return str(rng.choice(fitting)).format(**fills)


def compose(
    person: Identity,
    shown: dict[str, str],
    groups: Collection[str],
    view: str,
    wording: Wording,
    rng: np.random.Generator,
) -> str:
    """One try: sentences about those of the visible attributes (``shown``) that are in
    ``groups``."""
    vocabulary = Phrases(person, view, rng, wording.synonym, wording.pair)
    phrases = {}
    for group, kind in shown.items():
        if group in groups and group != "inner":
            phrases[group] = vocabulary.of(group, kind, inner="inner" in groups)
    seen_as = str(rng.choice(wording.views[view]))
    clothes = _pick(phrases, ("upper", "lower"))
    worn = _pick(phrases, ("shoes", "headwear", "eyewear", "scarf"))
    carried = _pick(phrases, ("bag", "umbrella"))
    rng.shuffle(worn)
    if worn and not clothes:
        clothes = worn[:1]
        worn = worn[1:]
    fills = {
        **PRONOUNS[person.gender],
        "who": vocabulary.word(person.gender),
        "view": seen_as,
        "clothes": join(clothes) or "clothes that can hardly be seen",
        "worn": join(worn),
        "carried": join(carried),
        "hair": phrases.get("hair", ""),
        "look": "",
    }
    if "hair" in phrases and shown["hair"] in ("long", "short"):
        fills["look"] = f"{shown['hair']} and {vocabulary.word(person.hair_colour)}"
    fills |= {key.capitalize(): _capitalise(value) for key, value in fills.items()}
    return _sentences(wording, fills, len(worn) > 1, rng)


def _sentences(
    wording: Wording, fills: dict[str, str], many_worn: bool, rng: np.random.Generator
) -> str:
    """The opening, then what is worn and carried in any order, then perhaps the view."""
    openings = wording.openings if fills["hair"] else wording.bare_openings
    opening = _say(openings, fills, many_worn, rng)
    rest = []
    if fills["worn"]:
        rest.append(_say(wording.worn, fills, many_worn, rng))
    if fills["carried"]:
        rest.append(_say(wording.carried, fills, many_worn, rng))
    rng.shuffle(rest)
    short = _words(" ".join([opening, *rest])) < 21
    view_is_said = fills["view"] in opening.lower()
    if not view_is_said and (short or rng.random() < 0.35):
        rest.append(_say(wording.view, fills, many_worn, rng))
    sentences = [_capitalise(sentence) for sentence in (opening, *rest)]
    return " ".join(sentences)


def caption(
    person: Identity, labels: np.ndarray, view: str, domain: str, rng: np.random.Generator
) -> str:
    """One caption in the wording of ``domain`` (``"A"``, ``"B"`` or ``"C"``): never more than 45
    words, and at least 20 wherever the picture shows enough to say."""
    shown = visible_attributes(person, labels, view)
    wording = WORDINGS[domain]
    short_enough: list[str] = []
    for most in range(len(shown), 0, -1):  # one thing fewer each time that six tries were too long
        for _ in range(6):
            groups = _choose_groups(shown, most, rng)
            text = compose(person, shown, groups, view, wording, rng)
            if SHORTEST <= _words(text) <= LONGEST:
                return text
            if _words(text) <= LONGEST:
                short_enough.append(text)
        if short_enough:
            return max(short_enough, key=_words)
    groups = _choose_groups(shown, 0, rng)
    return compose(person, shown, groups, view, wording, rng)
