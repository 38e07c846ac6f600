"""The caption grammar: English sentences about what one image shows, from its attribute row and its label map.

A caption never mentions what the view hides; of what is visible it mentions some. Three wordings, one per domain,
share one lexicon with the pre-training corpus.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .figure import PART
from .identities import Identity

LEXICON: dict[str, tuple[str, ...]] = {
    "man": ("man", "male pedestrian", "guy", "gentleman"),
    "woman": ("woman", "female pedestrian", "girl", "lady"),
    "t-shirt": ("t-shirt", "short-sleeved top", "tee", "tee shirt"),
    "shirt": ("shirt", "long-sleeved shirt", "button-up shirt", "collared shirt"),
    "hoodie": ("hoodie", "hooded sweatshirt", "hooded top", "hoodie"),
    "jacket": ("jacket", "casual jacket", "zip jacket", "jacket"),
    "coat": ("coat", "long coat", "overcoat", "winter coat"),
    "sweater": ("sweater", "pullover", "jumper", "knitted sweater"),
    "vest": ("tank top", "sleeveless top", "vest", "sleeveless shirt"),
    "dress": ("dress", "knee-length dress", "summer dress", "frock"),
    "trousers": ("pants", "long trousers", "trousers", "slacks"),
    "jeans": ("jeans", "denim jeans", "denim trousers", "denims"),
    "shorts": ("shorts", "short pants", "shorts", "knee shorts"),
    "skirt": ("skirt", "knee-length skirt", "skirt", "flared skirt"),
    "leggings": ("leggings", "tight leggings", "tights", "leggings"),
    "sneakers": ("sneakers", "sports shoes", "trainers", "running shoes"),
    "boots": ("boots", "ankle boots", "boots", "high boots"),
    "shoes": ("shoes", "leather shoes", "loafers", "flat shoes"),
    "sandals": ("sandals", "open sandals", "sandals", "flip flops"),
    "backpack": ("backpack", "school backpack", "rucksack", "knapsack"),
    "shoulder bag": ("shoulder bag", "crossbody bag", "satchel", "messenger bag"),
    "handbag": ("handbag", "purse", "hand bag", "tote bag"),
    "cap": ("cap", "baseball cap", "peaked cap", "cap"),
    "beanie": ("beanie", "knit cap", "woolly hat", "beanie hat"),
    "hat": ("hat", "brimmed hat", "sun hat", "hat"),
    "glasses": ("glasses", "eyeglasses", "spectacles", "glasses"),
    "sunglasses": ("sunglasses", "dark sunglasses", "shades", "dark glasses"),
    "scarf": ("scarf", "thick scarf", "scarf", "neck scarf"),
    "umbrella": ("umbrella", "open umbrella", "umbrella", "parasol"),
    "grey": ("gray", "gray", "grey", "silver"), "navy": ("dark blue", "navy blue", "navy", "deep blue"),
    "beige": ("khaki", "beige", "tan", "cream"), "purple": ("purple", "purple", "violet", "lilac"),
    "blond": ("blonde", "blond", "fair", "golden"), "red": ("red", "bright red", "red", "crimson"),
    "green": ("green", "dark green", "green", "emerald"), "pink": ("pink", "light pink", "pink", "rose"),
}
PLURAL = {"trousers", "jeans", "shorts", "leggings", "sneakers", "boots", "shoes", "sandals", "glasses", "sunglasses"}
# How many pixels of a part a viewer needs to name it with its colour.
NAMEABLE = {"upper": 70, "inner": 18, "lower": 45, "shoes": 12, "bag": 30, "headwear": 16, "eyewear": 5, "hair": 18,
            "scarf": 12, "umbrella": 60}


@dataclass(frozen=True)
class Wording:
    """One domain's way of writing. Every template ends a sentence; ``{he}`` is capitalised where it opens one."""

    synonym: int
    openings: tuple[str, ...]
    bare_openings: tuple[str, ...]
    worn: tuple[str, ...]
    carried: tuple[str, ...]
    views: dict[str, tuple[str, ...]]
    view: tuple[str, ...]
    pair: float = 0.0


