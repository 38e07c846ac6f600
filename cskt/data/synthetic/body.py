"""The body, and the painter's order of all that is drawn of a person."""

from __future__ import annotations

from cskt.data.synthetic import accessories, garments
from cskt.data.synthetic.canvas import Canvas, mirrored
from cskt.data.synthetic.figure import Figure, Head


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
    canvas.ellipse("skin", (0, head.y), (head.rx, head.ry))
    if figure.facing:
        _draw_nose(canvas, figure)
    if figure.front:
        _draw_face(canvas, head)
    if figure.person.hair != "bald":
        draw_hair(canvas, figure)
    accessories.draw_eyewear(canvas, figure)
    accessories.draw_headwear(canvas, figure)


def _draw_nose(canvas: Canvas, figure: Figure) -> None:
    head = figure.head
    canvas.ellipse("skin", (head.rx * 0.95 * figure.facing, head.y - 0.008), (0.012, 0.011))


def _draw_face(canvas: Canvas, head: Head) -> None:
    """Ears, eyes and mouth."""
    for x in (-head.rx, head.rx):
        canvas.ellipse("skin", (x, head.y - 0.004), (0.010, 0.016), 0.9)
    for x in (-head.rx * 0.42, head.rx * 0.42):
        canvas.ellipse("skin", (x, head.y - 0.002), (0.0075, 0.006), (40, 34, 32))
    canvas.ellipse("skin", (0, head.y - head.ry * 0.55), (head.rx * 0.32, 0.005), 0.7)


def draw_hair(canvas: Canvas, figure: Figure) -> None:
    """The hair on a head, by view, with its ponytail or bun."""
    long = figure.person.hair == "long"
    if figure.back:
        _draw_hair_from_the_back(canvas, figure.head, long)
    elif figure.front:
        _draw_hair_from_the_front(canvas, figure.head, long)
    else:
        _draw_hair_from_the_side(canvas, figure, long)
    if figure.person.hair == "ponytail" and not figure.front:
        _draw_ponytail(canvas, figure)
    if figure.person.hair == "bun":
        _draw_bun(canvas, figure)


def _draw_hair_behind_the_neck(canvas: Canvas, figure: Figure) -> None:
    scale = figure.head.scale
    top, bottom = (0.93, 0.055 * scale), (0.77, 0.066 * scale)
    canvas.trapezoid("hair", -0.02 * figure.facing, top, bottom, 0.85)


def _draw_hair_from_the_back(canvas: Canvas, head: Head, long: bool) -> None:
    canvas.ellipse("hair", (0, head.y + 0.004), (head.rx * 1.1, head.ry * 1.04))
    if long:
        canvas.trapezoid("hair", 0, (head.y, head.rx * 1.1), (0.74, head.rx * 1.3))


def _draw_hair_from_the_front(canvas: Canvas, head: Head, long: bool) -> None:
    rx, ry = head.rx, head.ry
    canvas.dome("hair", (0, head.y + 0.008), (rx * 1.12, ry * 1.05))
    canvas.ellipse("hair", (rx * 0.3, head.y + ry * 0.42), (rx * 0.85, ry * 0.22))
    if not long:
        return
    top = head.y + 0.02
    strand = [(rx * 0.82, top), (rx * 1.16, top), (rx * 1.36, 0.77), (rx * 0.86, 0.77)]
    for outline in mirrored(strand):
        canvas.polygon("hair", outline)


def _draw_hair_from_the_side(canvas: Canvas, figure: Figure, long: bool) -> None:
    head, behind = figure.head, -figure.facing
    rx, ry = head.rx, head.ry
    canvas.dome("hair", (behind * rx * 0.16, head.y + 0.012), (rx * 1.08, ry * 0.98))
    canvas.ellipse("hair", (behind * rx * 0.52, head.y), (rx * 0.66, ry * 0.88))
    if long:
        outline = [
            (behind * rx * 0.1, head.y),
            (behind * rx * 1.15, head.y),
            (behind * rx * 1.5, 0.75),
            (behind * rx * 0.3, 0.77),
        ]
        canvas.polygon("hair", outline)


def _draw_ponytail(canvas: Canvas, figure: Figure) -> None:
    y = figure.head.y
    x = -figure.facing * figure.head.rx * 1.25
    joints = [(x, y + 0.02), (x * 1.25, y - 0.05), (x * 1.2, y - 0.11)]
    canvas.limb("hair", joints, (0.03, 0.04, 0.018), 0.9)


def _draw_bun(canvas: Canvas, figure: Figure) -> None:
    head = figure.head
    above = 0.75 if figure.facing else 1.05
    centre = (-figure.facing * head.rx, head.y + head.ry * above)
    canvas.ellipse("hair", centre, (0.03, 0.027), 0.88)
