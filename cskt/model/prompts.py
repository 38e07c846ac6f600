"""Bidirectional prompt transferring (BPT, Section 2.2): prompts of each tower, and what they become
in the other."""

from __future__ import annotations

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
    """Per layer: text prompts t (n, text_width), vision prompts v (n, vision_width), and linear
    maps between them.

    The text tower receives ``[t ; V2T(v)]``, the vision tower ``[T2V(t) ; v]``, in this order. With
    one direction off, the prompts that fed it do not exist: ``text_to_vision`` alone leaves t and
    T2V(t).
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

        def prompts(width: int, wanted: bool) -> nn.ParameterList:
            return nn.ParameterList(
                torch.empty(length, width).normal_(std=INIT_STD) for _ in range(depth * wanted)
            )

        self.text, self.vision = (
            prompts(text_width, text_to_vision),
            prompts(vision_width, vision_to_text),
        )
        self.text_to_vision = nn.ModuleList(projection(text_width, vision_width) for _ in self.text)
        self.vision_to_text = nn.ModuleList(
            projection(vision_width, text_width) for _ in self.vision
        )
        self.depth = depth

    def text_rows(self) -> list[Tensor]:
        """What the text tower receives at layers 0..depth-1: (P, text_width) each."""
        return _joined(
            list(self.text), [m(v) for m, v in zip(self.vision_to_text, self.vision, strict=True)]
        )

    def vision_rows(self) -> list[Tensor]:
        """What the vision tower receives at layers 0..depth-1: (P, vision_width) each."""
        return _joined(
            [m(t) for m, t in zip(self.text_to_vision, self.text, strict=True)], list(self.vision)
        )

    @torch.no_grad()
    def spectrum(self) -> dict[str, float]:
        """Of the maps between the towers, the mean over layers of the Frobenius norm and of the
        effective rank (Roy and Vetterli, EUSIPCO 2007: the exponential of the singular values'
        entropy); nan where a direction is off."""
        measured = {}
        for name, maps in (("T2V", self.text_to_vision), ("V2T", self.vision_to_text)):
            values = [torch.linalg.svdvals(each.weight.float()) for each in maps]
            shares = [each / each.sum() for each in values]
            for what, numbers in (
                ("norm", [each.norm() for each in values]),
                ("rank", [torch.special.entr(share).sum().exp() for share in shares]),
            ):
                measured[f"{name} {what}"] = (
                    torch.stack(numbers).mean().item() if numbers else float("nan")
                )
        return measured

    def own(self, tower: str) -> Tensor:
        """(P,) bool: which of the rows that the ``"text"`` or ``"vision"`` tower receives are its
        own prompts."""
        counts = [len(prompts[0]) if len(prompts) else 0 for prompts in (self.text, self.vision)]
        is_text = torch.arange(sum(counts)) < counts[0]
        parameters = [*self.text, *self.vision]
        return (is_text if tower == "text" else ~is_text).to(
            parameters[0].device if parameters else "cpu"
        )


def _joined(first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
    return (
        [torch.cat(pair) for pair in zip(first, second, strict=True)]
        if first and second
        else first or second
    )
