"""OpenVINO on CPUs: the same network, converted once, several times faster than eager PyTorch.

Measured on a Xeon with AMX and AVX512-FP16 (attention U-Net 16-32-64-128, window 96x96x96, CPU seconds a window):
eager 2.1, f32 0.72, f16 0.25. Half precision keeps 11 bits of a number and bfloat16 8, so f16 differs from eager by a
quarter or less of what bf16 does at the same speed: ``"auto"`` takes f16 where the processor computes in it, and f32
elsewhere.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import monai
import torch
from torch.jit._trace import TracerWarning

from vol3d.errors import RequirementError, UsageError
from vol3d.inference.runtimes.pooled_norm import with_pooled_norms
from vol3d.inference.runtimes.runtime import RuntimeReport
from vol3d.inference.runtimes.torch_eager import agreement

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "f32", "bf16", "f16")

MIN_DICE = 0.998
"""``"auto"`` keeps half precision if the foreground of the first window agrees with eager PyTorch as well as this."""

CONVERSION = "1"
"""Part of the cache key; raise it whenever this package converts a network in another way."""

WRONG_DICE = 0.95
"""Labels of the first window that agree less than this are no matter of rounding."""


class OpenVinoRuntime:
    """Runs windows of one shape on the CPU through OpenVINO.

    The first window is also run by eager PyTorch, and the report says how far they are apart. If too many labels
    differ, ``"auto"`` goes on in f32 and says so in the log; a precision that was asked for stays, with a warning.
    Logits that are not finite, or f32 labels that are far off, are an error: the network was converted wrongly.

    Args:
        network: Put into evaluation mode; kept for the first comparison.
        window_shape: ``C H W D`` of every window.
        precision: ``"auto"``, ``"f32"``, ``"bf16"`` or ``"f16"``.
        cache_dir: Where converted networks are kept, by digest; None keeps nothing.
        num_threads: Default: as many as PyTorch uses.
        reason: Why this runtime was chosen, for the report.

    Raises:
        RequirementError: If OpenVINO is not installed or cannot convert the network.
        UsageError: If the precision is unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        window_shape: tuple[int, int, int, int],
        *,
        precision: str = "auto",
        cache_dir: Path | str | None = None,
        num_threads: int | None = None,
        reason: str = "asked for",
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}; choose one")
        self._openvino = require_openvino()
        self._network = network.eval()
        self._num_threads = num_threads or torch.get_num_threads()
        self._is_auto = precision == "auto"
        self._model = _converted(self._openvino, network, window_shape, cache_dir)
        self._core = self._openvino.Core()
        if self._is_auto:
            precision = "f16" if "FP16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        self._report = RuntimeReport("openvino", "cpu", precision, reason)
        self._requests = self._compile(precision)

    @property
    def report(self) -> RuntimeReport:
        """See :class:`~vol3d.inference.runtimes.runtime.Runtime`."""
        return self._report

    @property
    def windows_per_call(self) -> int:
        """One window per thread: threads that never wait for each other beat threads that share a window."""
        return self._num_threads

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Return float32 logits of ``windows``, which must have the shape the runtime was made for."""
        logits = self._infer(windows)
        if self._report.max_difference is None:
            logits = self._check(windows, logits)
        return logits

    def _infer(self, windows: torch.Tensor) -> torch.Tensor:
        inputs = windows.detach().to("cpu", torch.float32).contiguous()
        logits = torch.empty((len(windows), *self._requests[0].model_outputs[0].shape[1:]))
        for number, (source, target) in enumerate(zip(torch.split(inputs, 1), torch.split(logits, 1), strict=True)):
            request = self._requests[number % len(self._requests)]
            request.wait()
            # Shared memory: OpenVINO reads the window and writes the logits where they are.
            request.set_input_tensor(self._openvino.Tensor(source.numpy(), shared_memory=True))
            request.set_output_tensor(self._openvino.Tensor(target.numpy(), shared_memory=True))
            request.start_async()
        for request in self._requests:
            request.wait()
        return logits

    def _compile(self, precision: str) -> list[Any]:
        compiled = self._core.compile_model(
            self._model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": precision,
                "NUM_STREAMS": str(self._num_threads),
                "INFERENCE_NUM_THREADS": self._num_threads,
            },
        )
        return [compiled.create_infer_request() for _ in range(self._num_threads)]

    def _check(self, windows: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            expected = self._network(windows[:1].to(next(self._network.parameters()).device)).cpu()
        difference, dice = agreement(logits[:1], expected)
        precision = self._report.precision
        self._report = replace(self._report, max_difference=difference, foreground_dice=dice)
        if dice >= MIN_DICE:
            return logits
        message = (
            f"openvino {precision} must agree with eager PyTorch to a Dice score of {MIN_DICE}, got {dice:.4f} "
            f"(largest difference of logits {difference:.3g})"
        )
        if self._is_auto and precision != "f32":
            logger.warning("%s; going on in f32", message)
            self._requests = self._compile("f32")
            self._report = replace(self._report, precision="f32", max_difference=None, foreground_dice=None)
            return self(windows)
        if dice < WRONG_DICE:
            raise RequirementError(f"{message}; use the runtime torch")
        logger.warning("%s; going on, as there is no better precision or it was asked for", message)
        return logits


def require_openvino() -> Any:
    """Return the ``openvino`` package.

    Raises:
        RequirementError: If it is not installed.
    """
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise RequirementError(
            'openvino must be installed, got no such package; run: pip install "vol3d[cpu]"'
        ) from error


def network_digest(network: nn.Module, window_shape: tuple[int, ...], *versions: str) -> str:
    """Return 32 hex digits that change with weights, structure, window shape or any of the versions."""
    digest = hashlib.sha256(repr((type(network).__qualname__, str(network), window_shape, versions)).encode())
    for name, tensor in network.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _converted(
    openvino: Any, network: nn.Module, window_shape: tuple[int, int, int, int], cache_dir: Path | str | None
) -> Any:
    if cache_dir is None:
        return _convert(openvino, network, window_shape)
    versions = (openvino.__version__, torch.__version__, monai.__version__, CONVERSION)
    folder = Path(cache_dir) / f"openvino-{network_digest(network, window_shape, *versions)}"
    path = folder / "network.xml"
    if path.exists():
        return openvino.Core().read_model(path)
    model = _convert(openvino, network, window_shape)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # The network is two files: they are written aside and appear together, whoever else converts the same one.
    aside = Path(tempfile.mkdtemp(prefix=".openvino-", dir=folder.parent))
    try:
        openvino.save_model(model, aside / path.name, compress_to_fp16=False)
        aside.replace(folder)
    except OSError:
        # Another process may have been first, with the same content.
        if not path.exists():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return model


def _convert(openvino: Any, network: nn.Module, window_shape: tuple[int, int, int, int]) -> Any:
    device = next(network.parameters()).device
    example = torch.zeros((1, *window_shape), device=device)
    with warnings.catch_warnings():
        # Tracing warns about every branch on a shape; the shape is fixed, and the first window is compared with eager.
        warnings.simplefilter("ignore", TracerWarning)
        # OpenVINO 2026.4 itself calls torch.jit.trace, which PyTorch 2.13 deprecates. Its way through torch.export
        # splits instance norm into a dozen operations, which makes the network half as fast again in half precision.
        warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
        try:
            model = openvino.convert_model(with_pooled_norms(network), example_input=example)
        except Exception as error:
            # The converter raises whatever its stages raise.
            raise RequirementError(
                f"network must be convertible to OpenVINO, got {type(error).__name__} for {type(network).__name__}; "
                "use the runtime torch"
            ) from error
    if len(model.outputs) != 1:
        raise RequirementError(f"network must have one output for OpenVINO, got {len(model.outputs)}; use torch")
    model.reshape([1, *window_shape])
    return model
