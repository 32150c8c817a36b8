"""Are a bundle's weights there, and are they those of its network?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai.bundle import ConfigParser

from vol3d.bundle.config_layers import read_layers
from vol3d.bundle.declared_network import build_network
from vol3d.bundle.load import load_weights
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from torch import nn

    from vol3d.bundle.layout import BundleLayout

DEFINITION_ID = "network_def"
"""The network of inference, which ``models/model.pt`` belongs to."""


def check_weights(layout: BundleLayout) -> list[str]:
    """Return what keeps the weights from being loaded, in one line; an empty list if nothing does."""
    try:
        trained_network(layout)
    except BundleError as error:
        return [str(error)]
    return []


def trained_network(layout: BundleLayout) -> nn.Module:
    """Return the network of inference with its weights, on the CPU and in evaluation mode.

    Raises:
        BundleError: If the bundle cannot be read or does not define the network.
        WeightsError: If the weights are missing or do not fit.
    """
    parser = ConfigParser(config={**read_layers(layout.config_paths("inference")), "bundle_root": str(layout.root)})
    network = build_network(parser, DEFINITION_ID)
    load_weights(network, str(layout.require_weights()), layout.name)
    return network
