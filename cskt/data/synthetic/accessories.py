"""What a person carries, or wears on the head or around the neck. A function draws nothing where
the person has no such thing."""

from __future__ import annotations

from cskt.data.synthetic.canvas import Canvas, mirrored
from cskt.data.synthetic.figure import Figure


def draw_backpack(canvas: Canvas, figure: Figure) -> None:
    """The backpack as seen from the front, the side or the back."""
    if figure.person.bag != "backpack":
        return
    if figure.front:
        for side in (-1, 1):
            canvas.ellipse("bag", (side * figure.shoulder * 0.72, 0.72), (0.05, 0.10), 0.75)
    elif figure.back:
        _draw_sack(canvas, 0.0, 0.078)
        canvas.trapezoid("bag", 0.0, (0.67, 0.078 * 0.7), (0.60, 0.078 * 0.7), 0.8)
    else:
        x = -figure.facing * (figure.shoulder + 0.028)
        _draw_sack(canvas, x, 0.05)
        strap = [(0.02 * figure.facing, 0.825), (0.03 * figure.facing, 0.70), (x, 0.62)]
        canvas.limb("bag", strap, 0.018, 0.7)


def _draw_sack(canvas: Canvas, x: float, half: float) -> None:
    canvas.ellipse("bag", (x, 0.78), (half, 0.035))
    canvas.trapezoid("bag", x, (0.78, half), (0.585, half * 1.08))
    canvas.ellipse("bag", (x, 0.585), (half * 1.08, 0.02))


def draw_straps(canvas: Canvas, figure: Figure) -> None:
    """A backpack's straps over the chest."""
    if figure.person.bag != "backpack":
        return
    shoulder = figure.shoulder
    strap = [(shoulder * 0.55, 0.83), (shoulder * 0.62, 0.73), (shoulder * 0.9, 0.64)]
    for joints in mirrored(strap):
        canvas.limb("bag", joints, (0.02, 0.02, 0.016), 0.85)


def draw_shoulder_bag(canvas: Canvas, figure: Figure) -> None:
    """A bag at the hip, with its strap across the chest."""
    if figure.person.bag != "shoulder bag":
        return
    side = -1 if figure.front else 1
    if figure.facing:
        x = 0.0
        start = (0.0, 0.82)
    else:
        x = side * (figure.hip + 0.03)
        start = (-side * figure.shoulder * 0.6, 0.83)
    canvas.limb("bag", [start, (x, 0.56)], 0.016, 0.75)
    canvas.trapezoid("bag", x, (0.57, 0.055), (0.465, 0.06))
    canvas.trapezoid("bag", x, (0.57, 0.055), (0.535, 0.05), 0.82)


def draw_handbag(canvas: Canvas, figure: Figure) -> None:
    """A bag with a handle, hanging from a hand."""
    if figure.person.bag != "handbag":
        return
    side = -1 if figure.front else 1
    if figure.facing:
        x = -0.10 * figure.stride + 0.03 * figure.facing
    else:
        x = side * (figure.shoulder + 0.022)
    canvas.limb("bag", [(x - 0.03, 0.40), (x, 0.475), (x + 0.03, 0.40)], 0.012, 0.7)
    canvas.trapezoid("bag", x, (0.41, 0.045), (0.315, 0.058))


def draw_scarf(canvas: Canvas, figure: Figure) -> None:
    """A scarf around the neck, with an end that hangs down in front."""
    if figure.person.scarf_colour == "none":
        return
    half = 0.052 if figure.facing else 0.062
    canvas.ellipse("scarf", (0, 0.845), (half, 0.025))
    if figure.front:
        end = [(0.005, 0.84), (0.045, 0.84), (0.05, 0.68), (0.015, 0.68)]
        canvas.polygon("scarf", end, 0.9)


def draw_umbrella(canvas: Canvas, figure: Figure) -> None:
    """An open umbrella above the head."""
    if figure.person.umbrella_colour == "none":
        return
    hand = 0.10 * figure.facing if figure.facing else figure.shoulder
    canvas.limb("umbrella", [(hand, 0.76), (hand * 0.6, 1.10)], 0.01, (70, 70, 74))
    middle = hand * 0.5
    canvas.dome("umbrella", (middle, 1.02), (0.24, 0.15))
    for side in (-1, 0, 1):
        canvas.ellipse("umbrella", (middle + 0.16 * side, 1.02), (0.08, 0.02), 0.75)


def draw_eyewear(canvas: Canvas, figure: Figure) -> None:
    """Glasses with pale lenses, or sunglasses."""
    kind, head = figure.person.eyewear, figure.head
    if kind == "none" or figure.back:
        return
    frame = (18, 18, 22) if kind == "sunglasses" else (60, 60, 66)
    apart = 0.62 if figure.facing else 0.45
    lenses = [(side * head.rx * apart, head.y) for side in figure.sides]
    for centre in lenses:
        canvas.ellipse("eyewear", centre, (0.020 * head.scale, 0.014 * head.scale), frame)
    if kind == "glasses":
        pale = (208, 222, 232)
        for centre in lenses:
            canvas.ellipse("eyewear", centre, (0.013 * head.scale, 0.008 * head.scale), pale)
    bridge = [(-head.rx * 0.9, head.y + 0.002), (head.rx * 0.9, head.y + 0.002)]
    canvas.limb("eyewear", bridge, 0.005, frame)


def draw_headwear(canvas: Canvas, figure: Figure) -> None:
    """A cap, a beanie or a hat."""
    kind, head = figure.person.headwear, figure.head
    if kind == "none":
        return
    rx = head.rx
    rim = head.y + head.ry * 0.30
    canvas.dome("headwear", (0, rim), (rx * 1.16, head.ry * 0.86))
    if kind == "beanie":
        canvas.limb("headwear", [(-rx * 1.05, rim), (rx * 1.05, rim)], 0.026, 0.8)
    if kind == "hat":
        canvas.ellipse("headwear", (0, head.y + head.ry * 0.32), (rx * 2.0, 0.014), 0.85)
    if kind == "cap":
        _draw_peak(canvas, figure)


def _draw_peak(canvas: Canvas, figure: Figure) -> None:
    """A cap's, which is not seen from behind."""
    rx = figure.head.rx
    y = figure.head.y + figure.head.ry * 0.34
    if figure.front:
        canvas.ellipse("headwear", (0, y), (rx, 0.014), 0.75)
    if figure.facing:
        canvas.ellipse("headwear", (figure.facing * rx * 1.2, y), (rx * 0.8, 0.010), 0.75)
