"""What lies near what: prompts that meet, images beside captions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cskt.analysis import space
from cskt.errors import ConfigurationError
from tests.probe_models import small_model


def random_points(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(0))


def test_prompts_that_are_all_alike_have_a_cosine_of_one():
    model = small_model(prompt_length=3)
    prompts = model.prompts
    with torch.no_grad():
        # The map gives every text prompt as the one vision prompt.
        for projection, own in zip(prompts.text_to_vision, prompts.vision, strict=True):
            own.copy_(own[:1].expand(3, -1))
            projection.weight.zero_()
            projection.bias.copy_(own[0])
    table = space.coupling(model)
    assert len(table) == 6
    in_vision = table[table["tower"] == "vision"]
    assert in_vision["cosine"].tolist() == pytest.approx([1, 1, 1])


def test_the_effective_rank_of_the_maps_counts_directions():
    model = small_model()
    with torch.no_grad():
        for projection in model.prompts.text_to_vision:
            projection.weight.zero_()
            projection.weight[:5, :5] = 2 * torch.eye(5)
    spectrum = model.prompts.spectrum()
    assert spectrum["T2V rank"] == pytest.approx(5)
    assert spectrum["T2V norm"] == pytest.approx(2 * 5**0.5)


def test_a_direction_that_is_off_has_no_spectrum():
    spectrum = small_model(vision_to_text=False).prompts.spectrum()
    assert np.isnan(spectrum["V2T norm"])
    assert np.isnan(spectrum["V2T rank"])


def test_a_model_without_prompts_has_nothing_to_compare():
    model = small_model(text_to_vision=False, vision_to_text=False)
    assert space.coupling(model).empty


def test_the_modality_gap_is_the_distance_of_the_means():
    points = torch.nn.functional.normalize(random_points(40, 8), dim=1)
    assert space.modality_gap(points, points) == 0
    first, second = torch.eye(2).split(1)
    assert space.modality_gap(first, second) == pytest.approx(2**0.5)


def test_principal_components_keep_the_distances_within_a_plane():
    embedding = torch.tensor([[3.0, 0, 0], [0, 1, 0]])
    points = random_points(40, 2) @ embedding
    placed = torch.from_numpy(space.plane(points))
    exact = points.double()
    before = torch.cdist(exact, exact)
    after = torch.cdist(placed, placed)
    torch.testing.assert_close(after, before)


def test_t_sne_places_equal_points_equally():
    points = random_points(40, 8)
    first = space.plane(points, "t-SNE")
    assert np.array_equal(first, space.plane(points, "t-SNE"))


def test_an_unknown_method_is_refused():
    with pytest.raises(ConfigurationError, match="'PCA' or 't-SNE', got 'UMAP'"):
        space.plane(random_points(5, 3), "UMAP")
