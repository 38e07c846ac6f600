"""The caption grammar: English sentences about what one image shows, from its attribute row and its
label map.

A caption never mentions what the view hides; of what is visible it mentions some. Three wordings,
one per domain, share one lexicon with the pre-training corpus.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from cskt.data.synthetic.canvas import PART
from cskt.data.synthetic.identities import Identity

# Four words for each key: those of the wordings A, B and C, and one more; a word that stands twice
# is drawn more often.
LEXICON: dict[str, tuple[str, ...]] = {
    key: tuple(words.split(", "))
    for key, words in {
        "man": "man, male pedestrian, guy, gentleman",
        "woman": "woman, female pedestrian, girl, lady",
        "t-shirt": "t-shirt, short-sleeved top, tee, tee shirt",
        "shirt": "shirt, long-sleeved shirt, button-up shirt, collared shirt",
        "hoodie": "hoodie, hooded sweatshirt, hooded top, hoodie",
        "jacket": "jacket, casual jacket, zip jacket, jacket",
        "coat": "coat, long coat, overcoat, winter coat",
        "sweater": "sweater, pullover, jumper, knitted sweater",
        "vest": "tank top, sleeveless top, vest, sleeveless shirt",
        "dress": "dress, knee-length dress, summer dress, frock",
        "trousers": "pants, long trousers, trousers, slacks",
        "jeans": "jeans, denim jeans, denim trousers, denims",
        "shorts": "shorts, short pants, shorts, knee shorts",
        "skirt": "skirt, knee-length skirt, skirt, flared skirt",
        "leggings": "leggings, tight leggings, tights, leggings",
        "sneakers": "sneakers, sports shoes, trainers, running shoes",
        "boots": "boots, ankle boots, boots, high boots",
        "shoes": "shoes, leather shoes, loafers, flat shoes",
        "sandals": "sandals, open sandals, sandals, flip flops",
        "backpack": "backpack, school backpack, rucksack, knapsack",
        "shoulder bag": "shoulder bag, crossbody bag, satchel, messenger bag",
        "handbag": "handbag, purse, hand bag, tote bag",
        "cap": "cap, baseball cap, peaked cap, cap",
        "beanie": "beanie, knit cap, woolly hat, beanie hat",
        "hat": "hat, brimmed hat, sun hat, hat",
        "glasses": "glasses, eyeglasses, spectacles, glasses",
        "sunglasses": "sunglasses, dark sunglasses, shades, dark glasses",
        "scarf": "scarf, thick scarf, scarf, neck scarf",
        "umbrella": "umbrella, open umbrella, umbrella, parasol",
        "grey": "gray, gray, grey, silver",
        "navy": "dark blue, navy blue, navy, deep blue",
        "beige": "khaki, beige, tan, cream",
        "purple": "purple, purple, violet, lilac",
        "blond": "blonde, blond, fair, golden",
        "red": "red, bright red, red, crimson",
        "green": "green, dark green, green, emerald",
        "pink": "pink, light pink, pink, rose",
    }.items()
}
PLURAL = {
    "trousers",
    "jeans",
    "shorts",
    "leggings",
    "sneakers",
    "boots",
    "shoes",
    "sandals",
    "glasses",
    "sunglasses",
}
# How many pixels of a part a viewer needs to name it with its colour, in a picture of 128 x 64.
NAMEABLE = {
    "upper": 70,
    "inner": 18,
    "lower": 45,
    "shoes": 12,
    "bag": 30,
    "headwear": 16,
    "eyewear": 5,
    "hair": 18,
    "scarf": 12,
    "umbrella": 60,
}
# How often a caption mentions what is visible, if not in 82 percent.
_MENTIONED = {
    "hair": 0.75,
    "shoes": 0.7,
    "eyewear": 0.7,
    "inner": 0.6,
    "lower": 0.92,
    "upper": 0.98,
}
SHORTEST, LONGEST = 20, 45  # words of a caption
PRONOUNS = {"man": ("he", "him", "his"), "woman": ("she", "her", "her")}


# Each domain's way of writing: its word in the lexicon, how often it writes "a pair of", and its
# templates, each one sentence or, in ``views``, what stands for {view}. {He} and the like open a
# sentence.
WORDINGS: dict[str, dict[str, Any]] = {
    "A": {
        "synonym": 0,
        "pair": 0.0,
        "openings": [
            "The {who} has {hair} and is wearing {clothes}.",
            "The {who} with {hair} is wearing {clothes}.",
            "A {who} with {hair} wears {clothes}.",
        ],
        "bare_openings": ["The {who} is wearing {clothes}.", "A {who} is dressed in {clothes}."],
        "worn": [
            "{He} also has {worn} on.",
            "{He} is wearing {worn} as well.",
            "{He} wears {worn}.",
        ],
        "carried": ["{He} is carrying {carried}.", "{He} has {carried} with {him}."],
        "view": ["{He} is {view}."],
        "views": {
            "front": ["walking towards the camera", "facing the camera"],
            "back": ["walking away from the camera", "facing away from the camera"],
            "left": ["walking to the left"],
            "right": ["walking to the right"],
        },
    },
    "B": {
        "synonym": 1,
        "pair": 0.3,
        "openings": [
            "A {who} with {hair} is dressed in {clothes}.",
            "This {who} has {hair}, and {he} wears {clothes}.",
            "{Hair} can be seen on this {who}, who wears {clothes}.",
        ],
        "bare_openings": ["A {who} is dressed in {clothes}.", "This {who} wears {clothes}."],
        "worn": [
            "The outfit is completed with {worn}.",
            "In addition, {he} has put on {worn}.",
            "{He} is also seen in {worn}.",
        ],
        "carried": ["{Carried} can be seen with {him}.", "{He} holds {carried} while walking."],
        "view": ["The picture shows {him} {view}.", "{He} is seen {view}."],
        "views": {
            "front": ["from the front"],
            "back": ["from behind", "from the back"],
            "left": ["from the side, heading left"],
            "right": ["from the side, heading right"],
        },
    },
    "C": {
        "synonym": 2,
        "pair": 0.0,
        "openings": [
            "The {who} with {hair} wore {clothes}.",
            "{View}, the {who} with {hair} was in {clothes}.",
            "There is a {who} in {clothes}, whose hair is {look}.",
        ],
        "bare_openings": ["The {who} wore {clothes}.", "{View}, the {who} was in {clothes}."],
        "worn": [
            "On top of that, {he} had {worn}.",
            "There were also {worn}.",
            "{His} look was finished by {worn}.",
        ],
        "carried": ["{He} carried {carried}.", "{Carried} went along with {him}."],
        "view": ["{He} was {view}."],
        "views": {
            "front": ["coming closer", "in front of us"],
            "back": ["with the back turned", "going away"],
            "left": ["passing by to the left"],
            "right": ["passing by to the right"],
        },
    },
}


def with_article(phrase: str) -> str:
    """``a`` or ``an`` by the first sound."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def join(phrases: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; of none, the empty string."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def visible_attributes(person: Identity, labels: np.ndarray, view: str) -> dict[str, str]:
    """What this image shows of the person: attribute group -> phrase key (``"upper": "t-shirt"``
    ...).

    A backpack seen from the front is only its straps and is not named; a ponytail is not seen from
    the front.
    """
    pixels = np.bincount(labels.ravel(), minlength=len(PART)) * (128 * 64 / labels.size)
    front = view == "front"
    seen = {group for group, least in NAMEABLE.items() if pixels[PART[group]] >= least}
    if person.hair == "bald" and person.headwear == "none" and pixels[PART["skin"]] >= 30:
        seen.add("hair")
    kinds = {
        "hair": "tied" if person.hair == "ponytail" and front else person.hair,
        **{
            group: getattr(person, group)
            for group in ("upper", "lower", "shoes", "headwear", "eyewear")
        },
        "inner": "t-shirt" if front else "none",
        "bag": "none" if person.bag == "backpack" and front else person.bag,
        "scarf": "scarf",
        "umbrella": "umbrella",
    }
    return {group: kind for group, kind in kinds.items() if group in seen and kind != "none"}