WORDINGS = {
    "A": Wording(
        synonym=0,
        openings=("The {who} has {hair} and is wearing {clothes}.", "The {who} with {hair} is wearing {clothes}.",
                  "A {who} with {hair} wears {clothes}."),
        bare_openings=("The {who} is wearing {clothes}.", "A {who} is dressed in {clothes}."),
        worn=("{He} also has {worn} on.", "{He} is wearing {worn} as well.", "{He} wears {worn}."),
        carried=("{He} is carrying {carried}.", "{He} has {carried} with {him}."),
        views={"front": ("walking towards the camera", "facing the camera"),
               "back": ("walking away from the camera", "facing away from the camera"),
               "left": ("walking to the left",), "right": ("walking to the right",)},
        view=("{He} is {view}.",)),
    "B": Wording(
        synonym=1, pair=0.3,
        openings=("A {who} with {hair} is dressed in {clothes}.", "This {who} has {hair}, and {he} wears {clothes}.",
                  "{Hair} can be seen on this {who}, who wears {clothes}."),
        bare_openings=("A {who} is dressed in {clothes}.", "This {who} wears {clothes}."),
        worn=("The outfit is completed with {worn}.", "In addition, {he} has put on {worn}.",
              "{He} is also seen in {worn}."),
        carried=("{Carried} can be seen with {him}.", "{He} holds {carried} while walking."),
        views={"front": ("from the front",), "back": ("from behind", "from the back"),
               "left": ("from the side, heading left",), "right": ("from the side, heading right",)},
        view=("The picture shows {him} {view}.", "{He} is seen {view}.")),
    "C": Wording(
        synonym=2,
        openings=("The {who} with {hair} wore {clothes}.", "{View}, the {who} with {hair} was in {clothes}.",
                  "There is a {who} in {clothes}, whose hair is {look}."),
        bare_openings=("The {who} wore {clothes}.", "{View}, the {who} was in {clothes}."),
        worn=("On top of that, {he} had {worn}.", "There were also {worn}.", "{His} look was finished by {worn}."),
        carried=("{He} carried {carried}.", "{Carried} went along with {him}."),
        views={"front": ("coming closer", "in front of us"), "back": ("with the back turned", "going away"),
               "left": ("passing by to the left",), "right": ("passing by to the right",)},
        view=("{He} was {view}.",)),
}


def with_article(phrase: str) -> str:
    """``a`` or ``an`` by the first sound."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def join(phrases: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def visible_attributes(person: Identity, labels: np.ndarray, view: str) -> dict[str, str]:
    """What this image shows of the person: attribute group -> phrase key (``"upper": "t-shirt"`` ...).

    A backpack seen from the front is only its straps and is not named; a ponytail is not seen from the front.
    """
    pixels = np.bincount(labels.ravel(), minlength=len(PART))
    seen = {group for group, least in NAMEABLE.items() if pixels[PART[group]] >= least}
    shown: dict[str, str] = {}
    if person.hair == "bald":
        if person.headwear == "none" and pixels[PART["skin"]] >= 30:
            shown["hair"] = "bald"
    elif "hair" in seen:
        shown["hair"] = "tied" if person.hair == "ponytail" and view == "front" else person.hair
    for group, value in (("upper", person.upper), ("lower", person.lower), ("shoes", person.shoes),
                         ("headwear", person.headwear), ("eyewear", person.eyewear)):
        if group in seen and value != "none":
            shown[group] = value
    if "inner" in seen and view == "front":
        shown["inner"] = "t-shirt"
    if "bag" in seen and not (person.bag == "backpack" and view == "front"):
        shown["bag"] = person.bag
    if person.scarf_colour != "none" and "scarf" in seen:
        shown["scarf"] = "scarf"
    if person.umbrella_colour != "none" and "umbrella" in seen:
        shown["umbrella"] = "umbrella"
    return shown


class Phrases:
    """Noun phrases for one person in one vocabulary; ``synonym`` None draws a synonym anew each time."""

    def __init__(self, person: Identity, view: str, rng: np.random.Generator, synonym: int | None, pair: float = 0.0
                 ) -> None:
        self.person, self.view, self.rng, self.synonym, self.pair = person, view, rng, synonym, pair

    def word(self, key: str) -> str:
        """The vocabulary's word for a key, now and then another one."""
        if key not in LEXICON:
            return key
        choices = LEXICON[key]
        own = self.synonym is not None and self.rng.random() < 0.85
        return choices[self.synonym] if own else choices[int(self.rng.integers(len(choices)))]

    def noun(self, colour: str, kind: str, article: bool = True) -> str:
        phrase = f"{self.word(colour)} {self.word(kind)}"
        if kind in PLURAL:
            return f"a pair of {phrase}" if article and self.rng.random() < self.pair else phrase
        return with_article(phrase) if article else phrase

    def hair(self, style: str) -> str:
        """``long black hair``, ``a black ponytail``, ``a bald head`` ..."""
        colour = self.word(self.person.hair_colour)
        if style == "bald":
            return "a bald head"
        if style == "ponytail":
            return f"a {colour} ponytail" if self.rng.random() < 0.5 else f"{colour} hair in a ponytail"
        if style == "bun":
            return f"{colour} hair in a bun"
        return f"{colour} hair" if style == "tied" else f"{style} {colour} hair"

    def upper(self, inner: bool) -> str:
        person, rng = self.person, self.rng
        second = self.word(person.pattern_colour)
        if person.pattern == "striped":
            phrase = (f"{self.word(person.upper_colour)} and {second} striped {self.word(person.upper)}"
                      if rng.random() < 0.5 else
                      f"{self.word(person.upper_colour)} {self.word(person.upper)} with {second} stripes")
        elif person.pattern == "checked":
            check = str(rng.choice(["checked", "plaid", "checkered"]))
            phrase = f"{self.word(person.upper_colour)} and {second} {check} {self.word(person.upper)}"
        else:
            phrase = f"{self.word(person.upper_colour)} {self.word(person.upper)}"
        phrase = with_article(phrase)
        if person.pattern == "logo" and self.view == "front" and rng.random() < 0.8:
            phrase += f" with {with_article(second)} {rng.choice(['logo', 'print', 'emblem'])} on the chest"
        if inner:
            phrase += f" over {self.noun(person.inner_colour, 't-shirt')}"
        return phrase

    def of(self, group: str, kind: str, inner: bool = False) -> str:
        """The phrase of one visible attribute group."""
        if group == "hair":
            return self.hair(kind)
        if group == "upper":
            return self.upper(inner)
        if group == "eyewear":
            return with_article(f"pair of {self.word(kind)}") if self.rng.random() < self.pair else self.word(kind)
        colour = {"shoes": "shoe_colour"}.get(group, f"{group}_colour")
        return self.noun(getattr(self.person, colour), kind)


