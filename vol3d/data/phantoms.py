"""Small synthetic volumes whose truth is known exactly, for tests, documentation and trials without patient data.

A phantom is one ellipsoid in noise. Its anterior half is label 1, its posterior half label 2 (like the two parts of
the hippocampus), brighter than the background by different amounts. The same arguments give the same phantom.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vol3d.data.datalist import DATASET_FILE
from vol3d.data.volume import Volume
from vol3d.data.volume_writer import write_labelmap, write_volume
from vol3d.geometry import VolumeGeometry

BACKGROUND, ANTERIOR, POSTERIOR = 0, 1, 2
_MEANS = {BACKGROUND: 100.0, ANTERIOR: 180.0, POSTERIOR: 240.0}
_NOISE = 10.0
# Rotations about x, y and z in degrees: none of the axes of an oblique phantom lies near a world axis' direction.
_OBLIQUE_DEGREES = (12.0, -8.0, 20.0)


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic scan with its labels and its truth.

    Args:
        image: Noise image, float32.
        label: Labelmap on the same grid, uint8: 0 background, 1 anterior half, 2 posterior half.
        center_world: Centre of the ellipsoid, RAS+ mm.
        radii_mm: Its half axes along ``H W D``.
    """

    image: Volume
    label: Volume
    center_world: tuple[float, float, float]
    radii_mm: tuple[float, float, float]

    @property
    def volume_ml(self) -> float:
        """Exact volume of the ellipsoid in millilitres."""
        return 4 / 3 * math.pi * math.prod(self.radii_mm) / 1000


def make_phantom(
    shape: tuple[int, int, int] = (32, 40, 28),
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    seed: int = 0,
    *,
    is_oblique: bool = False,
) -> Phantom:
    """Make one phantom.

    Args:
        shape: Voxels along ``H W D``, at least 8 each so that the ellipsoid has an inside.
        spacing_mm: Voxel size along ``H W D``.
        seed: Chooses position, size and noise.
        is_oblique: Rotate the grid about all three world axes; without it the axis codes are RAS.

    Example:
        >>> phantom = make_phantom(seed=3)
        >>> phantom.image.array.shape, sorted(set(phantom.label.array.ravel().tolist()))
        ((32, 40, 28), [0, 1, 2])
    """
    random = np.random.default_rng(seed)
    extent_mm = np.array(shape) * spacing_mm
    radii = extent_mm * random.uniform(0.2, 0.3, size=3)
    center_vox = (np.array(shape) - 1) / 2 + np.array(shape) * random.uniform(-0.1, 0.1, size=3)
    affine = np.eye(4)
    affine[:3, :3] = (_rotation(_OBLIQUE_DEGREES) if is_oblique else np.eye(3)) * spacing_mm
    affine[:3, 3] = random.uniform(-50, 50, size=3)
    geometry = VolumeGeometry(shape, affine)

    indices = np.indices(shape).reshape(3, -1).T
    offsets_mm = (indices - center_vox) * spacing_mm
    is_inside = ((offsets_mm / radii) ** 2).sum(axis=1) <= 1
    center = geometry.to_world(center_vox)
    is_anterior = geometry.to_world(indices)[:, 1] > center[1]
    labels = np.where(is_inside, np.where(is_anterior, ANTERIOR, POSTERIOR), BACKGROUND).astype(np.uint8)
    means = np.array([_MEANS[label] for label in sorted(_MEANS)])
    image = means[labels] + random.normal(0, _NOISE, size=labels.size)
    return Phantom(
        image=Volume(image.astype(np.float32).reshape(shape), geometry),
        label=Volume(labels.reshape(shape), geometry),
        center_world=(float(center[0]), float(center[1]), float(center[2])),
        radii_mm=(float(radii[0]), float(radii[1]), float(radii[2])),
    )


def write_phantom_dataset(folder: str | Path, num_training: int, num_validation: int, seed: int = 0) -> Path:
    """Write a tiny data set that ``datalist.read_split`` reads: ``images/``, ``labels/`` and ``dataset.json``.

    Args:
        folder: Made if missing.
        num_training: Number of training cases.
        num_validation: Number of validation cases.
        seed: Another seed gives other cases.

    Returns:
        The folder.

    Raises:
        OutputError: If a file exists already or cannot be written.
    """
    folder = Path(folder)
    names = [f"phantom_{number:03d}" for number in range(1, num_training + num_validation + 1)]
    for number, name in enumerate(names):
        phantom = make_phantom(seed=seed * 100_003 + number)
        write_volume(folder / "images" / f"{name}.nii.gz", phantom.image.array, phantom.image.geometry)
        write_labelmap(folder / "labels" / f"{name}.nii.gz", phantom.label.array, phantom.label.geometry)
    content = {
        "name": "Phantoms",
        "modality": "MR",
        "labels": {str(BACKGROUND): "background", str(ANTERIOR): "anterior", str(POSTERIOR): "posterior"},
        "training": names[:num_training],
        "validation": names[num_training:],
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DATASET_FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return folder


def _rotation(degrees: tuple[float, float, float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    rotation = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        first, second = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[[first, second], [first, second]] = np.cos(angle)
        turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
        rotation = turn @ rotation
    return rotation
