"""A batch on its way from a worker: what comes out is what went in, and nothing is copied that need not be. NumPy says what is right."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pgtiles.streaming.parcel import Parcel, Piece

KINDS = ("uint8", "int8", "uint16", "int32", "int64", "float16", "float32", "float64", "bool", "uint32")
arrays = st.sampled_from(KINDS).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
)


def equal(sample, tensors):
    assert list(tensors) == list(sample)
    for name, array in sample.items():
        found = tensors[name]
        if isinstance(array, list):
            assert len(found) == len(array)
            assert all(np.array_equal(a, b.numpy(), equal_nan=a.dtype.kind == "f") for a, b in zip(array, found, strict=True))
        else:
            assert found.numpy().dtype == array.dtype
            np.testing.assert_array_equal(found.numpy(), array)


@given(st.dictionaries(st.text(max_size=5), arrays, max_size=6), st.integers(0, 3000), st.data())
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(sample, size, data):
    piece, given_ = Piece(size), {}
    for name, array in sample.items():  # some were made inside, as pages are, others come from elsewhere
        if data.draw(st.booleans()):
            given_[name] = piece.zeros(array.shape, array.dtype)
            assert not given_[name].any()
            given_[name][...] = array
        else:
            given_[name] = array
    equal(sample, piece.pack(given_).unpack())


def test_large_arrays_are_never_copied_and_small_ones_do_not_hold_them():
    piece = Piece(1_000_000)
    image, mask = piece.zeros((2, 3, 128, 128), "uint8"), piece.zeros((2, 128, 128), "int64")
    image[...], mask[...] = 7, 9
    parcel = piece.pack({"image": image, "mask": mask, "tile_id": np.arange(2)})
    assert parcel.bytes.data_ptr() == piece.bytes.data_ptr()
    mask[0, 0, 0] = 5
    tensors = parcel.unpack()
    assert tensors["mask"][0, 0, :3].tolist() == [5, 9, 9]
    assert all(tensors[name].is_shared() and tensors[name].data_ptr() % 64 == 0 for name in ("image", "mask"))
    assert tensors["tile_id"].untyped_storage().nbytes() == 16


def test_too_much_for_the_piece_goes_into_a_larger_one():
    piece = Piece(100)
    some, more = piece.zeros((64,), "uint8"), piece.zeros((1000,), "uint8")
    some[...], more[...] = 1, 2
    parcel = piece.pack({"some": some, "more": more})
    assert len(parcel.bytes) == 64 + 1024
    equal({"some": some, "more": more}, parcel.unpack())


def test_a_part_of_an_array_or_its_transpose_is_copied():
    piece = Piece(1000)
    whole = piece.zeros((4, 6), "int16")
    whole[...] = np.arange(24).reshape(4, 6)
    sample = {"turned": whole.T, "every_other": whole[:, ::2], "below": whole[2:]}
    equal(sample, piece.pack(sample).unpack())


def test_ragged_arrays_travel_beside():
    sample = {
        "boxes": [np.ones((2, 4), "f4"), np.zeros((0, 4), "f4")],
        "tile_id": np.array([3, 4]),
        "labels": [np.arange(2), np.arange(0)],
    }
    equal(sample, Piece(10).pack(sample).unpack())


def test_pieces_apart_do_not_meet():
    pieces = [Piece(256) for _ in range(20)]
    arrays = [piece.zeros((16,), "int64") for piece in pieces]
    for number, array in enumerate(arrays):
        array[...] = number
    assert [set(array.tolist()) for array in arrays] == [{number} for number in range(20)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_pinned():
    parcel = Piece(100).pack({"a": np.arange(5)})
    assert parcel.pin_memory().unpack()["a"].is_pinned()


def test_a_parcel_is_one_tensor_and_few_words():
    parcel = Piece(5000).pack({"image": np.zeros((2, 3, 16, 16), "u1"), "mask": np.ones((2, 16, 16), "i8")})
    empty = Parcel(torch.empty(0, dtype=torch.uint8), parcel.names, parcel.arrays, parcel.lists)
    assert len(pickle.dumps(empty)) < 1500