class Phrases:
    """Noun phrases for one person in one vocabulary; ``synonym`` None draws a synonym anew each
    time."""

    def __init__(
        self,
        person: Identity,
        view: str,
        rng: np.random.Generator,
        synonym: int | None,
        pair: float = 0.0,
    ) -> None:
        self.person, self.view, self.rng, self.synonym, self.pair = person, view, rng, synonym, pair

    def word(self, key: str) -> str:
        """The vocabulary's word for a key, now and then another one."""
        choices = LEXICON.get(key)
        if choices is None:
            return key
        own = self.synonym is not None and self.rng.random() < 0.85
        return choices[self.synonym if own else int(self.rng.integers(len(choices)))]

    def noun(self, colour: str, kind: str) -> str:
        phrase = f"{self.word(colour)} {self.word(kind)}"
        if kind not in PLURAL:
            return with_article(phrase)
        return f"a pair of {phrase}" if self.rng.random() < self.pair else phrase

    def hair(self, style: str) -> str:
        colour = self.word(self.person.hair_colour)
        if style == "ponytail" and self.rng.random() < 0.5:
            return f"a {colour} ponytail"
        return {
            "bald": "a bald head",
            "ponytail": f"{colour} hair in a ponytail",
            "bun": f"{colour} hair in a bun",
            "tied": f"{colour} hair",
        }.get(style, f"{style} {colour} hair")

    def upper(self, inner: bool) -> str:
        person, rng, second, pattern = (
            self.person,
            self.rng,
            self.word(self.person.pattern_colour),
            "",
        )
        if person.pattern == "striped":
            pattern = "striped" if rng.random() < 0.5 else ""  # or "with ... stripes"
        elif person.pattern == "checked":
            pattern = str(rng.choice(["checked", "plaid", "checkered"]))
        colour, kind = self.word(person.upper_colour), self.word(person.upper)
        phrase = with_article(
            f"{colour} and {second} {pattern} {kind}" if pattern else f"{colour} {kind}"
        )
        if person.pattern == "striped" and not pattern:
            phrase += f" with {second} stripes"
        if person.pattern == "logo" and self.view == "front" and rng.random() < 0.8:
            phrase += f" with {with_article(second)} {rng.choice(['logo', 'print', 'emblem'])} on the chest"
        return f"{phrase} over {self.noun(person.inner_colour, 't-shirt')}" if inner else phrase

    def of(self, group: str, kind: str, inner: bool = False) -> str:
        """The phrase of one visible attribute group; ``inner`` adds what is under the upper
        garment."""
        if group == "hair":
            return self.hair(kind)
        if group == "upper":
            return self.upper(inner)
        if group == "eyewear":
            return (
                with_article(f"pair of {self.word(kind)}")
                if self.rng.random() < self.pair
                else self.word(kind)
            )
        return self.noun(self.person.colour(group), kind)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _compose(
    person: Identity,
    shown: dict[str, str],
    view: str,
    words: dict[str, Any],
    rng: np.random.Generator,
    most: int,
) -> str:
    """One try: sentences about at most ``most`` of the visible attribute groups."""
    phrases = Phrases(person, view, rng, words["synonym"], words["pair"])
    keep = [group for group in shown if rng.random() < _MENTIONED.get(group, 0.82)]
    if not {"upper", "lower"} & set(keep):
        keep += [group for group in ("upper", "lower") if group in shown]
    if len(keep) > most:
        keep = [str(group) for group in rng.permutation(keep)[:most]]
    text = {
        group: phrases.of(group, kind, inner="inner" in keep)
        for group, kind in shown.items()
        if group in keep and group != "inner"
    }
    seen_as = str(rng.choice(words["views"][view]))
    clothes, worn, carried = (
        [text[group] for group in groups if group in text]
        for groups in (
            ("upper", "lower"),
            ("shoes", "headwear", "eyewear", "scarf"),
            ("bag", "umbrella"),
        )
    )
    rng.shuffle(worn)
    if not clothes and worn:
        clothes, worn = worn[:1], worn[1:]
    fills = dict(
        zip(("he", "him", "his"), PRONOUNS[person.gender], strict=True),
        view=seen_as,
        worn=join(worn),
        who=phrases.word(person.gender),
        carried=join(carried),
        hair=text.get("hair", ""),
        clothes=join(clothes) or "clothes that can hardly be seen",
        look="",
    )
    if "hair" in text and shown["hair"] in ("long", "short"):
        fills["look"] = f"{shown['hair']} and {phrases.word(person.hair_colour)}"
    fills |= {key.capitalize(): _capitalise(value) for key, value in fills.items()}

    def say(templates: list[str]) -> str:
        fit = [
            each
            for each in templates
            if (fills["look"] or "{look}" not in each) and (len(worn) > 1 or "were" not in each)
        ]
        return str(rng.choice(fit)).format(**fills)

    opening = say(words["openings" if "hair" in text else "bare_openings"])
    rest = [
        say(templates)
        for templates, things in ((words["worn"], worn), (words["carried"], carried))
        if things
    ]
    rng.shuffle(rest)
    short = len(" ".join([opening, *rest]).split()) < 21
    if seen_as not in opening.lower() and (short or rng.random() < 0.35):
        rest.append(say(words["view"]))
    return " ".join(map(_capitalise, [opening, *rest]))


def caption(
    person: Identity, labels: np.ndarray, view: str, domain: str, rng: np.random.Generator
) -> str:
    """One caption in the wording of ``domain`` (``"A"``, ``"B"`` or ``"C"``): never more than 45
    words, and at least 20 wherever the picture shows enough to say."""
    shown = visible_attributes(person, labels, view)
    texts: list[str] = []
    for most in range(
        len(shown), 0, -1
    ):  # one thing fewer each time that six tries were all too long
        for _ in range(6):
            text = _compose(person, shown, view, WORDINGS[domain], rng, most)
            if SHORTEST <= len(text.split()) <= LONGEST:
                return text
            texts.append(text)
        short_enough = [text for text in texts if len(text.split()) <= LONGEST]
        if short_enough:
            return max(short_enough, key=lambda text: len(text.split()))
    return _compose(person, shown, view, WORDINGS[domain], rng, 0)
