"""Volumes, networks and settings that the inference benchmark and its peers share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import torch

from vol3d.networks.attention_unet import AttentionUNet

if TYPE_CHECKING:
    from pathlib import Path

AIR_HU, TISSUE_HU = -1000.0, 40.0


@dataclass(frozen=True)
class Case:
    """One scan and how it is prepared for the network.

    Args:
        name: For the table.
        path: NIfTI file in HU.
        spacing_mm: Grid of the network; None keeps the scan's.
    """

    name: str
    path: str
    spacing_mm: tuple[float, float, float] | None


@dataclass(frozen=True)
class Settings:
    """What every pipeline uses alike.

    Args:
        roi_size: Window.
        overlap: Shared part of windows; nnU-Net steps by half a window whatever this says.
        window_hu: Mapped to 0 and 1.
        num_classes: Channels of the network's output.
        weights: File with a state dict of the network; None draws random ones, whose labels are noise.
    """

    roi_size: tuple[int, int, int] = (96, 96, 96)
    overlap: float = 0.5
    window_hu: tuple[float, float] = (-1000.0, 1000.0)
    num_classes: int = 8
    weights: str | None = None

    def to_json(self) -> str:
        """Return the settings for a subprocess; see :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings that :meth:`to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def build_network(settings: Settings) -> torch.nn.Module:
    """Return the attention U-Net 16-32-64-128 with the settings' weights, in evaluation mode."""
    torch.manual_seed(0)
    network = AttentionUNet(1, settings.num_classes, channels=(16, 32, 64, 128))
    if settings.weights:
        state = torch.load(settings.weights, map_location="cpu", weights_only=True)
        network.load_state_dict(state.get("model", state))
    return network.eval()


def find_cases(data: Path, folder: Path, *, is_quick: bool) -> list[Case]:
    """Return the scans of the benchmark; what is not there is left out, synthetic ones are written to ``folder``."""
    cases = []
    for name, path, spacing in (
        ("head-and-neck CT 128x128x128", data / "head_neck_ct" / "images" / "pt_1.nii.gz", None),
        ("chest CT 512x512x133", data / "chest_ct" / "lidc_0001.nii.gz", (1.5, 1.5, 2.0)),
    ):
        if path.exists() and not (is_quick and "chest" in name):
            cases.append(Case(name, str(path), spacing))
    edge = 128 if is_quick else 512
    path = folder / f"synthetic_{edge}.nii.gz"
    if not path.exists():
        nib.save(nib.Nifti1Image(synthetic_ct((edge, edge, edge)), np.diag([0.75, 0.75, 0.75, 1.0])), path)
    return [*cases, Case(f"synthetic {edge}x{edge}x{edge}", str(path), (1.5, 1.5, 1.5))]


def synthetic_ct(shape: tuple[int, int, int]) -> np.ndarray:
    """Return an elliptic cylinder of noisy tissue with a denser core in air, int16 HU."""
    i, j, k = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    radius = (i[:, None] / 0.7) ** 2 + (j[None, :] / 0.55) ** 2
    slices = np.where(radius < 1, np.where(radius < 0.1, 300.0, TISSUE_HU), AIR_HU).astype(np.int16)
    volume = np.repeat(slices[:, :, None], len(k), axis=2)
    noise = np.random.default_rng(0).integers(-20, 20, size=(shape[0], shape[1], 16), dtype=np.int16)
    return volume + np.tile(noise, (1, 1, -(-shape[2] // 16)))[:, :, : shape[2]]


class ThresholdStub:
    """A network that costs next to nothing: class ``k`` is likely where the input is near ``k / classes``."""

    def __init__(self, num_classes: int) -> None:
        self._levels = torch.linspace(0, 1, num_classes)[None, :, None, None, None]

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return logits ``N K H W D``."""
        return (windows - self._levels).abs_().neg_()
