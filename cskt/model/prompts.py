"""Bidirectional prompts transferring (BPT, Section 2.2 of the paper): learned rows for the input of
each block of both towers, and what they become in the other tower.

At block l, with text prompts t_l (n, text_width) and vision prompts v_l (n, vision_width)::

    T2V_l(t) = t A_l + a_l        V2T_l(v) = v B_l + b_l           (1, book/method.md)
    P_l(text) = [t_l ; V2T_l(v_l)]    P_l(vision) = [T2V_l(t_l) ; v_l]    (2, book/method.md)

:class:`cskt.CSKT` puts P_l into the towers: in the text behind the start token, in the image behind
the patches (3 and 4 there).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

INIT_STD = 0.02  # prompts and all new linear maps start from N(0, 0.02), biases from 0, as released


def projection(in_features: int, out_features: int) -> nn.Linear:
    """A new linear map of the method."""
    linear = nn.Linear(in_features, out_features)
    nn.init.normal_(linear.weight, std=INIT_STD)
    nn.init.zeros_(linear.bias)
    return linear


class BidirectionalPrompts(nn.Module):
    """The prompts t_l and v_l of layers 0..depth-1, and the linear maps between them.

    With one direction off, the prompts that fed it do not exist: ``text_to_vision`` alone leaves t
    and T2V(t). As a module it is called with the name of a tower; forward hooks on it see, and may
    replace, the rows that the tower is about to read.
    """

    def __init__(
        self,
        depth: int,
        length: int,
        text_width: int,
        vision_width: int,
        text_to_vision: bool = True,
        vision_to_text: bool = True,
    ) -> None:
        super().__init__()
        text_depth = depth if text_to_vision else 0
        vision_depth = depth if vision_to_text else 0
        self.depth = depth
        self.text_count = length if text_depth else 0
        self.vision_count = length if vision_depth else 0
        self.text = _new_prompts(text_depth, length, text_width)
        self.vision = _new_prompts(vision_depth, length, vision_width)
        self.text_to_vision = _new_maps(text_depth, text_width, vision_width)
        self.vision_to_text = _new_maps(vision_depth, vision_width, text_width)

    def forward(self, tower: str, positions: Tensor | None = None) -> list[Tensor]:
        """What the ``"text"`` or ``"vision"`` tower receives at layers 0..depth-1: (P, width) each.

        ``positions`` (P, width), if given, are added to the first layer's.
        """
        rows = self.text_rows() if tower == "text" else self.vision_rows()
        if rows and positions is not None:
            rows[0] = rows[0] + positions
        return rows

    def text_rows(self) -> list[Tensor]:
        """``[t ; V2T(v)]`` of layers 0..depth-1: (P, text_width) each."""
        from_vision = _mapped(self.vision_to_text, self.vision)
        return _joined(list(self.text), from_vision)

    def vision_rows(self) -> list[Tensor]:
        """``[T2V(t) ; v]`` of layers 0..depth-1: (P, vision_width) each."""
        from_text = _mapped(self.text_to_vision, self.text)
        return _joined(from_text, list(self.vision))

    def own(self, tower: str) -> Tensor:
        """(P,) bool: which of the rows that the ``"text"`` or ``"vision"`` tower receives are its
        own prompts."""
        is_text = torch.arange(self.text_count + self.vision_count) < self.text_count
        own = is_text if tower == "text" else ~is_text
        parameter = next(self.parameters(), own)
        return own.to(parameter.device)

    @torch.no_grad()
    def spectrum(self) -> dict[str, float]:
        """Of the maps between the towers, the mean over layers of the Frobenius norm and of the
        effective rank (Roy and Vetterli, EUSIPCO 2007: the exponential of the singular values'
        entropy); nan where a direction is off."""
        measured = {}
        for name, maps in (("T2V", self.text_to_vision), ("V2T", self.vision_to_text)):
            norms, ranks = [], []
            for linear in maps:
                assert isinstance(linear, nn.Linear)
                values = torch.linalg.svdvals(linear.weight.float())
                shares = values / values.sum()
                norms.append(values.norm())
                ranks.append(torch.special.entr(shares).sum().exp())
            measured[f"{name} norm"] = _mean(norms)
            measured[f"{name} rank"] = _mean(ranks)
        return measured


def _new_prompts(depth: int, length: int, width: int) -> nn.ParameterList:
    prompts = [torch.empty(length, width).normal_(std=INIT_STD) for _ in range(depth)]
    return nn.ParameterList(prompts)


def _new_maps(depth: int, in_features: int, out_features: int) -> nn.ModuleList:
    return nn.ModuleList(projection(in_features, out_features) for _ in range(depth))


def _mapped(maps: Iterable[nn.Module], prompts: Iterable[Tensor]) -> list[Tensor]:
    """Each layer's prompts, taken to the other tower by the layer's map."""
    return [linear(rows) for linear, rows in zip(maps, prompts, strict=True)]


def _joined(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    """``[first ; second]`` at each layer; one of them alone where the other direction is off."""
    if not first:
        return second
    if not second:
        return first
    return [torch.cat(pair) for pair in zip(first, second, strict=True)]


def _mean(values: list[Tensor]) -> float:
    return torch.stack(values).mean().item() if values else float("nan")
