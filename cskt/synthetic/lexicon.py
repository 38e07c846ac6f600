"""The words of the captions: a lexicon shared by all, and one wording for each domain."""

from __future__ import annotations

from dataclasses import dataclass

# Four words for each key: those of the wordings A, B and C, and one more; a word that stands twice
# is drawn more often.
LEXICON: dict[str, tuple[str, str, str, str]] = {
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
    "grey": ("gray", "gray", "grey", "silver"),
    "navy": ("dark blue", "navy blue", "navy", "deep blue"),
    "beige": ("khaki", "beige", "tan", "cream"),
    "purple": ("purple", "purple", "violet", "lilac"),
    "blond": ("blonde", "blond", "fair", "golden"),
    "red": ("red", "bright red", "red", "crimson"),
    "green": ("green", "dark green", "green", "emerald"),
    "pink": ("pink", "light pink", "pink", "rose"),
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
PRONOUNS = {
    "man": {"he": "he", "him": "him", "his": "his"},
    "woman": {"he": "she", "him": "her", "his": "her"},
}


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
    openings: list[str]
    bare_openings: list[str]
    worn: list[str]
    carried: list[str]
    view: list[str]
    views: dict[str, list[str]]


WORDINGS = {
    "A": Wording(
        synonym=0,
        pair=0.0,
        openings=[
            "The {who} has {hair} and is wearing {clothes}.",
            "The {who} with {hair} is wearing {clothes}.",
            "A {who} with {hair} wears {clothes}.",
        ],
        bare_openings=["The {who} is wearing {clothes}.", "A {who} is dressed in {clothes}."],
        worn=[
            "{He} also has {worn} on.",
            "{He} is wearing {worn} as well.",
            "{He} wears {worn}.",
        ],
        carried=["{He} is carrying {carried}.", "{He} has {carried} with {him}."],
        view=["{He} is {view}."],
        views={
            "front": ["walking towards the camera", "facing the camera"],
            "back": ["walking away from the camera", "facing away from the camera"],
            "left": ["walking to the left"],
            "right": ["walking to the right"],
        },
    ),
    "B": Wording(
        synonym=1,
        pair=0.3,
        openings=[
            "A {who} with {hair} is dressed in {clothes}.",
            "This {who} has {hair}, and {he} wears {clothes}.",
            "{Hair} can be seen on this {who}, who wears {clothes}.",
        ],
        bare_openings=["A {who} is dressed in {clothes}.", "This {who} wears {clothes}."],
        worn=[
            "The outfit is completed with {worn}.",
            "In addition, {he} has put on {worn}.",
            "{He} is also seen in {worn}.",
        ],
        carried=["{Carried} can be seen with {him}.", "{He} holds {carried} while walking."],
        view=["The picture shows {him} {view}.", "{He} is seen {view}."],
        views={
            "front": ["from the front"],
            "back": ["from behind", "from the back"],
            "left": ["from the side, heading left"],
            "right": ["from the side, heading right"],
        },
    ),
    "C": Wording(
        synonym=2,
        pair=0.0,
        openings=[
            "The {who} with {hair} wore {clothes}.",
            "{View}, the {who} with {hair} was in {clothes}.",
            "There is a {who} in {clothes}, whose hair is {look}.",
        ],
        bare_openings=["The {who} wore {clothes}.", "{View}, the {who} was in {clothes}."],
        worn=[
            "On top of that, {he} had {worn}.",
            "There were also {worn}.",
            "{His} look was finished by {worn}.",
        ],
        carried=["{He} carried {carried}.", "{Carried} went along with {him}."],
        view=["{He} was {view}."],
        views={
            "front": ["coming closer", "in front of us"],
            "back": ["with the back turned", "going away"],
            "left": ["passing by to the left"],
            "right": ["passing by to the right"],
        },
    ),
}
