"""The gradients of a loss over a whole batch, of which every process encodes a share, piece by
piece if need be: exact large batches on many devices or on a small one.

A contrastive loss compares each pair with all the others, so that losses of parts of a batch do not
add up to the loss of the batch. Its gradient by the features does split into rows, and that by the
weights is the sum over the rows (Gao et al., "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", 2021, called GradCache)::

    dL/dw = sum_i dL/df_i df_i/dw

Hence: encode all rows, gather them, compute the loss of the whole batch and its gradient by the own
rows, send that back through the encoder, add up what the processes got.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cskt.ranks import Ranks

# image features (B, D), text features (B, D), identities (B,) -> scalar
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Features = tuple[Tensor, Tensor]  # of images and of texts


@dataclass(frozen=True)
class Share:
    """This process's rows of a batch: ``images`` (b, 3, H, W) as the model takes them, and
    ``tokens`` (b, 77); of the whole batch the ``identities`` (B,), on the model's device."""

    images: Tensor
    tokens: Tensor
    identities: Tensor


def backward(
    fabric: Fabric,
    model: nn.Module,
    share: Share,
    loss: Loss,
    micro_batch_size: int | None = None,
) -> Tensor:
    """Give ``model``'s trained parameters the gradient of ``loss`` over the whole batch; returns
    that loss, the same on every process.

    Args:
        model: wrapped by ``fabric.setup``; called with images and tokens, it returns the features
            of both.
        micro_batch_size: pairs that are encoded with gradients at a time (None: the share at
            once). With several pieces each is encoded twice: without gradients for the loss, and
            again, with the same random numbers, for the gradients. Memory is that of one piece.
    """
    ranks = Ranks(fabric)
    pieces = _pieces(len(share.images), micro_batch_size)
    states: list[RandomState] = []
    # Only this function adds gradients up: a wrapper for many devices would average its own.
    with fabric.no_backward_sync(model):  # type: ignore[arg-type]
        if len(pieces) == 1:
            features = [model(share.images, share.tokens)]
        else:
            features, states = _encode_without_gradients(model, share, pieces)
        image_features, text_features = _joined(model, features)
        value, image_gradient, text_gradient = _loss_and_gradients(
            ranks, image_features, text_features, share.identities, loss
        )
        for number, rows in enumerate(pieces):
            if len(pieces) > 1:
                states[number].restore()
                features[number] = model(share.images[rows], share.tokens[rows])
            image_rows, text_rows = features[number]
            # A product whose gradient by the features is the loss's.
            image_part = (image_rows * image_gradient[rows]).sum()
            text_part = (text_rows * text_gradient[rows]).sum()
            fabric.backward(image_part + text_part)
            features[number] = (image_rows.detach(), text_rows.detach())  # its graph can go
    ranks.sum_gradients(model.parameters())
    return value


class RandomState:
    """The state of torch's generators at one moment, to draw the same numbers once more."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def restore(self) -> None:
        """Go back to that moment."""
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


def _pieces(rows: int, micro_batch_size: int | None) -> list[slice]:
    """``rows`` in pieces of ``micro_batch_size``, the last one shorter; none of no rows."""
    size = micro_batch_size or max(rows, 1)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


@torch.no_grad()
def _encode_without_gradients(
    model: nn.Module, share: Share, pieces: list[slice]
) -> tuple[list[Features], list[RandomState]]:
    """The features of each piece, and the state of the generators before it."""
    features = []
    states = []
    for rows in pieces:
        states.append(RandomState())
        features.append(model(share.images[rows], share.tokens[rows]))
    return features, states


def _joined(model: nn.Module, features: list[Features]) -> Features:
    """The features of all pieces as leaves of a graph of their own: (b, D) twice."""
    if not features:  # a rank without a row
        width = cast("int", model.dimension)
        device = cast("torch.device", model.device)
        empty = torch.zeros(0, width, device=device)
        return empty.requires_grad_(), empty.clone().requires_grad_()
    image_features = torch.cat([images for images, _ in features])
    text_features = torch.cat([texts for _, texts in features])
    return image_features.detach().requires_grad_(), text_features.detach().requires_grad_()


def _loss_and_gradients(
    ranks: Ranks, image_features: Tensor, text_features: Tensor, identities: Tensor, loss: Loss
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of the whole batch, and its gradient by this process's features."""
    value = loss(
        _with_others(ranks, image_features, len(identities)),
        _with_others(ranks, text_features, len(identities)),
        identities,
    )
    gradients = torch.autograd.grad(value, [image_features, text_features])
    return value.detach(), gradients[0], gradients[1]


def _with_others(ranks: Ranks, features: Tensor, total: int) -> Tensor:
    """The features (B, D) of the whole batch; a gradient flows into the own rows only."""
    if ranks.count == 1:
        return features
    gathered = ranks.gather(features, total)
    own = ranks.share(total)
    return torch.cat([gathered[: own.start], features, gathered[own.stop :]])
