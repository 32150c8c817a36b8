"""Does ``configs/metadata.json`` keep to the schema, to the bundle's configs and to this machine? Imports no torch.

MONAI 1.6.1 checks a bundle's versions by comparing text and its packages not at all; here both are compared by PEP 440.
The schema is vol3d's own and stricter than MONAI's. The same file serves ``python -m monai.bundle verify_metadata``:
with ``--filepath metadata_schema.json``, a file that exists, that command downloads nothing.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from packaging.version import Version

from vol3d.bundle.config_layers import read_layers
from vol3d.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vol3d.bundle.layout import BundleLayout

logger = logging.getLogger(__name__)

SCHEMA_PATH = Path(__file__).with_name("metadata_schema.json")
"""The schema as a file, for ``monai.bundle verify_metadata --filepath``."""

_PACKAGES = {"monai_version": "monai", "pytorch_version": "torch"}


def check_metadata(layout: BundleLayout) -> list[str]:
    """Return what is wrong with a bundle's metadata, one line each; an empty list if nothing is.

    A package that is newer than the declared one within the same release series is no finding, only logged.
    """
    try:
        metadata = layout.metadata()
        config = read_layers(layout.config_paths("inference"))
    except BundleError as error:
        return [str(error)]
    findings = list(_schema_findings(metadata))
    if findings:
        return findings  # the other checks rely on what the schema guarantees
    return [
        *_naming_findings(layout.name, metadata),
        *_version_findings(metadata),
        *_network_findings(metadata["network_data_format"], config),
    ]


def _schema_findings(metadata: Mapping[str, Any]) -> Iterator[str]:
    validator = Draft202012Validator(json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))
    for error in sorted(validator.iter_errors(metadata), key=lambda error: list(map(str, error.absolute_path))):
        place = "/".join(map(str, error.absolute_path)) or "metadata.json"
        if error.validator == "not":
            yield f"{place} must not be there; name the packages in required_packages_version"
        else:
            yield f"{place} must follow the schema, got: {' '.join(error.message.split())[:200]}"


def _naming_findings(name: str, metadata: Mapping[str, Any]) -> Iterator[str]:
    modality = metadata["modality"]
    if modality.lower() not in name.split("_"):
        yield f"modality must be in the bundle's name, got {modality} for {name}; correct either"
    if metadata["version"] not in metadata["changelog"]:
        yield f"version must have an entry in changelog, got {metadata['version']} and none; say what it changed"
    for port, content in metadata["network_data_format"]["inputs"].items():
        if content.get("modality", modality) not in (modality, "n/a"):
            yield f"modality of input {port} must be the bundle's {modality}, got {content['modality']}; correct either"


def _version_findings(metadata: Mapping[str, Any]) -> Iterator[str]:
    declared = {package: metadata[key] for key, package in _PACKAGES.items()} | metadata["required_packages_version"]
    for package, text in declared.items():
        try:
            installed = Version(importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            yield f"{package} must be installed, got none; install {package}>={text}"
            continue
        wanted = Version(text)
        if installed < wanted:
            yield f"{package} must be at least {wanted}, got {installed}; upgrade it"
        elif _series(installed) != _series(wanted):
            yield f"{package} must be of the series of {wanted}, got {installed}; install {package}=={wanted}"
        elif installed > wanted:
            logger.info("%s %s is newer than the %s that the bundle names", package, installed, wanted)


def _series(version: Version) -> tuple[int, ...]:
    """Return the part of a version within which semantic versioning promises compatibility."""
    return version.release[:1] if version.major > 0 else version.release[:2]


def _network_findings(data_format: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    definition = config.get("network_def")
    arguments: Mapping[str, Any] = definition if isinstance(definition, dict) else {}
    sides = (("inputs", "in_channels"), ("outputs", "out_channels"))
    for side, argument in sides:
        ports = list(data_format[side].values())
        channels = _resolved(config, arguments.get(argument))
        if len(ports) == 1 and isinstance(channels, int) and channels != ports[0]["num_channels"]:
            yield (
                f"num_channels of the {side} must be network_def's {argument} {channels}, "
                f"got {ports[0]['num_channels']}; correct the metadata"
            )
    for side, _ in sides:
        for port, content in data_format[side].items():
            if sorted(map(int, content["channel_def"])) != list(range(content["num_channels"])):
                yield (
                    f"channel_def of {port} must name channels 0 to {content['num_channels'] - 1}, "
                    f"got {', '.join(content['channel_def'])}; name each once"
                )
    yield from _window_findings(data_format, config)
    yield from _class_findings(data_format, config)


def _window_findings(data_format: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    roi_size = _resolved(config, config.get("roi_size"))
    image = data_format["inputs"].get("image")
    if image is None or not isinstance(roi_size, list):
        return
    shape = image["spatial_shape"]
    is_fixed = all(isinstance(size, int) for size in shape)
    if is_fixed and shape != roi_size:
        yield f"spatial_shape of image must be the config's roi_size {roi_size}, got {shape}; correct the metadata"


def _class_findings(data_format: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    class_names = _resolved(config, config.get("class_names"))
    pred = data_format["outputs"].get("pred")
    if pred is None or not isinstance(class_names, dict):
        return
    named = [str(class_names[label]) for label in sorted(class_names, key=int) if class_names[label] != "background"]
    channels = pred["channel_def"]
    declared = [channels[index] for index in sorted(channels, key=int) if channels[index] != "background"]
    if named != declared:
        yield f"channel_def of pred must be the config's class_names {named}, got {declared}; correct the metadata"


def _resolved(config: Mapping[str, Any], value: Any) -> Any:
    """Follow a value that is nothing but a reference to a top-level key."""
    seen = set()
    while isinstance(value, str) and value.startswith("@") and value not in seen:
        seen.add(value)
        value = config.get(value[1:])
    return value
