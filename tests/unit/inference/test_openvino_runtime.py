"""OpenVINO against eager PyTorch, its cache, and what happens when precision does not suffice."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from vol3d.errors import RequirementError, UsageError
from vol3d.inference.runtimes import choose_runtime as choose_module
from vol3d.inference.runtimes import openvino_runtime
from vol3d.inference.runtimes.choose_runtime import RuntimeOptions, choose_runtime
from vol3d.inference.runtimes.openvino_runtime import OpenVinoRuntime, network_digest

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (1, 8, 8, 8)


def small_network(bias: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, 3, 1))
    with torch.no_grad():
        network[3].bias += bias
    return network.eval()


def unstable_network() -> nn.Module:
    """Half precision cannot tell 2048 and 2049 apart, on which the label depends here."""
    network = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 2, 3, padding=1)).eval()
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        network[0].weight[:, :, 1, 1, 1] = 1.0
        network[0].bias += 2048.0
        network[2].weight[1, 0, 1, 1, 1] = 1.0
        network[2].bias[1] = -2048.5
    return network


@pytest.fixture(scope="module")
def openvino() -> Any:
    return pytest.importorskip("openvino", reason="OpenVINO is the extra vol3d[cpu]")


def test_logits_are_those_of_eager_pytorch(openvino: Any) -> None:
    network = small_network()
    runtime = OpenVinoRuntime(network, SHAPE, precision="f32", num_threads=2)
    windows = torch.randn(5, *SHAPE)
    logits = runtime(windows)
    with torch.no_grad():
        torch.testing.assert_close(logits, network(windows), rtol=1e-4, atol=1e-4)
    assert runtime.report.max_difference is not None
    assert runtime.report.max_difference < 1e-4
    assert runtime.report.foreground_dice == pytest.approx(1, abs=0.005)
    assert runtime.windows_per_call == 2


def test_results_of_two_calls_do_not_share_memory(openvino: Any) -> None:
    runtime = OpenVinoRuntime(small_network(), SHAPE, precision="f32", num_threads=1)
    first = runtime(torch.zeros(1, *SHAPE))
    before = first.clone()
    runtime(torch.randn(1, *SHAPE))
    assert torch.equal(first, before)


def test_windows_may_be_views_into_a_volume(openvino: Any) -> None:
    network = small_network()
    runtime = OpenVinoRuntime(network, SHAPE, precision="f32", num_threads=1)
    windows = torch.randn(2, 1, 16, 16, 16)[..., ::2, 4:12, 8:]
    with torch.no_grad():
        torch.testing.assert_close(runtime(windows), network(windows), rtol=1e-4, atol=1e-4)


def test_a_converted_network_is_kept_by_digest_and_used_again(
    openvino: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = torch.randn(1, *SHAPE)
    first = OpenVinoRuntime(small_network(), SHAPE, precision="f32", cache_dir=tmp_path)(windows)
    names = sorted(p.name for p in tmp_path.rglob("*"))
    assert len(names) == 3
    assert {"network.bin", "network.xml"} < set(names)

    def convert_again(*_: Any) -> None:
        raise AssertionError("the cache was not used")

    monkeypatch.setattr(openvino_runtime, "_convert", convert_again)
    again = OpenVinoRuntime(small_network(), SHAPE, precision="f32", cache_dir=tmp_path)(windows)
    assert torch.equal(first, again)
    with pytest.raises(AssertionError, match="cache was not used"):
        OpenVinoRuntime(small_network(bias=1), SHAPE, precision="f32", cache_dir=tmp_path)


def test_an_interrupted_conversion_leaves_nothing_that_looks_finished(
    openvino: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disk_full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", disk_full)
    with pytest.raises(OSError, match="No space left"):
        OpenVinoRuntime(small_network(), SHAPE, cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.xml"))
    assert not list(tmp_path.iterdir())


def test_the_digest_changes_with_weights_structure_shape_and_version() -> None:
    network = small_network()
    digests = {
        network_digest(network, SHAPE, "1"),
        network_digest(network, SHAPE, "2"),
        network_digest(network, (1, 16, 8, 8), "1"),
        network_digest(small_network(bias=1e-6), SHAPE, "1"),
        network_digest(nn.Sequential(*network, nn.ReLU()), SHAPE, "1"),
    }
    assert len(digests) == 5
    assert network_digest(small_network(), SHAPE, "1") in digests


def test_auto_goes_back_to_f32_when_half_precision_changes_labels(
    openvino: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    compile_as = OpenVinoRuntime._compile

    def half_first(self: OpenVinoRuntime, precision: str) -> list[Any]:
        # What a processor with native half precision would be given, whatever this one has.
        compiled.append(precision)
        return compile_as(self, precision)

    monkeypatch.setattr(OpenVinoRuntime, "_compile", half_first)
    runtime = OpenVinoRuntime(unstable_network(), SHAPE)
    if runtime.report.precision != "f16":
        pytest.skip("this processor computes no half precision; auto starts in f32")
    windows = torch.rand(1, *SHAPE)
    with caplog.at_level(logging.WARNING), torch.no_grad():
        torch.testing.assert_close(runtime(windows), unstable_network()(windows), rtol=1e-3, atol=1e-3)
    assert compiled == ["f16", "f32"]
    assert runtime.report.precision == "f32"
    assert "going on in f32" in caplog.text


def test_a_network_that_cannot_be_converted_is_refused_or_run_by_pytorch(
    openvino: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class TwoOutputs(nn.Conv3d):
        def forward(self, windows: torch.Tensor) -> Any:
            return windows, super().forward(windows)

    network = TwoOutputs(1, 1, 1)
    with pytest.raises(RequirementError, match="network must have one output for OpenVINO, got 2"):
        choose_runtime(network, "cpu", SHAPE, RuntimeOptions("openvino"))
    runtime = choose_runtime(network, "cpu", SHAPE)
    assert runtime.report.name == "torch"
    assert "OpenVINO cannot run it" in runtime.report.reason
    assert "one output" in caplog.text


def test_auto_takes_openvino_on_a_cpu_and_says_why(openvino: Any) -> None:
    report = choose_runtime(small_network(), "cpu", SHAPE).report
    assert (report.name, report.reason) == ("openvino", "fastest on a CPU")


def test_without_the_extra_auto_takes_pytorch_and_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module.importlib.util, "find_spec", lambda _: None)
    report = choose_runtime(small_network(), "cpu", SHAPE).report
    assert report.name == "torch"
    assert 'pip install "vol3d[cpu]"' in report.reason


def test_without_the_extra_openvino_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(openvino_runtime.importlib, "import_module", missing)
    with pytest.raises(RequirementError, match=r'openvino must be installed.*pip install "vol3d\[cpu\]"'):
        choose_runtime(small_network(), "cpu", SHAPE, RuntimeOptions("openvino"))


def test_wrong_names_and_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="runtime must be one of auto, torch, openvino, got 'onnx'"):
        choose_runtime(small_network(), "cpu", SHAPE, RuntimeOptions("onnx"))
    with pytest.raises(UsageError, match="device must be cpu for the runtime openvino, got cuda"):
        choose_runtime(small_network(), "cuda", SHAPE, RuntimeOptions("openvino"))
    with pytest.raises(UsageError, match="precision must be one of auto, f32, bf16, f16, got 'int4'"):
        OpenVinoRuntime(small_network(), SHAPE, precision="int4")
