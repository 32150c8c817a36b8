"""Where training patches lie: foreground-balanced centers from a compact index, without touching the volume.

`ForegroundIndex` is made once per case, is small (a bounded number of voxels per class) and can be cached beside the
volume. `BalancedPatchSampler` turns it into patch centers that depend on (seed, epoch, case, draw) alone.
`BatchAugment` takes them as ``center_vox`` and reads only the voxels that each patch needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vol3d.errors import ConfigError, GeometryError
from vol3d.transforms.augment_draw import center_start, stream

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ForegroundIndex:
    """Voxels of each class of one labelmap.

    Args:
        shape: Voxels of the labelmap along ``H W D``.
        voxels: For each class that occurs, flat C-order indices of some of its voxels.

    Raises:
        GeometryError: If an index lies outside the shape.
    """

    shape: tuple[int, int, int]
    voxels: Mapping[int, NDArray[np.int64]]

    def __post_init__(self) -> None:
        size = int(np.prod(self.shape))
        for number, indices in self.voxels.items():
            if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= size):
                raise GeometryError(
                    f"voxels of class {number} must lie in the shape {self.shape}, got indices {int(indices.min())} to "
                    f"{int(indices.max())}; use the index of this very labelmap"
                )

    @classmethod
    def from_label(cls, label: NDArray[Any], max_voxels: int = 10_000) -> ForegroundIndex:
        """Index the nonzero classes of a labelmap.

        Args:
            label: ``H W D`` or ``1 H W D``, whole numbers.
            max_voxels: Kept per class, evenly spread in C order over all of its voxels.

        Raises:
            GeometryError: If the labelmap does not have three axes.
            ConfigError: If ``max_voxels`` is not positive.
        """
        label = np.asarray(label)
        volume = label[0] if label.ndim == 4 and label.shape[0] == 1 else label
        if volume.ndim != 3:
            raise GeometryError(f"label must be H W D or 1 H W D, got shape {label.shape}; give one labelmap")
        if max_voxels < 1:
            raise ConfigError(f"max_voxels must be positive, got {max_voxels}; 10000 is usual")
        flat = np.flatnonzero(volume)
        classes = volume.reshape(-1)[flat]
        voxels = {}
        for number in np.unique(classes):
            indices = flat[classes == number]
            chosen = np.linspace(0, len(indices) - 1, min(max_voxels, len(indices))).round().astype(np.int64)
            voxels[int(number)] = indices[chosen].astype(np.int64)
        return cls((volume.shape[0], volume.shape[1], volume.shape[2]), voxels)


class BalancedPatchSampler:
    """Draws patch centers with given class probabilities.

    Args:
        roi_size: Voxels of the patches along ``H W D``.
        class_weights: How often a patch is drawn around a voxel of each class. Class 0 draws anywhere in the volume,
            unless the index lists voxels of class 0. Weights of classes that a case does not hold go to the others in
            proportion; if none is left, patches are drawn anywhere.
        seed: Number of the whole experiment.

    Raises:
        ConfigError: If a size or the sum of weights is not positive, or a weight is negative.

    Example:
        >>> label = np.zeros((8, 8, 8), np.uint8)
        >>> label[6, 1, 3] = 1
        >>> sampler = BalancedPatchSampler((4, 4, 4), class_weights={0: 0, 1: 1})
        >>> sampler.centers(ForegroundIndex.from_label(label), case="a", epoch=1, draws=range(2)).tolist()
        [[6, 2, 3], [6, 2, 3]]
    """

    def __init__(self, roi_size: Sequence[int], class_weights: Mapping[int, float], seed: int = 0) -> None:
        self.roi_size = tuple(int(n) for n in roi_size)
        if len(self.roi_size) != 3 or min(self.roi_size) < 1:
            raise ConfigError(f"roi_size must be 3 positive numbers, got {tuple(roi_size)}; give voxels along H W D")
        # YAML and JSON may turn class numbers into strings.
        self.class_weights = {int(number): float(weight) for number, weight in class_weights.items()}
        weights = list(self.class_weights.values())
        if not np.isfinite(weights).all() or min(weights, default=0) < 0 or sum(weights) <= 0:
            raise ConfigError(f"class_weights must be at least 0 with a positive sum, got {weights}; raise one")
        self.seed = int(seed)

    def centers(self, index: ForegroundIndex, case: str | int, epoch: int, draws: Sequence[int]) -> NDArray[np.int64]:
        """Return one patch center per draw, ``len(draws) x 3``; a row is what a sample gives as ``center_vox``.

        A patch holds the voxel it was drawn for and does not leave the volume; along an axis shorter than the patch it
        holds the whole axis, centered.

        Args:
            index: Voxels of the case's classes.
            case: Name or number of the case.
            epoch: Number of the epoch.
            draws: Numbers of the patches among those of this case and epoch.
        """
        classes = [
            number
            for number, weight in self.class_weights.items()
            if weight > 0 and (number == 0 or len(index.voxels.get(number, ())))
        ]
        weights = np.array([self.class_weights[number] for number in classes] or [1.0])
        classes = classes or [0]
        result = np.empty((len(draws), 3), dtype=np.int64)
        for row, draw in zip(result, draws, strict=True):
            rng = stream(self.seed, epoch, case, int(draw), "patch center")
            number = classes[int(rng.choice(len(classes), p=weights / weights.sum()))]
            voxels = index.voxels.get(number, ())
            flat = voxels[rng.integers(len(voxels))] if len(voxels) else rng.integers(int(np.prod(index.shape)))
            row[:] = self._inside(np.unravel_index(int(flat), index.shape), index.shape)
        return result

    def _inside(self, voxel: Sequence[np.intp], shape: Sequence[int]) -> list[int]:
        """Return the center nearest to a voxel whose patch does not leave the volume."""
        center = []
        for position, size, roi in zip(voxel, shape, self.roi_size, strict=True):
            start = min(max(int(position) - roi // 2, 0), size - roi) if size >= roi else center_start(size, roi)
            center.append(start + roi // 2)
        return center
