"""What goes wrong while MONAI builds the objects of a config, told in one line."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vol3d.errors import BundleError, Vol3dError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def config_errors(bundle_name: str) -> Iterator[None]:
    """Raise the reason behind MONAI's "Failed to instantiate ..." of the block.

    Raises:
        Vol3dError: A deliberate error of what was built, as it was raised.
        BundleError: For any other error, with its innermost cause.
    """
    try:
        yield
    except Exception as error:
        chain: list[BaseException] = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        deliberate = next((link for link in chain if isinstance(link, Vol3dError)), None)
        if deliberate is not None:
            raise deliberate from error
        reason = " ".join(str(chain[-1]).split())
        raise BundleError(
            f"config of {bundle_name} must build its objects, got {type(chain[-1]).__name__}: {reason}; "
            "check the settings of this run and the bundle's configs"
        ) from error
