"""The body, and the painter's order of all that is drawn of a person."""

from __future__ import annotations

from cskt.synthetic import accessories, garments
from cskt.synthetic.canvas import Canvas, mirrored
from cskt.synthetic.figure import Figure, Head

_EYES = (40, 34, 32)


def draw_person(canvas: Canvas, figure: Figure) -> None:
    """The whole person: what comes later hides what came before."""
    person = figure.person
    if not figure.back:
        accessories.draw_backpack(canvas, figure)
        if person.hair == "long":
            _draw_hair_behind_the_neck(canvas, figure)
    draw_legs(canvas, figure)
    if figure.back:
        accessories.draw_handbag(canvas, figure)
    canvas.limb("skin", [(0, 0.80), (0, 0.87)], (0.055, 0.05), 0.9)  # the neck
    garments.draw_upper(canvas, figure)
    accessories.draw_scarf(canvas, figure)
    draw_arms(canvas, figure)
    if figure.front:
        accessories.draw_straps(canvas, figure)
    if figure.back:
        accessories.draw_backpack(canvas, figure)
    accessories.draw_shoulder_bag(canvas, figure)
    if not figure.back:
        accessories.draw_handbag(canvas, figure)
    draw_head(canvas, figure)
    accessories.draw_umbrella(canvas, figure)


def draw_legs(canvas: Canvas, figure: Figure) -> None:
    """Both legs in what they wear, and the skirt or the waist over them."""
    for side in (-1, 1):
        leg = figure.leg(side)
        in_shade = figure.facing != 0 and side < 0
        tone = 0.82 if in_shade else 1.0
        canvas.limb("skin", leg, (0.07, 0.052, 0.036), tone)
        garments.draw_shoe(canvas, figure, leg[-1], tone)
        garments.draw_trouser_leg(canvas, figure, leg, tone)
    garments.draw_waist(canvas, figure)


def draw_arms(canvas: Canvas, figure: Figure) -> None:
    """The arms that are seen, in their sleeves."""
    for side in figure.sides:
        canvas.limb("skin", figure.arm(side), (0.048, 0.04, 0.034))
        garments.draw_sleeve(canvas, figure, side)


def draw_head(canvas: Canvas, figure: Figure) -> None:
    """The face or the back of the head, with hair and what is worn on it."""
    head = figure.head
    canvas.ellipse("skin", y=head.y, rx=head.rx, ry=head.ry)
    if figure.facing:
        nose = head.rx * 0.95 * figure.facing
        canvas.ellipse("skin", x=nose, y=head.y - 0.008, rx=0.012, ry=0.011)
    if figure.front:
        _draw_face(canvas, head)
    if figure.person.hair != "bald":
        draw_hair(canvas, figure)
    accessories.draw_eyewear(canvas, figure)
    accessories.draw_headwear(canvas, figure)


def _draw_face(canvas: Canvas, head: Head) -> None:
    """Ears, eyes and mouth."""
    ears = head.y - 0.004
    for x in (-head.rx, head.rx):
        canvas.ellipse("skin", x=x, y=ears, rx=0.010, ry=0.016, tone=0.9)
    eyes = head.y - 0.002
    apart = head.rx * 0.42
    for x in (-apart, apart):
        canvas.ellipse("skin", x=x, y=eyes, rx=0.0075, ry=0.006, tone=_EYES)
    mouth = head.y - head.ry * 0.55
    canvas.ellipse("skin", y=mouth, rx=head.rx * 0.32, ry=0.005, tone=0.7)


def draw_hair(canvas: Canvas, figure: Figure) -> None:
    """The hair on a head, by view, with its ponytail or bun."""
    if figure.back:
        _draw_hair_from_the_back(canvas, figure)
    elif figure.front:
        _draw_hair_from_the_front(canvas, figure)
    else:
        _draw_hair_from_the_side(canvas, figure)
    if figure.person.hair == "ponytail" and not figure.front:
        _draw_ponytail(canvas, figure)
    if figure.person.hair == "bun":
        _draw_bun(canvas, figure)


def _draw_hair_behind_the_neck(canvas: Canvas, figure: Figure) -> None:
    scale = figure.head.scale
    canvas.trapezoid(
        "hair",
        x=-0.02 * figure.facing,
        top=(0.93, 0.055 * scale),
        bottom=(0.77, 0.066 * scale),
        tone=0.85,
    )


def _draw_hair_from_the_back(canvas: Canvas, figure: Figure) -> None:
    y = figure.head.y
    rx = figure.head.rx
    ry = figure.head.ry
    canvas.ellipse("hair", y=y + 0.004, rx=rx * 1.1, ry=ry * 1.04)
    if figure.person.hair == "long":
        canvas.trapezoid("hair", top=(y, rx * 1.1), bottom=(0.74, rx * 1.3))


def _draw_hair_from_the_front(canvas: Canvas, figure: Figure) -> None:
    y = figure.head.y
    rx = figure.head.rx
    ry = figure.head.ry
    canvas.ellipse("hair", y=y + 0.008, rx=rx * 1.12, ry=ry * 1.05, upper_half=True)
    canvas.ellipse(  # the fringe
        "hair",
        x=rx * 0.3,
        y=y + ry * 0.42,
        rx=rx * 0.85,
        ry=ry * 0.22,
    )
    if figure.person.hair == "long":
        strand = [
            (rx * 0.82, y + 0.02),
            (rx * 1.16, y + 0.02),
            (rx * 1.36, 0.77),
            (rx * 0.86, 0.77),
        ]
        for outline in mirrored(strand):
            canvas.polygon("hair", outline)


def _draw_hair_from_the_side(canvas: Canvas, figure: Figure) -> None:
    behind = -figure.facing
    y = figure.head.y
    rx = figure.head.rx
    ry = figure.head.ry
    canvas.ellipse(
        "hair",
        x=behind * rx * 0.16,
        y=y + 0.012,
        rx=rx * 1.08,
        ry=ry * 0.98,
        upper_half=True,
    )
    canvas.ellipse(
        "hair",
        x=behind * rx * 0.52,
        y=y,
        rx=rx * 0.66,
        ry=ry * 0.88,
    )
    if figure.person.hair == "long":
        falling = [
            (behind * rx * 0.1, y),
            (behind * rx * 1.15, y),
            (behind * rx * 1.5, 0.75),
            (behind * rx * 0.3, 0.77),
        ]
        canvas.polygon("hair", falling)


def _draw_ponytail(canvas: Canvas, figure: Figure) -> None:
    y = figure.head.y
    x = -figure.facing * figure.head.rx * 1.25
    joints = [
        (x, y + 0.02),
        (x * 1.25, y - 0.05),
        (x * 1.2, y - 0.11),
    ]
    canvas.limb("hair", joints, (0.03, 0.04, 0.018), 0.9)


def _draw_bun(canvas: Canvas, figure: Figure) -> None:
    head = figure.head
    above = 0.75 if figure.facing else 1.05
    canvas.ellipse(
        "hair",
        x=-figure.facing * head.rx,
        y=head.y + head.ry * above,
        rx=0.03,
        ry=0.027,
        tone=0.88,
    )
