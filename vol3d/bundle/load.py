"""From a bundle's folder to a predictor that is ready to run."""

from __future__ import annotations

import pickle
import re
from typing import TYPE_CHECKING, Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from vol3d.bundle.catalog import find_bundle
from vol3d.bundle.config_errors import config_errors
from vol3d.bundle.config_layers import override, read_layers
from vol3d.data.path_characters import check_path_characters
from vol3d.errors import BundleError, RequirementError, UsageError, WeightsError
from vol3d.inference.predictor import VolumePredictor

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import nn

    from vol3d.bundle.layout import BundleLayout

_PIECES = ("network_def", "preprocessing", "inferer", "restore_transforms", "decide_transforms", "class_names")


def choose_device(name: str = "auto") -> torch.device:
    """Return a device of this machine.

    Args:
        name: ``auto`` takes the first CUDA device, else the CPU; any other name must be there.

    Raises:
        UsageError: If the name is no device name.
        RequirementError: If this machine does not have it; nothing falls back to the CPU by itself.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"device must be auto, cpu, cuda or cuda:N, got {name!r}; see `vol3d doctor`")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without CUDA
        raise RequirementError(f"device must be on this machine, got {name!r}; see `vol3d doctor`") from error
    return device


def load_bundle(
    name_or_path: str | os.PathLike[str],
    device: str = "auto",
    overrides: Mapping[str, Any] | None = None,
) -> VolumePredictor:
    """Return the predictor of a bundle, with its weights loaded.

    Args:
        name_or_path: A name that ``vol3d bundles`` lists, or a bundle's folder.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        overrides: Config keys to change, for example ``{"tta": True}``.

    Raises:
        UnknownBundleError: If there is no such bundle.
        ConfigError: If an override names no key of the config.
        WeightsError: If the weights are missing or do not fit the network.
        BundleError: If the config cannot be read or lacks a piece that a predictor needs.
        RequirementError: If the device is not on this machine.

    Example:
        ``load_bundle("hippocampus_mr_segmentation")("scan.nii.gz").volumes_ml``
    """
    layout = find_bundle(name_or_path)
    chosen = choose_device(device)
    parser = ConfigParser(config=predictor_config(layout, chosen, overrides or {}))
    with config_errors(layout.name):
        pieces = {name: parser.get_parsed_content(name) for name in (*_PIECES, "ckpt_path")}
    network = pieces["network_def"].to(chosen)
    load_weights(network, pieces["ckpt_path"], layout.name)
    return VolumePredictor(
        network=network.eval(),
        preprocessing=pieces["preprocessing"],
        inferer=pieces["inferer"],
        restore=Compose(pieces["restore_transforms"]),
        decide=Compose(pieces["decide_transforms"]),
        class_names={int(label): str(name) for label, name in pieces["class_names"].items()},
        device=chosen,
    )


def predictor_config(layout: BundleLayout, device: torch.device, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inference config of a bundle as the predictor uses it: without the transforms that load files."""
    check_path_characters(layout.root)
    config = override(read_layers(layout.config_paths("inference")), overrides)
    missing = [piece for piece in _PIECES if piece not in config]
    if missing:
        raise BundleError(f"inference.yaml of {layout.name} must define {', '.join(missing)}; see docs/architecture.md")
    config["bundle_root"] = str(layout.root)
    config["device"] = f"$torch.device({str(device)!r})"
    config["load_transforms"] = [
        step for step in config.get("load_transforms", []) if step.get("_target_") not in ("LoadImaged", "LoadImage")
    ]
    if "ckpt_path" not in overrides:
        layout.require_weights()
    return config


def load_weights(network: nn.Module, path: str, bundle_name: str) -> None:
    """Load a state dict into ``network``, every tensor or nothing.

    Raises:
        WeightsError: If the file is missing, is not a plain state dict, or does not fit the network.
    """
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"weights of {bundle_name} must exist, got no file {path}; check ckpt_path") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise WeightsError(
            f"weights of {bundle_name} must be a state dict that loads with weights_only, got {path} "
            f"({type(error).__name__}); save `network.state_dict()`"
        ) from error
    own = network.state_dict()
    if not isinstance(weights, dict) or weights.keys() != own.keys():
        found = sorted(map(str, set(weights) ^ set(own))) if isinstance(weights, dict) else [type(weights).__name__]
        raise WeightsError(
            f"weights of {bundle_name} must have the network's {len(own)} tensors, got others "
            f"(first that differs: {found[0]}); use the checkpoint of this network"
        )
    for key, value in weights.items():
        shape = getattr(value, "shape", None)
        if shape != own[key].shape:
            raise WeightsError(
                f"weights of {bundle_name} must have shape {tuple(own[key].shape)} at {key}, got "
                f"{type(value).__name__ if shape is None else tuple(shape)}; use the checkpoint of this network"
            )
    network.load_state_dict(weights)
