"""Norms by blocks are the norms they stand for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from vol3d.inference.runtimes.pooled_norm import PooledNorm, block_shape, with_pooled_norms


@pytest.mark.parametrize("shape", [(2, 6, 12, 7, 5), (1, 6, 1, 1, 2), (1, 6, 16, 16, 16)])
@pytest.mark.parametrize(
    "norm",
    [
        nn.InstanceNorm3d(6),
        nn.InstanceNorm3d(6, affine=True, eps=1e-3),
        nn.GroupNorm(2, 6),
        nn.GroupNorm(3, 6, affine=False),
    ],
    ids=str,
)
def test_the_result_is_that_of_the_layer(norm: Any, shape: Any) -> None:
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 1
    norm = norm.double()
    torch.testing.assert_close(PooledNorm(norm)(features), norm(features))


def test_blocks_leave_no_rest() -> None:
    assert block_shape((96, 10, 7)) == [8, 5, 7]
    assert block_shape((13, 1, 9)) == [1, 1, 3]


def test_only_norms_that_measure_their_input_are_replaced_and_only_in_the_copy() -> None:
    network = nn.Sequential(
        nn.Sequential(nn.InstanceNorm3d(2), nn.GroupNorm(1, 2)),
        nn.InstanceNorm3d(2, track_running_stats=True),
        nn.BatchNorm3d(2),
    ).eval()
    clone = with_pooled_norms(network)
    names = [type(m).__name__ for m in clone.modules() if not list(m.children())]
    assert names == ["PooledNorm", "PooledNorm", "InstanceNorm3d", "BatchNorm3d"]
    assert isinstance(network[0][0], nn.InstanceNorm3d)
    features = torch.randn(1, 2, 4, 4, 4)
    torch.testing.assert_close(clone(features), network(features))
