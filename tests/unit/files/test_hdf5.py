import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node_robustness.errors import UserError
from node_robustness.files.atomic import SOFTWARE, sha256
from node_robustness.files.hdf5 import Rows, open_hdf5, put, read_settings, stream_hdf5, write_hdf5


def write_example(path, values=(1, 2, 3)):
    with write_hdf5(path, "clean", {"seed": 0, "tolerance": None}, seconds=1.5) as file:
        put(file, "logits", np.asarray(values, np.float32), units="1", description="class scores")
        put(file, "nodes/names", ["a", "é"], units="1", description="names")


@pytest.fixture
def small_files_only():
    """Let no file grow beyond 20 kB: writing then fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class TestWriteHdf5:
    def test_full_disk_while_flushing(self, tmp_path, monkeypatch):
        def full(descriptor):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="no space left"):
            write_example(tmp_path / "clean.h5")
        assert list(tmp_path.iterdir()) == []

    def test_root_attributes(self, tmp_path):
        write_example(tmp_path / "clean.h5")
        with open_hdf5(tmp_path / "clean.h5", "clean") as file:
            assert dict(file.attrs) == {
                "kind": "clean",
                "schema_version": 1,
                "software": SOFTWARE,
                "settings": '{"seed": 0, "tolerance": null}',
                "seconds": 1.5,
            }
            assert read_settings(file) == {"seed": 0, "tolerance": None}

    def test_bytes_are_reproducible(self, tmp_path):
        script = (
            "import sys, numpy as np; from node_robustness.files.hdf5 import *\n"
            "with write_hdf5(sys.argv[1], 'data', {'a': 1}) as file:\n"
            "    put(file, 'x/y', np.arange(9e4).reshape(300, 300), units='s', description='d')\n"
            "    put(file, 'z', ['a', 'bc'], units='1', description='d')\n"
        )
        paths = [tmp_path / name for name in ("one.h5", "another.h5")]
        for path in paths:
            # Another process, another time and another state of the memory.
            subprocess.run(
                [sys.executable, "-c", script, str(path)],
                check=True,
                env={"PYTHONPATH": os.pathsep.join(sys.path)},
            )
        assert sha256(paths[0]) == sha256(paths[1])

    def test_nothing_is_left_after_a_failure(self, tmp_path):
        with pytest.raises(ZeroDivisionError), write_hdf5(tmp_path / "x.h5", "data", {}):
            raise ZeroDivisionError
        assert list(tmp_path.iterdir()) == []

    def test_nan_is_no_setting(self, tmp_path):
        settings = {"tolerance": float("nan")}
        with pytest.raises(ValueError, match="JSON"), write_hdf5(tmp_path / "x", "data", settings):
            pass

    def test_full_disk_leaves_nothing_and_the_process_lives(self, tmp_path, small_files_only):
        path = tmp_path / "clean.h5"
        with pytest.raises(UserError, match=r"clean\.h5: no space left"):
            write_example(path, np.random.default_rng(0).normal(size=50_000))
        assert list(tmp_path.iterdir()) == []
        write_example(path)
        assert path.is_file()


def stream(path, values, *, size=10**6, batch=7, error=None):
    """Write rows of numbers batch by batch, and one number more for each."""
    with stream_hdf5(path, "clean", {"seed": 0}, size=size, axis="time") as file:
        fixed = Rows(
            file, "a/rows", values.shape[1:], values.dtype, len(values), units="1", description="x"
        )
        growing = Rows(file, "ragged", (), "float64", None, units="1", description="y")
        for first in range(0, len(values), batch):
            fixed.append(values[first : first + batch])
            growing.append(np.arange(2.0 * len(values[first : first + batch])))
        if error is not None:
            raise error
        fixed.close()
        growing.close()


class TestStreamHdf5:
    @pytest.mark.parametrize(("rows", "batch"), [(100, 7), (100, 1), (100, 1000), (3, 2), (0, 1)])
    @pytest.mark.parametrize("width", [2, 9000])
    def test_round_trip(self, tmp_path, rows, batch, width):
        values = np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)
        stream(tmp_path / "a.h5", values, batch=batch, size=2 * 10**7)
        with open_hdf5(tmp_path / "a.h5", "clean") as file:
            np.testing.assert_array_equal(file["a/rows"][:], values)
            assert file["a/rows"].dtype == np.float32
            assert file["ragged"].shape == (2 * rows,)
            assert file.attrs["axis"] == "time"
            assert dict(file["a/rows"].attrs) == {"units": "1", "description": "x"}
            if rows:
                assert file["a/rows"].compression == "gzip"
                assert file["a/rows"].chunks[0] == max(1, min(rows, 2**16 // (4 * width)))

    def test_space_that_is_not_needed_is_given_back(self, tmp_path):
        stream(tmp_path / "a.h5", np.zeros((10, 3)), size=10**7)
        assert (tmp_path / "a.h5").stat().st_size < 50_000

    def test_bytes_are_reproducible(self, tmp_path):
        values = np.random.default_rng(0).normal(size=(500, 40))
        for name in ("a.h5", "b.h5"):
            stream(tmp_path / name, values)
        assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()

    def test_a_chunk_is_written_once(self, tmp_path):
        """Small batches do not make the file larger, as rewritten chunks would."""
        values = np.random.default_rng(0).normal(size=(5000, 16))
        sizes = []
        for batch in (1, 5000):
            stream(tmp_path / "a.h5", values, batch=batch)
            sizes.append((tmp_path / "a.h5").stat().st_size)
        assert sizes[0] <= 1.1 * sizes[1]

    def test_nothing_is_left_after_a_failure(self, tmp_path):
        with pytest.raises(KeyError):
            stream(tmp_path / "a.h5", np.zeros((10, 3)), error=KeyError("half-way"))
        assert list(tmp_path.iterdir()) == []

    def test_no_room_is_known_before_anything_is_computed(self, tmp_path):
        with (
            pytest.raises(UserError, match=r"a\.h5: needs up to 1,000,000,000\.0 MB"),
            stream_hdf5(tmp_path / "a.h5", "clean", {}, size=10**15),
        ):
            pytest.fail("nothing should be computed")
        assert list(tmp_path.iterdir()) == []

    def test_a_limit_of_the_file_size_is_known_beforehand_too(self, tmp_path, small_files_only):
        with pytest.raises(UserError, match=r"a\.h5: needs up to"):
            stream(tmp_path / "a.h5", np.zeros((10, 3)), size=30_000)
        assert list(tmp_path.iterdir()) == []


class TestPut:
    @settings(max_examples=40, deadline=None)
    @given(
        hnp.arrays(
            st.sampled_from([np.uint8, np.bool_, np.int64, np.float16, np.float32]),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
        )
    )
    def test_round_trip(self, array):
        with h5py.File.in_memory() as file:
            put(file, "x", array, units="s", description="time")
            back = file["x"][()]
            assert dict(file["x"].attrs) == {"units": "s", "description": "time"}
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)

    def test_strings(self):
        with h5py.File.in_memory() as file:
            put(file, "x", ["T-shirt", "é", ""], units="1", description="names")
            assert file["x"].asstr()[:].tolist() == ["T-shirt", "é", ""]

    def test_chunks_hold_whole_rows(self):
        with h5py.File.in_memory() as file:
            put(file, "x", np.zeros((500, 28, 28), np.uint8), units="1", description="")
            put(file, "wide", np.zeros((2, 200_000), np.uint8), units="1", description="")
            assert file["x"].chunks == (83, 28, 28)
            assert file["wide"].chunks == (1, 200_000)
            assert file["x"].compression == "gzip"


class TestOpenHdf5:
    @pytest.fixture
    def path(self, tmp_path) -> Path:
        path = tmp_path / "clean.h5"
        write_example(path, np.random.default_rng(0).normal(size=2000))
        return path

    def refuses(self, path, message, kind="clean"):
        with pytest.raises(UserError, match=message) as caught, open_hdf5(path, kind) as file:
            file["logits"][:]
        text = str(caught.value)
        assert str(path) in text
        assert "run snakemake again" in text
        assert "\n" not in text

    def test_missing(self, tmp_path):
        self.refuses(tmp_path / "none.h5", "no such file")

    def test_other_kind(self, path):
        self.refuses(path, "holds 'clean' where 'attack' is wanted", kind="attack")

    @pytest.mark.parametrize("keep", [0, 10, 1000, -1])
    def test_truncated(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        self.refuses(path, "truncated, damaged or not an HDF5 file")

    def test_not_hdf5(self, path):
        path.write_text("index,label\n" * 1000)
        self.refuses(path, "not an HDF5 file")

    def test_flipped_byte_in_a_chunk(self, path):
        with h5py.File(path) as file:
            offset = file["logits"].id.get_chunk_info(0).byte_offset
        data = bytearray(path.read_bytes())
        data[offset + 100] ^= 1
        path.write_bytes(data)
        self.refuses(path, "damaged")

    def test_foreign(self, path):
        with h5py.File(path, "w") as file:
            file["logits"] = [1.0]
        self.refuses(path, "node-robustness did not write")

    def test_other_schema_version(self, path):
        with h5py.File(path, "r+") as file:
            file.attrs["schema_version"] = 7
        self.refuses(path, "schema version 7, this version of node-robustness reads 1; delete it")

    def test_an_attack_of_before_images_were_skipped(self, tmp_path):
        path = tmp_path / "attack.h5"
        with write_hdf5(path, "attack", {}) as file:
            file.attrs["schema_version"] = 1
        with (
            pytest.raises(UserError, match=r"schema version 1, this version .* reads 2; delete it"),
            open_hdf5(path, "attack"),
        ):
            pass

    def test_errors_of_the_caller_pass_through(self, path):
        with pytest.raises(FileNotFoundError), open_hdf5(path, "clean"):
            Path("/nonexistent").read_bytes()


def test_sha256_of_nothing(tmp_path):
    (tmp_path / "empty").touch()
    assert sha256(tmp_path / "empty") == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
