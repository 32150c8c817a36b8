"""Every error that vol3d raises on purpose, and the exit code that the command line gives it.

::

    Vol3dError
    ├── UsageError            2  the call itself is wrong: an option, a name, a path
    │   ├── ConfigError          a bundle config has no such key, or cannot be read
    │   ├── OutputError          the output exists, or cannot be written
    │   └── UnknownBundleError   no bundle of that name
    ├── DataError             3  a file is not what it must be
    │   ├── GeometryError        shape, affine, spacing or orientation
    │   ├── IntensityError       voxel values
    │   ├── VolumeReadError      a volume file or DICOM series that cannot be read whole
    │   ├── BundleError          a bundle that is incomplete or contradicts itself
    │   │   └── WeightsError     weights that are missing or do not fit the network
    │   └── RefusedError         trust: signature, lock, audit, leak
    ├── IncompleteError       4  work stopped part-way and can be resumed
    └── RequirementError      5  this machine lacks something: an extra, a device, a server

Message form: ``<name> must <rule>, got <value>; <what to do>``. Each class also derives from the
built-in exception that a caller who does not know vol3d would catch.
"""

from __future__ import annotations


class Vol3dError(Exception):
    """Base of all deliberate errors; its message is one line a user can act on."""

    exit_code = 1


class UsageError(Vol3dError, ValueError):
    """The call is wrong: an option, a name or a path."""

    exit_code = 2


class ConfigError(UsageError):
    """A bundle config has no such key, or cannot be read."""


class OutputError(UsageError):
    """The output exists already or cannot be written."""


class UnknownBundleError(UsageError):
    """No bundle has that name."""


class DataError(Vol3dError, ValueError):
    """A file is not what it must be."""

    exit_code = 3


class GeometryError(DataError):
    """Shape, affine, spacing or orientation is wrong."""


class IntensityError(DataError):
    """Voxel values are not finite or not in the expected unit."""


class VolumeReadError(DataError):
    """A volume file or DICOM series cannot be read whole."""


class BundleError(DataError):
    """A bundle is incomplete or contradicts itself."""


class WeightsError(BundleError):
    """Weights are missing or do not fit the network."""


class RefusedError(DataError):
    """A bundle is not trusted: its signature, lock, audit or a leak forbids it."""


class IncompleteError(Vol3dError, RuntimeError):
    """Work stopped part-way; what is finished is whole and the rest can be resumed."""

    exit_code = 4


class RequirementError(Vol3dError, RuntimeError):
    """This machine lacks something: an extra, a device, a server."""

    exit_code = 5
