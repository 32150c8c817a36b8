"""Weights must be there and be the network's."""

from __future__ import annotations

from typing import Any

import torch

from vol3d.bundle.weights_check import check_weights, trained_network


def test_fitting_weights_are_loaded_for_evaluation(maker: Any) -> None:
    layout = maker.weights()
    assert check_weights(layout) == []
    network = trained_network(layout)
    assert not network.training
    assert network.bias.equal(torch.load(layout.weights_path)["bias"])


def test_missing_and_foreign_weights_are_findings(maker: Any) -> None:
    (missing,) = check_weights(maker.layout)
    assert "must have weights at models/model.pt, got no such file" in missing
    (foreign,) = check_weights(maker.weights({"weight": torch.zeros(1)}))
    assert "must have the network's 2 tensors, got" in foreign


def test_a_config_without_the_network_is_a_finding(maker: Any) -> None:
    (finding,) = check_weights(maker.config("inference", {"roi_size": [4, 6, 4]}))
    assert "configs must define network_def" in finding