def _capitalise(text: str) -> str:
    return text[:1].upper() + text[1:]


def _compose(person: Identity, shown: dict[str, str], view: str, words: Wording, rng: np.random.Generator) -> str:
    phrases = Phrases(person, view, rng, words.synonym, words.pair)
    keep = {group for group in shown if rng.random() < {"hair": 0.75, "shoes": 0.7, "eyewear": 0.7, "inner": 0.6,
                                                      "lower": 0.92, "upper": 0.98}.get(group, 0.82)}
    if not keep & {"upper", "lower"}:
        keep |= shown.keys() & {"upper", "lower"}
    text = {group: phrases.of(group, shown[group], inner="inner" in keep) for group in shown if group in keep
            and group != "inner"}
    he, him, his = ("he", "him", "his") if person.gender == "man" else ("she", "her", "her")
    seen_as = str(rng.choice(words.views[view]))
    clothes = [text[group] for group in ("upper", "lower") if group in text]
    worn = [text[group] for group in ("shoes", "headwear", "eyewear", "scarf") if group in text]
    rng.shuffle(worn)
    if not clothes and worn:
        clothes, worn = [worn[0]], worn[1:]
    carried = [text[group] for group in ("bag", "umbrella") if group in text]
    who = phrases.word(person.gender)
    fills = dict(who=who, he=he, him=him, his=his, He=_capitalise(he), His=_capitalise(his), view=seen_as,
                 View=_capitalise(seen_as), clothes=join(clothes) if clothes else "clothes that can hardly be seen")
    sentences = []
    if "hair" in text:
        style = shown["hair"]
        look = (f"{style} and {phrases.word(person.hair_colour)}" if style in ("long", "short") else None)
        options = [o for o in words.openings if look or "{look}" not in o]
        sentences.append(str(rng.choice(options)).format(hair=text["hair"], Hair=_capitalise(text["hair"]),
                                                         look=look, **fills))
    else:
        sentences.append(str(rng.choice(words.bare_openings)).format(**fills))
    rest = []
    if worn:
        options = [o for o in words.worn if "were" not in o or len(worn) > 1]
        rest.append(str(rng.choice(options)).format(worn=join(worn), **fills))
    if carried:
        rest.append(str(rng.choice(words.carried)).format(carried=join(carried), Carried=_capitalise(join(carried)),
                                                          **fills))
    rng.shuffle(rest)
    sentences += rest
    length = len(" ".join(sentences).split())
    if seen_as not in sentences[0].lower() and (length < 21 or rng.random() < 0.35):
        sentences.append(str(rng.choice(words.view)).format(**fills))
    return " ".join(_capitalise(s) for s in sentences)


def caption(person: Identity, labels: np.ndarray, view: str, domain: str, rng: np.random.Generator) -> str:
    """One caption of 20 to 45 words in the wording of ``domain`` (``"A"``, ``"B"`` or ``"C"``); a picture that shows
    little gets a shorter one."""
    shown = visible_attributes(person, labels, view)
    best = ""
    for _ in range(6):
        text = _compose(person, shown, view, WORDINGS[domain], rng)
        words = len(text.split())
        if 20 <= words <= 45:
            return text
        if not best or abs(words - 30) < abs(len(best.split()) - 30):
            best = text
    return best
