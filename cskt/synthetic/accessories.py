"""What a person carries, or wears on the head or around the neck. A function draws nothing where
the person has no such thing."""

from __future__ import annotations

from cskt.synthetic.canvas import Canvas, mirrored
from cskt.synthetic.figure import Figure

_STICK = (70, 70, 74)
_FRAME = (60, 60, 66)
_FRAME_OF_SUNGLASSES = (18, 18, 22)
_LENS = (208, 222, 232)


def draw_backpack(canvas: Canvas, figure: Figure) -> None:
    """The backpack as seen from the front, the side or the back."""
    if figure.person.bag != "backpack":
        return
    if figure.front:
        for side in (-1, 1):
            x = side * figure.shoulder * 0.72
            canvas.ellipse("bag", x=x, y=0.72, rx=0.05, ry=0.10, tone=0.75)
    elif figure.back:
        half = 0.078
        pocket = half * 0.7
        _draw_sack(canvas, 0.0, half)
        canvas.trapezoid("bag", top=(0.67, pocket), bottom=(0.60, pocket), tone=0.8)
    else:
        facing = figure.facing
        x = -facing * (figure.shoulder + 0.028)
        _draw_sack(canvas, x, 0.05)
        strap = [
            (0.02 * facing, 0.825),
            (0.03 * facing, 0.70),
            (x, 0.62),
        ]
        canvas.limb("bag", strap, 0.018, 0.7)


def _draw_sack(canvas: Canvas, x: float, half: float) -> None:
    canvas.ellipse("bag", x=x, y=0.78, rx=half, ry=0.035)
    canvas.trapezoid("bag", x=x, top=(0.78, half), bottom=(0.585, half * 1.08))
    canvas.ellipse("bag", x=x, y=0.585, rx=half * 1.08, ry=0.02)


def draw_straps(canvas: Canvas, figure: Figure) -> None:
    """A backpack's straps over the chest."""
    if figure.person.bag != "backpack":
        return
    shoulder = figure.shoulder
    strap = [
        (shoulder * 0.55, 0.83),
        (shoulder * 0.62, 0.73),
        (shoulder * 0.9, 0.64),
    ]
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
    canvas.trapezoid("bag", x=x, top=(0.57, 0.055), bottom=(0.465, 0.06))
    canvas.trapezoid("bag", x=x, top=(0.57, 0.055), bottom=(0.535, 0.05), tone=0.82)


def draw_handbag(canvas: Canvas, figure: Figure) -> None:
    """A bag with a handle, hanging from a hand."""
    if figure.person.bag != "handbag":
        return
    side = -1 if figure.front else 1
    if figure.facing:
        x = -0.10 * figure.stride + 0.03 * figure.facing
    else:
        x = side * (figure.shoulder + 0.022)
    handle = [
        (x - 0.03, 0.40),
        (x, 0.475),
        (x + 0.03, 0.40),
    ]
    canvas.limb("bag", handle, 0.012, 0.7)
    canvas.trapezoid("bag", x=x, top=(0.41, 0.045), bottom=(0.315, 0.058))


def draw_scarf(canvas: Canvas, figure: Figure) -> None:
    """A scarf around the neck, with an end that hangs down in front."""
    if figure.person.scarf_colour == "none":
        return
    half = 0.052 if figure.facing else 0.062
    canvas.ellipse("scarf", y=0.845, rx=half, ry=0.025)
    if figure.front:
        end = [
            (0.005, 0.84),
            (0.045, 0.84),
            (0.05, 0.68),
            (0.015, 0.68),
        ]
        canvas.polygon("scarf", end, 0.9)


def draw_umbrella(canvas: Canvas, figure: Figure) -> None:
    """An open umbrella above the head."""
    if figure.person.umbrella_colour == "none":
        return
    hand = 0.10 * figure.facing if figure.facing else figure.shoulder
    stick = [(hand, 0.76), (hand * 0.6, 1.10)]
    canvas.limb("umbrella", stick, 0.01, _STICK)
    middle = hand * 0.5
    canvas.ellipse("umbrella", x=middle, y=1.02, rx=0.24, ry=0.15, upper_half=True)
    for side in (-1, 0, 1):
        x = middle + 0.16 * side
        canvas.ellipse("umbrella", x=x, y=1.02, rx=0.08, ry=0.02, tone=0.75)


def draw_eyewear(canvas: Canvas, figure: Figure) -> None:
    """Glasses with pale lenses, or sunglasses."""
    kind = figure.person.eyewear
    if kind == "none" or figure.back:
        return
    head = figure.head
    size = head.scale
    frame = _FRAME_OF_SUNGLASSES if kind == "sunglasses" else _FRAME
    apart = 0.62 if figure.facing else 0.45
    lenses = [side * head.rx * apart for side in figure.sides]
    for x in lenses:
        canvas.ellipse("eyewear", x=x, y=head.y, rx=0.020 * size, ry=0.014 * size, tone=frame)
    if kind == "glasses":
        for x in lenses:
            canvas.ellipse("eyewear", x=x, y=head.y, rx=0.013 * size, ry=0.008 * size, tone=_LENS)
    y = head.y + 0.002
    half = head.rx * 0.9
    canvas.limb("eyewear", [(-half, y), (half, y)], 0.005, frame)


def draw_headwear(canvas: Canvas, figure: Figure) -> None:
    """A cap, a beanie or a hat."""
    kind = figure.person.headwear
    if kind == "none":
        return
    head = figure.head
    rim = head.y + head.ry * 0.30
    canvas.ellipse("headwear", y=rim, rx=head.rx * 1.16, ry=head.ry * 0.86, upper_half=True)
    if kind == "beanie":
        half = head.rx * 1.05
        canvas.limb("headwear", [(-half, rim), (half, rim)], 0.026, 0.8)
    if kind == "hat":
        brim = head.y + head.ry * 0.32
        canvas.ellipse("headwear", y=brim, rx=head.rx * 2.0, ry=0.014, tone=0.85)
    if kind == "cap":
        _draw_peak(canvas, figure)


def _draw_peak(canvas: Canvas, figure: Figure) -> None:
    """A cap's, which is not seen from behind."""
    rx = figure.head.rx
    y = figure.head.y + figure.head.ry * 0.34
    if figure.front:
        canvas.ellipse("headwear", y=y, rx=rx, ry=0.014, tone=0.75)
    if figure.facing:
        x = figure.facing * rx * 1.2
        canvas.ellipse("headwear", x=x, y=y, rx=rx * 0.8, ry=0.010, tone=0.75)
