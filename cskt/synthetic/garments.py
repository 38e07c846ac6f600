"""What a person wears from the neck to the feet."""

from __future__ import annotations

from dataclasses import dataclass

from cskt.synthetic.canvas import Canvas, Point, Points, mirrored
from cskt.synthetic.figure import Figure
from cskt.synthetic.tables import table


@dataclass(frozen=True)
class Cut:
    """How an upper garment is cut: the height of its hem, its flare there (times the hip), and its
    sleeves, a key of :data:`SLEEVES`."""

    hem: float
    flare: float
    sleeves: str


_DRAWING = table("drawing")
SLEEVES: dict[str, tuple[float, ...]] = _DRAWING["sleeves"]
CUTS = {garment: Cut(**fields) for garment, fields in _DRAWING["cuts"].items()}
_SOLE = (238, 238, 236)
_SOLE_OF_WHITE = (150, 150, 155)


def draw_upper(canvas: Canvas, figure: Figure) -> None:
    """The upper garment without its sleeves."""
    kind = figure.person.upper
    cut = CUTS[kind]
    _draw_trunk(canvas, figure, cut)
    if kind == "hoodie":
        _draw_hood_or_pocket(canvas, figure)
    if figure.front:
        if kind in ("jacket", "coat"):
            _draw_open_front(canvas, cut.hem)
        if kind == "shirt":
            _draw_buttons_and_collar(canvas, cut.hem)
        if figure.person.pattern == "logo":
            _draw_logo(canvas, figure)
    if figure.back and kind in ("shirt", "coat", "dress"):  # the collar
        canvas.trapezoid("upper", top=(0.845, 0.03), bottom=(0.825, 0.035), tone=0.8)


def _draw_trunk(canvas: Canvas, figure: Figure, cut: Cut) -> None:
    shoulder = figure.shoulder
    hip = figure.hip
    half = [
        (shoulder * 0.5, 0.835),
        (shoulder, 0.80),
        (shoulder * 0.93, 0.70),
        (hip * 0.98, 0.58),
        (hip * cut.flare, cut.hem),
    ]
    left, right = mirrored(half)
    canvas.polygon("upper", right + left[::-1])


def _draw_open_front(canvas: Canvas, hem: float) -> None:
    """What a jacket or a coat shows of the garment under it, between its lapels."""
    waist = max(hem, 0.47)
    canvas.trapezoid("inner", top=(0.83, 0.034), bottom=(waist, 0.034 * 0.8))
    lapel = [
        (0.034, 0.835),
        (0.034 + 0.028, 0.80),
        (0.034, 0.70),
    ]
    for outline in mirrored(lapel):
        canvas.polygon("upper", outline, 0.8)


def _draw_hood_or_pocket(canvas: Canvas, figure: Figure) -> None:
    if figure.front:
        canvas.trapezoid("upper", top=(0.56, 0.045), bottom=(0.49, 0.062), tone=0.84)
    else:
        x = -0.03 * figure.facing
        canvas.ellipse("upper", x=x, y=0.825, rx=0.062, ry=0.036, tone=0.82)


def _draw_buttons_and_collar(canvas: Canvas, hem: float) -> None:
    canvas.trapezoid("upper", top=(0.83, 0.004), bottom=(hem, 0.004), tone=0.7)
    tip = [
        (0.0, 0.80),
        (0.04, 0.845),
        (0.045, 0.81),
    ]
    for outline in mirrored(tip):
        canvas.polygon("upper", outline, 1.18)


def _draw_logo(canvas: Canvas, figure: Figure) -> None:
    """A ring on the chest, in the second colour."""
    colour = figure.cloth_colours[figure.person.pattern_colour]
    canvas.ellipse("upper", y=0.70, rx=0.042, ry=0.042, tone=colour)
    canvas.ellipse("upper", y=0.70, rx=0.02, ry=0.02)


def draw_sleeve(canvas: Canvas, figure: Figure, side: int) -> None:
    """The sleeve over the arm on one side, if the garment has any."""
    sleeves = CUTS[figure.person.upper].sleeves
    if sleeves == "none":
        return
    start, elbow, wrist = figure.arm(side)
    elbow_x, elbow_y = elbow
    if sleeves == "short":
        start_x, start_y = start
        end_x = 0.45 * start_x + 0.55 * elbow_x
        end_y = 0.45 * start_y + 0.55 * elbow_y
        joints = [start, (end_x, end_y)]
    else:
        wrist_x, wrist_y = wrist
        cuff_x = wrist_x * 0.94 + elbow_x * 0.06
        cuff_y = wrist_y - 0.02 if figure.lifts(side) else wrist_y + 0.02
        joints = [start, elbow, (cuff_x, cuff_y)]
    canvas.limb("upper", joints, SLEEVES[sleeves], 0.9)


def draw_trouser_leg(canvas: Canvas, figure: Figure, leg: Points, tone: float) -> None:
    """One leg of the lower garment; a skirt has none, and with a dress there is no such garment."""
    kind = figure.person.lower
    if kind in ("skirt", "none"):
        return
    hip, knee, ankle = leg
    if kind == "shorts":
        knee_x, _ = knee
        above_knee = (knee_x * 0.95, 0.30)
        canvas.limb("lower", [hip, above_knee], (0.095, 0.092), tone)
        return
    width = _DRAWING["trouser_widths"][kind]
    if figure.person.build == "heavy":
        width *= 1.12
    widths = (width * 1.1, width * 0.88, width * 0.62)
    ankle_x, ankle_y = ankle
    hem = (ankle_x, ankle_y + 0.012)
    canvas.limb("lower", [hip, knee, hem], widths, tone)


def draw_waist(canvas: Canvas, figure: Figure) -> None:
    """The skirt, or the upper end of trousers."""
    hip = figure.hip
    if figure.person.lower == "skirt":
        canvas.trapezoid("lower", top=(0.53, hip), bottom=(0.30, hip * 1.45))
    elif figure.person.lower != "none":
        canvas.trapezoid("lower", top=(0.54, hip), bottom=(0.46, hip * 0.98))


def draw_shoe(canvas: Canvas, figure: Figure, ankle: Point, tone: float) -> None:
    """One shoe, pointing where the person walks."""
    x, y = ankle
    kind = figure.person.shoes
    toe = 0.05 * figure.facing
    middle = x + toe * 0.5
    reach = 0.034 if figure.facing else 0.03
    if kind == "boots":
        shaft = [(x, y + 0.075), (x, y)]
        canvas.limb("shoes", shaft, (0.056, 0.05), tone)
    length = reach + abs(toe) * 0.4
    canvas.ellipse("shoes", x=middle, y=y - 0.022, rx=length, ry=0.022, tone=tone)
    if kind == "sneakers":
        sole = [(middle - reach, y - 0.038), (middle + reach, y - 0.038)]
        white = figure.person.shoe_colour == "white"
        canvas.limb("shoes", sole, 0.01, _SOLE_OF_WHITE if white else _SOLE)
    if kind == "sandals":
        canvas.ellipse("skin", x=middle, y=y - 0.012, rx=reach * 0.6, ry=0.008, tone=tone)
