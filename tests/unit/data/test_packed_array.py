import numpy as np
import pytest
import torch

from vol3d.data.packed_array import pack_array


def same_bits(first: torch.Tensor, second: torch.Tensor) -> bool:
    assert first.dtype == second.dtype
    assert first.shape == second.shape
    return first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()


def integers(low, high, shape=(20, 30, 40)):
    return torch.from_numpy(np.random.default_rng(0).integers(low, high, shape))


@pytest.mark.parametrize(
    ("array", "codes"),
    [
        (integers(0, 8).float(), torch.int8),
        (integers(0, 200).float(), torch.uint8),
        (integers(-1024, 3071).float(), torch.int16),
        (integers(-1024, 3071), torch.int16),
        (integers(-900, 900).double() * 0.25, torch.float16),
        ((integers(-1024, 3071).float() + 1000) / 2000, torch.int16),  # any scale and offset: a palette
        (torch.sin(integers(0, 100).float()), torch.uint8),
        (integers(0, 60000, (50, 60, 100)).float() / 7, torch.int16),
        (torch.randn(20, 30, 40), torch.float32),
        (integers(0, 2).bool(), torch.bool),
        (integers(0, 100).to(torch.uint8), torch.uint8),
        (integers(0, 2000).to(torch.int32).to(torch.uint16), torch.uint16),
        (torch.randn(4, 5, 6, dtype=torch.complex64), torch.complex64),
    ],
)
def test_arrays_come_back_bit_for_bit_from_the_smallest_exact_form(array, codes):
    packed = pack_array(array)
    assert packed.codes.dtype == codes
    assert same_bits(packed.unpack(), array)


def test_bfloat16_comes_back():
    array = torch.randn(20, 30).to(torch.bfloat16)
    assert torch.equal(pack_array(array).unpack().view(torch.int16), array.view(torch.int16))


@pytest.mark.parametrize("odd", [-0.0, float("nan"), float("inf"), -float("inf"), 1e-45, 3.4e38])
def test_odd_floats_keep_their_bits(odd):
    array = torch.zeros(9, 10, 11)
    array[4, 5, 6] = odd
    assert same_bits(pack_array(array).unpack(), array)


def test_nan_payloads_survive():
    array = torch.tensor([0x7FC00001, 0x7FC00002, 0x7F800001] * 100, dtype=torch.int32).view(torch.float32)
    assert same_bits(pack_array(array).unpack(), array)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (1, 1, 1)])
def test_empty_and_tiny_arrays_keep_their_shape(shape):
    array = torch.full(shape, 0.3)
    assert same_bits(pack_array(array).unpack(), array)


def test_strided_arrays_are_packed_in_index_order():
    array = torch.arange(60.0).reshape(3, 4, 5).permute(2, 0, 1)[::2]
    assert torch.equal(pack_array(array).unpack(), array)


def test_values_that_show_up_after_the_sample_are_not_lost():
    array = torch.zeros(600_000)
    array[1::2] = torch.randn(300_000)
    assert same_bits(pack_array(array).unpack(), array)


@pytest.mark.parametrize("size", [512, 513, 5120, 100_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int16, torch.uint8, torch.bool])
def test_runs_of_one_value_are_left_out_and_come_back(size, dtype):
    array = torch.zeros(size, dtype=dtype)
    array[size // 2 : size // 2 + 40] = (torch.randn(40) * 3).abs().to(dtype)
    array[-3:] = 1
    packed = pack_array(array)
    assert packed.num_bytes < size * array.element_size() or size < 2000
    assert same_bits(packed.unpack(), array)


def test_runs_of_different_values_come_back_each_with_its_own():
    array = torch.linspace(0, 1, 50).repeat_interleave(1400).reshape(70, 1000)
    array[0] = torch.rand(1000)
    packed = pack_array(array)
    assert packed.is_filled is not None
    assert same_bits(packed.unpack(), array)


def test_negative_zero_inside_zeros_is_no_run():
    array = torch.zeros(5120)
    array[1000] = -0.0
    assert same_bits(pack_array(array).unpack(), array)


def test_volume_of_one_value_takes_almost_nothing():
    packed = pack_array(torch.full((64, 64, 64), -1000.0))
    assert packed.num_bytes < 3000
    assert torch.equal(packed.unpack(), torch.full((64, 64, 64), -1000.0))


def test_unpacked_array_is_new_memory():
    packed = pack_array(torch.randn(50))
    packed.unpack().zero_()
    assert packed.unpack().abs().sum() > 0
