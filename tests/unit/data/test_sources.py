import bz2
import gzip
import hashlib
import io
import lzma
import math
import os
import re
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from node_robustness.data import formats
from node_robustness.data.downloads import RemoteFile, fetch
from node_robustness.data.formats import read_cifar_binary, read_idx
from node_robustness.data.prepared import count_images, load_split
from node_robustness.data.sources import find_source
from node_robustness.data.splits import prepare, stratified
from node_robustness.errors import UserError
from node_robustness.files.atomic import sha256
from node_robustness.files.hdf5 import open_hdf5, read_settings

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
ROLES = ("train_images", "train_labels", "test_images", "test_labels")

DIGITS_SHA256 = "f91a29d165e0224b95521326298aa995aeab8863068487b50f053f704dc120c0"
STRATIFIED_7 = ([0, 2, 8, 7, 5, 1], [6, 3, 4, 9])


def idx_bytes(array):
    """Encode an array as IDX, independently of the reader."""
    array = np.asarray(array)
    head = struct.pack(">BBBB", 0, 0, CODES[array.dtype.str[1:]], array.ndim)
    sizes = b"".join(struct.pack(">I", size) for size in array.shape)
    return head + sizes + array.astype(array.dtype.newbyteorder(">")).tobytes()


def cifar_bytes(images, labels, coarse=False):
    """Encode images in CIFAR's binary format, with an ignored first label byte if coarse."""
    before = b"\x63" if coarse else b""
    pairs = zip(images, labels, strict=True)
    return b"".join(before + bytes([label]) + image.tobytes() for image, label in pairs)


def toy(count, seed, shape=(3, 4, 5), classes=3):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, rng.integers(0, classes, count)


def tar_bytes(members, mode="w:gz"):
    """Make a tar file of (TarInfo or name, contents) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def own_source(mirror, contents, name, **kwargs):
    """Put files on a file:// mirror and return the source that describes them."""
    mirror.mkdir(exist_ok=True)
    files = {}
    for role, (file, data) in contents.items():
        (mirror / file).write_bytes(data)
        files[role] = (file, hashlib.sha256(data).hexdigest())
    return find_source(name, [mirror.as_uri()], files=files, class_names=["a", "b", "c"], **kwargs)


def fetch_and_read(source, folder):
    for file in source.files:
        fetch(file, folder, progress=False)
    return source.read(folder)


class TestReadIdx:
    @settings(max_examples=60, deadline=None)
    @given(
        hnp.arrays(
            st.sampled_from([np.dtype(code) for code in CODES]),
            hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6),
        ),
        st.booleans(),
    )
    def test_round_trip(self, tmp_path_factory, array, zipped):
        path = tmp_path_factory.mktemp("idx") / "file"
        data = idx_bytes(array)
        path.write_bytes(gzip.compress(data) if zipped else data)
        back = read_idx(path)
        assert back.dtype == array.dtype
        assert back.dtype.isnative
        np.testing.assert_array_equal(back, array)

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        return tmp_path / "images.idx"

    def refuses(self, path, data, message):
        path.write_bytes(data)
        with pytest.raises(UserError, match=message) as caught:
            read_idx(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)

    whole = idx_bytes(np.arange(200, dtype=np.uint8).reshape(10, 20))

    @pytest.mark.parametrize(
        "data",
        [b"", b"\0\0\x08", b"<html>404</html>", b"\0\0\x07\x01", b"\0\0\x08\xff" + bytes(2000)],
    )
    def test_not_idx(self, path, data):
        self.refuses(path, data, "not an IDX file")

    @pytest.mark.parametrize(
        ("data", "packed"),
        [
            (b"PK\3\4" + bytes(30), "zip"),
            (lzma.compress(whole), "xz"),
            (bz2.compress(whole), "bzip2"),
        ],
    )
    def test_other_packings(self, path, data, packed):
        self.refuses(
            path, data, f"not an IDX file, but a {packed} file: what is read is IDX, plain"
        )

    def test_ends_within_header(self, path):
        self.refuses(path, self.whole[:9], "ends within its header")

    def test_too_short(self, path):
        self.refuses(path, self.whole[:-1], "should hold 200 bytes of values, holds 199")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_too_long(self, path, zipped):
        data = self.whole + b"\0"
        self.refuses(path, gzip.compress(data) if zipped else data, "holds more")

    @pytest.mark.parametrize("keep", [3, 15, -1, -9])
    def test_truncated_gzip(self, path, keep):
        self.refuses(path, gzip.compress(self.whole)[:keep], "truncated or damaged gzip")

    def test_flipped_bytes_in_gzip(self, path):
        data = gzip.compress(self.whole, mtime=0)
        for position in range(10, len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(UserError):
                read_idx(path)

    def test_claims_too_much(self, path):
        head = struct.pack(">BBBBIII", 0, 0, 0x08, 3, 2**31, 2**31, 2**31)
        self.refuses(path, head, "too many")

    def test_a_bomb_is_not_unpacked(self, path):
        data = idx_bytes(np.zeros(1000, np.uint8)) + bytes(50_000_000)
        path.write_bytes(gzip.compress(data, 1))
        tracemalloc.start()
        with pytest.raises(UserError, match="holds more"):
            read_idx(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000


class TestReadCifarBinary:
    @pytest.mark.parametrize("coarse", [False, True])
    def test_round_trip(self, coarse):
        images, labels = toy(7, 0)
        data = cifar_bytes(images, labels, coarse)
        back = read_cifar_binary(data, "x.bin", (3, 4, 5), 1 + coarse, 3)
        np.testing.assert_array_equal(back[0], images)
        np.testing.assert_array_equal(back[1], labels)
        assert back[1].dtype == np.int64

    @pytest.mark.parametrize("data", [b"", bytes(61 * 2 - 1), bytes(61 + 1)])
    def test_no_whole_number_of_records(self, data):
        with pytest.raises(UserError, match=r"x\.bin: its \d+ bytes are no whole number"):
            read_cifar_binary(data, "x.bin", (3, 4, 5), 1, 3)

    def test_label_out_of_range(self):
        images, _ = toy(2, 0)
        with pytest.raises(UserError, match=r"x\.bin: holds the label 3, but class_names has 3"):
            read_cifar_binary(cifar_bytes(images, [0, 3]), "x.bin", (3, 4, 5), 1, 3)


class TestKnownSources:
    @pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100"])
    def test_is_consistent(self, name):
        source = find_source(name, ["https://example.org/data/"])
        assert len(source.class_names) == len(set(source.class_names))
        assert len(source.class_names) == (100 if name == "cifar100" else 10)
        assert len(source.mean) == len(source.std) == (3 if name.startswith("cifar") else 1)
        assert len({file.sha256 for file in source.files}) == len(source.files)
        for file in source.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size > 0
            assert file.urls[0] == f"https://example.org/data/{file.name}"
            assert len(file.urls) >= 3
            assert all(url.endswith(f"/{file.name}") for url in file.urls)

    def test_unknown(self):
        with pytest.raises(ValueError, match="no source 'svhn'"):
            find_source("svhn")

    def test_digits(self, tmp_path):
        images = find_source("digits").read(tmp_path)
        assert images.train_images.shape == (1438, 1, 8, 8)
        assert images.test_images.shape == (359, 1, 8, 8)
        pixels = np.concatenate([images.train_images, images.test_images])
        assert pixels.dtype == np.uint8
        # 0, 1, 8 and 16 sixteenths of 255, halves rounded up.
        assert {0, 16, 128, 255} <= set(np.unique(pixels))
        assert len(np.unique(pixels)) == 17
        shares = np.bincount(images.test_labels) / (
            np.bincount(images.train_labels) + np.bincount(images.test_labels)
        )
        np.testing.assert_allclose(shares, 0.2, atol=0.01)

    def test_digits_never_change(self, tmp_path):
        images = find_source("digits").read(tmp_path)
        digest = hashlib.sha256(b"".join(part.tobytes() for part in images)).hexdigest()
        assert digest == DIGITS_SHA256

    @pytest.mark.skipif(
        "NODE_ROBUSTNESS_MNIST" not in os.environ, reason="NODE_ROBUSTNESS_MNIST names no folder"
    )
    def test_mnist(self, tmp_path):
        mirror = Path(os.environ["NODE_ROBUSTNESS_MNIST"]).resolve().as_uri()
        source = find_source("mnist", [mirror])
        images = fetch_and_read(source, tmp_path)
        assert images.train_images.shape == (60_000, 1, 28, 28)
        assert images.test_images.shape == (10_000, 1, 28, 28)
        assert images.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert images.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
        assert round(images.train_images.mean() / 255, 4) == 0.1307
        assert [path.stat().st_size for path in sorted(tmp_path.iterdir())] == [
            file.size for file in sorted(source.files, key=lambda file: file.name)
        ]
        path = tmp_path / "data.h5"
        prepare(*images, source.class_names, validation=5000, seed=0, path=path, settings={})
        split = load_split(path, "test", 100)
        np.testing.assert_array_equal(split.images, images.test_images[split.index])

    @pytest.mark.parametrize(
        ("name", "folder", "train", "coarse"),
        [
            ("cifar10", "cifar-10-batches-bin", ["data_batch_1.bin", "data_batch_2.bin"], False),
            ("cifar100", "cifar-100-binary", ["train.bin"], True),
        ],
    )
    def test_layout_of_cifar_archives(self, tmp_path, name, folder, train, coarse):
        test = "test.bin" if coarse else "test_batch.bin"
        parts = {file: toy(4, seed, (3, 32, 32), 10) for seed, file in enumerate([*train, test])}
        members = [(f"{folder}/batches.meta.txt", b"airplane\n")]
        members += [
            (f"{folder}/{file}", cifar_bytes(*part, coarse)) for file, part in parts.items()
        ]
        source = find_source(name)
        (tmp_path / source.files[0].name).write_bytes(tar_bytes(members))
        images = source.read(tmp_path)
        expected = [
            np.concatenate(arrays) for arrays in zip(*(parts[f] for f in train), strict=True)
        ]
        np.testing.assert_array_equal(images.train_images, expected[0])
        np.testing.assert_array_equal(images.train_labels, expected[1])
        np.testing.assert_array_equal(images.test_images, parts[test][0])
        np.testing.assert_array_equal(images.test_labels, parts[test][1])


class TestOwnIdx:
    def contents(self, zipped=True, **replaced):
        (train, train_labels), (test, test_labels) = toy(20, 0, (1, 6, 5)), toy(8, 1, (1, 6, 5))
        arrays = {
            "train_images": train[:, 0],
            "train_labels": train_labels.astype(np.uint8),
            "test_images": test[:, 0],
            "test_labels": test_labels.astype(np.uint8),
            **replaced,
        }
        pack = gzip.compress if zipped else bytes
        return arrays, {role: (f"{role}.idx", pack(idx_bytes(a))) for role, a in arrays.items()}

    @pytest.mark.parametrize("zipped", [True, False])
    def test_from_a_mirror_to_a_split(self, tmp_path, zipped):
        arrays, contents = self.contents(zipped)
        source = own_source(tmp_path / "my mirror", contents, "idx")
        assert [file.name for file in source.files] == [f"{role}.idx" for role in ROLES]
        images = fetch_and_read(source, tmp_path / "folder")
        assert images.train_images.shape == (20, 1, 6, 5)
        np.testing.assert_array_equal(images.train_images[:, 0], arrays["train_images"])
        np.testing.assert_array_equal(images.test_labels, arrays["test_labels"])

    def test_colour_images(self, tmp_path):
        images, _ = toy(20, 0)
        _, contents = self.contents(train_images=images, test_images=images[:8])
        source = own_source(tmp_path / "mirror", contents, "idx")
        np.testing.assert_array_equal(
            fetch_and_read(source, tmp_path / "folder").train_images, images
        )

    def test_one_flipped_byte(self, tmp_path):
        _, contents = self.contents()
        source = own_source(tmp_path / "mirror", contents, "idx")
        path = tmp_path / "mirror" / "test_images.idx"
        damaged = bytearray(path.read_bytes())
        damaged[50] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"test_images\.idx: no mirror.*wrong checksum"):
            fetch_and_read(source, tmp_path / "folder")

    @pytest.mark.parametrize(
        ("replaced", "message"),
        [
            ({"train_images": np.zeros((20, 6, 5), "f4")}, r"train_images\.idx: holds float32"),
            ({"train_images": np.zeros((20, 6), "u1")}, r"train_images\.idx: .* must be uint8"),
            ({"test_images": np.zeros((0, 6, 5), "u1")}, r"test_images\.idx: holds uint8 \[0"),
            ({"train_labels": np.zeros(19, "u1")}, r"train_labels\.idx: .* must be 20 integers"),
            ({"train_labels": np.zeros(20, "f4")}, r"train_labels\.idx: .* must be 20 integers"),
            ({"test_labels": np.full(8, 3, "u1")}, r"test_labels\.idx: holds the label 3"),
            ({"test_labels": np.full(8, -1, "i4")}, r"test_labels\.idx: holds the label -1"),
            ({"test_images": np.zeros((8, 5, 6), "u1")}, r"test_images\.idx: .* the same shape"),
        ],
    )
    def test_mistakes_name_the_file(self, tmp_path, replaced, message):
        _, contents = self.contents(**replaced)
        source = own_source(tmp_path / "mirror", contents, "idx")
        with pytest.raises(UserError, match=message):
            fetch_and_read(source, tmp_path / "folder")

    @pytest.mark.parametrize(
        ("shape", "first"), [((8, 8, 1), (1, 8, 8)), ((9, 8, 3), (3, 9, 8)), ((8, 9, 4), (4, 8, 9))]
    )
    def test_channels_that_come_last(self, tmp_path, shape, first):
        for shapes in (shape, first):
            _, contents = self.contents(
                train_images=np.full((20, *shapes), 9, "u1"),
                test_images=np.full((8, *shapes), 9, "u1"),
            )
            source = own_source(tmp_path / str(shapes), contents, "idx")
            if shapes == first:
                images = fetch_and_read(source, tmp_path / "first")
                assert images.train_images.shape == (20, *first)
            else:
                reason = re.escape(
                    f"train_images.idx: {list(shape)} has its channels last: give the"
                )
                with pytest.raises(UserError, match=f"^{reason}.*{re.escape(str(list(first)))}"):
                    fetch_and_read(source, tmp_path / "last")

    @pytest.mark.parametrize("shape", [(5, 8, 8), (8, 4, 4), (7, 8, 3), (8, 8, 2), (8, 8, 8)])
    def test_many_channels_of_small_images(self, tmp_path, shape):
        _, contents = self.contents(
            train_images=np.full((20, *shape), 9, "u1"), test_images=np.full((8, *shape), 9, "u1")
        )
        source = own_source(tmp_path / "mirror", contents, "idx")
        assert fetch_and_read(source, tmp_path / "folder").test_images.shape == (8, *shape)

    def test_more_classes_than_the_labels_tell_apart(self, tmp_path):
        _, contents = self.contents(train_labels=np.arange(20, dtype="i1") % 3)
        source = own_source(tmp_path / "mirror", contents, "idx")
        fetch_and_read(source, tmp_path / "folder")
        many = find_source(
            "idx",
            files={role: (name, "0" * 64) for role, (name, _) in contents.items()},
            class_names=[f"c{i}" for i in range(129)],
        )
        with pytest.raises(UserError) as caught:
            many.read(tmp_path / "folder")
        assert str(caught.value) == (
            "train_labels.idx: its labels, int8, tell 128 classes apart, and class_names has 129; "
            "check class_names and the file"
        )

    def test_missing_role(self):
        files = {"train_images": ("a", "0" * 64)}
        with pytest.raises(UserError, match="files: source idx needs test_images and test_labels"):
            find_source("idx", files=files, class_names=["a"])


class TestOwnCifarBinary:
    shape = (3, 4, 5)

    @pytest.mark.parametrize("mode", ["w:gz", "w"])
    @pytest.mark.parametrize("label_bytes", [1, 2])
    def test_archive(self, tmp_path, mode, label_bytes):
        train, test = toy(9, 0), toy(5, 1)
        archive = tar_bytes(
            [
                ("x/train.bin", cifar_bytes(*train, label_bytes == 2)),
                ("x/test.bin", cifar_bytes(*test, label_bytes == 2)),
            ],
            mode,
        )
        source = own_source(
            tmp_path / "mirror",
            {"archive": ("mine.tar", archive)},
            "cifar_binary",
            image_shape=self.shape,
            label_bytes=label_bytes,
        )
        images = fetch_and_read(source, tmp_path / "folder")
        for found, expected in zip(images, (*train, *test), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine.tar"]

    def test_plain_files(self, tmp_path):
        train, test = toy(9, 0), toy(5, 1)
        contents = {"train": ("a.bin", cifar_bytes(*train)), "test": ("b.bin", cifar_bytes(*test))}
        source = own_source(tmp_path / "mirror", contents, "cifar_binary", image_shape=self.shape)
        images = fetch_and_read(source, tmp_path / "folder")
        for found, expected in zip(images, (*train, *test), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_wrong_roles(self):
        with pytest.raises(UserError, match="needs archive, or test and train, not train"):
            find_source("cifar_binary", files={"train": ("a", "0" * 64)}, image_shape=self.shape)

    def read(self, tmp_path, data):
        source = own_source(
            tmp_path / "mirror",
            {"archive": ("mine.tar.gz", data)},
            "cifar_binary",
            image_shape=self.shape,
        )
        return fetch_and_read(source, tmp_path / "folder")

    def hostile(self):
        """Return members that would escape, link or make devices if they were extracted."""
        batch = cifar_bytes(*toy(2, 0))
        yield "../escaped.bin", batch
        yield "/tmp/absolute.bin", batch
        yield "ok/../../up.bin", batch
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo("link.bin")
            link.type, link.linkname = kind, "/etc/passwd"
            yield link, b""
        for kind in (tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            special = tarfile.TarInfo("special.bin")
            special.type = kind
            yield special, b""
        yield "test.bin", batch

    def test_hostile_archives_write_nothing(self, tmp_path):
        images = self.read(tmp_path, tar_bytes(self.hostile()))
        assert len(images.train_images) == 6
        assert len(images.test_images) == 2
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            "folder",
            "mine.tar.gz",
            "mine.tar.gz",
            "mirror",
        ]

    def test_huge_members_are_not_read(self, tmp_path, monkeypatch):
        monkeypatch.setattr(formats, "_MOST_BYTES", 1_000_000)
        archive = tar_bytes([("train.bin", bytes(900_000)), ("test.bin", bytes(20_000_000))])
        tracemalloc.start()
        with pytest.raises(UserError, match=r"mine\.tar\.gz: its \.bin members exceed"):
            self.read(tmp_path, archive)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 5_000_000

    def test_what_systems_add_to_archives_is_not_read(self, tmp_path):
        """A twin of every file, or a folder of them, and other litter, of macOS and Windows."""
        train, test = toy(9, 0), toy(5, 1)
        double = bytes.fromhex("00051607") + bytes(200)
        images = self.read(
            tmp_path,
            tar_bytes(
                [
                    ("./._tiles", double),
                    ("./tiles/._train.bin", double),
                    ("./tiles/train.bin", cifar_bytes(*train)),
                    ("./tiles/._test.bin", double),
                    ("tiles\\test.bin", cifar_bytes(*test)),
                    ("./tiles/.DS_Store", double),
                    ("__MACOSX/tiles/train.bin", double),
                    ("./tiles/desktop.ini", b"[x]\r\n"),
                ]
            ),
        )
        for found, expected in zip(images, (*train, *test), strict=True):
            np.testing.assert_array_equal(found, expected)

    def test_of_a_member_that_stands_twice_the_last_counts(self, tmp_path):
        """So do those who unpack it: an archive can be added to, and not changed."""
        old, train, test = toy(7, 2), toy(9, 0), toy(5, 1)
        parts = [("train.bin", old), ("test.bin", test), ("train.bin", train)]
        images = self.read(tmp_path, tar_bytes([(name, cifar_bytes(*p)) for name, p in parts]))
        np.testing.assert_array_equal(images.train_images, train[0])

    def test_batches_of_one_name_in_several_folders(self, tmp_path):
        one, two, test = toy(7, 2), toy(9, 0), toy(5, 1)
        parts = [("a/x.bin", one), ("b/x.bin", two), ("test.bin", test)]
        images = self.read(tmp_path, tar_bytes([(name, cifar_bytes(*p)) for name, p in parts]))
        assert len(images.train_images) == 16

    @pytest.mark.parametrize("mode", ["w:bz2", "w:xz"])
    def test_other_packings(self, tmp_path, mode):
        train, test = toy(50_000, 0, (1, 4, 5)), toy(5, 1, (1, 4, 5))
        parts = [("train.bin", train), ("test.bin", test)]
        data = tar_bytes([(name, cifar_bytes(*p)) for name, p in parts], mode)

        def read(data):
            path.write_bytes(data)
            return source.read(tmp_path)

        path = tmp_path / "mine.tar"
        files = {"archive": (path.name, "0" * 64)}
        source = find_source("cifar_binary", files=files, class_names="abc", image_shape=(1, 4, 5))
        np.testing.assert_array_equal(read(data).train_images, train[0])
        for place in (len(data) // 2, len(data) - 100):
            damaged = bytearray(data)
            damaged[place] ^= 1
            for wrong in (bytes(damaged), data[:place]):
                with pytest.raises(UserError, match=r"mine\.tar: truncated or damaged archive"):
                    read(wrong)

    @pytest.mark.parametrize(
        ("head", "packed"),
        [
            (b"PK\3\4", "zip"),
            (b"PK\5\6", "zip"),
            (b"7z\xbc\xaf\x27\x1c", "7z"),
            (b"Rar!\x1a\7", "rar"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
        ],
    )
    def test_packings_that_are_not_read(self, tmp_path, head, packed):
        with pytest.raises(UserError) as caught:
            self.read(tmp_path, head + bytes(1000))
        assert str(caught.value) == (
            f"{tmp_path / 'folder/mine.tar.gz'}: is a {packed} file: what is read is a tar file, "
            "plain or packed by gzip, bzip2 or xz; it is as its sha256 says: correct it where it "
            "comes from, and its sha256"
        )

    def test_a_real_zip(self, tmp_path):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as packed:
            packed.writestr("train.bin", cifar_bytes(*toy(2, 0)))
        with pytest.raises(UserError, match=r"mine\.tar\.gz: is a zip file"):
            self.read(tmp_path, buffer.getvalue())

    def test_errors_of_the_disk_are_not_the_archives(self, tmp_path):
        source = find_source(
            "cifar_binary",
            files={"archive": ("absent.tar", "0" * 64)},
            class_names="abc",
            image_shape=self.shape,
        )
        with pytest.raises(FileNotFoundError):
            source.read(tmp_path)

    @pytest.mark.parametrize("keep", [0, 10, 200, -200])
    def test_truncated_archive(self, tmp_path, keep):
        rng = np.random.default_rng(0)
        noise = [rng.integers(0, 3, 61 * 50, dtype=np.uint8).tobytes() for _ in range(2)]
        archive = tar_bytes(zip(("train.bin", "test.bin"), noise, strict=True))
        with pytest.raises(UserError, match=r"mine\.tar\.gz: truncated or damaged archive"):
            self.read(tmp_path, archive[:keep])

    @pytest.mark.parametrize(
        ("name", "lacks"), [("train.bin", r"test\*\.bin"), ("test.bin", "for training")]
    )
    def test_archive_lacks_a_part(self, tmp_path, name, lacks):
        with pytest.raises(UserError, match=f"has no member .*{lacks}"):
            self.read(tmp_path, tar_bytes([(name, cifar_bytes(*toy(2, 0)))]))

    def test_label_out_of_range_names_the_member(self, tmp_path):
        batch = cifar_bytes(toy(1, 0)[0], [7])
        with pytest.raises(UserError, match=r"mine\.tar\.gz: train\.bin: holds the label 7"):
            self.read(tmp_path, tar_bytes([("train.bin", batch), ("test.bin", batch)]))


class TestStratified:
    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(st.integers(0, 5), min_size=1, max_size=80),
        st.floats(0, 1),
        st.integers(0, 2**63),
    )
    def test_parts_are_disjoint_complete_and_proportional(self, labels, share, seed):
        labels = np.array(labels)
        count = round(share * len(labels))
        kept, held = stratified(labels, count, seed)
        assert len(held) == count
        assert sorted([*kept, *held]) == list(range(len(labels)))
        for label in set(labels.tolist()):
            exact = count * (labels == label).sum() / len(labels)
            assert math.floor(exact) <= (labels[held] == label).sum() <= math.ceil(exact)

    def test_order_is_fixed_for_ever(self):
        kept, held = stratified(np.arange(10) % 2, 4, seed=7)
        assert (kept.tolist(), held.tolist()) == STRATIFIED_7

    def test_seeds_differ(self):
        labels = np.zeros(50, np.int64)
        orders = {tuple(stratified(labels, 0, seed)[0].tolist()) for seed in range(20)}
        assert len(orders) == 20

    def test_order_is_random(self):
        # Mean over seeds of the first index: 499.5, with standard deviation 289 / sqrt(400).
        labels = np.zeros(1000, np.int64)
        first = [stratified(labels, 0, seed)[0][0] for seed in range(400)]
        assert abs(np.mean(first) - 499.5) < 5 * 289 / 20


class TestPrepare:
    train = toy(100, 0)
    test = toy(30, 1)

    @pytest.fixture
    def path(self, tmp_path) -> Path:
        path = tmp_path / "data.h5"
        self.prepare(path)
        return path

    def prepare(self, path, validation=0.2, seed=3):
        names = ["a", "é", "c"]
        images = (*self.train, *self.test)
        prepare(
            *images, names, validation=validation, seed=seed, path=path, settings={"seed": seed}
        )

    def test_images_that_are_all_the_same(self, tmp_path, monkeypatch):
        images, labels = self.train
        alike = np.repeat(images[:1], len(images), axis=0)
        monkeypatch.setattr(self, "train", (alike, labels))
        with pytest.raises(UserError, match="all 100 training images are the same, so that noth"):
            self.prepare(tmp_path / "data.h5")
        assert not (tmp_path / "data.h5").exists()
        alike[7, 0, 0, 0] += 1
        self.prepare(tmp_path / "data.h5")

    def test_layout(self, path):
        with open_hdf5(path, "data") as file:
            np.testing.assert_array_equal(file["train/images"][:], self.train[0])
            np.testing.assert_array_equal(file["train/labels"][:], self.train[1])
            np.testing.assert_array_equal(file["test/images"][:], self.test[0])
            np.testing.assert_array_equal(file["test/labels"][:], self.test[1])
            assert file["train/images"].dtype == np.uint8
            assert file["test/labels"].dtype == np.int64
            assert file["class_names"].asstr()[:].tolist() == ["a", "é", "c"]
            train, validation = file["indices/train"][:], file["indices/validation"][:]
            assert sorted([*train, *validation]) == list(range(100))
            assert len(validation) == 20
            assert sorted(file["indices/test"][:]) == list(range(30))
            assert read_settings(file) == {"seed": 3}

    def test_same_bytes_for_the_same_seed(self, path, tmp_path):
        self.prepare(tmp_path / "again.h5")
        self.prepare(tmp_path / "other.h5", seed=4)
        assert sha256(path) == sha256(tmp_path / "again.h5") != sha256(tmp_path / "other.h5")

    @pytest.mark.parametrize(("validation", "count"), [(0.1, 10), (1, 1), (25.0, 25)])
    def test_share_or_number(self, tmp_path, validation, count):
        self.prepare(tmp_path / "data.h5", validation)
        assert len(load_split(tmp_path / "data.h5", "validation").index) == count

    @pytest.mark.parametrize("validation", [0.001, 0.999, 100, 1e6])
    def test_no_split_may_be_empty(self, tmp_path, validation):
        with pytest.raises(UserError, match=r"validation: .* of 100 training images"):
            self.prepare(tmp_path / "data.h5", validation)
        assert list(tmp_path.iterdir()) == []

    @staticmethod
    def prepared(path, train, test, classes="abc", images=None):
        first, second = toy(len(train), 0)[0], toy(len(test), 1)[0]
        first = first if images is None else images
        prepare(
            *(first, np.array(train), second, np.array(test), classes),
            **{"validation": 1, "seed": 0, "path": path, "settings": {}},
        )

    @pytest.mark.parametrize(
        ("train", "test", "message"),
        [
            ([1, 1, 1], [1], "all training images are of class 'b': nothing is learnt from one"),
            ([1, 1, 1], [0, 1], "all training images are of class 'b'"),
            (
                [0, 1, 0],
                [2, 0, 2],
                "2 test images are of classes without a training image ('c'): check the labels, or "
                "take these images out",
            ),
        ],
    )
    def test_classes_that_cannot_be_learnt(self, tmp_path, train, test, message):
        with pytest.raises(UserError) as caught:
            self.prepared(tmp_path / "data.h5", train, test)
        assert str(caught.value).startswith(f"{tmp_path / 'data.h5'}: {message}")
        assert list(tmp_path.iterdir()) == []

    def test_a_class_without_images_is_told_of(self, tmp_path, caplog):
        self.prepared(tmp_path / "data.h5", [0, 2, 0], [0])
        assert "class_names has classes without any image: 'b'" in caplog.text

    @pytest.mark.parametrize("largest", [0, 1])
    def test_images_on_another_scale(self, tmp_path, largest):
        images = np.full((3, 3, 4, 5), largest, np.uint8)
        with pytest.raises(UserError, match=f"largest value of the training images is {largest}"):
            self.prepared(tmp_path / "data.h5", [0, 1, 2], [0], images=images)

    @pytest.mark.parametrize("largest", [0, 1])
    def test_test_images_alone_on_another_scale(self, path, tmp_path, largest):
        images = np.full_like(self.test[0], largest)
        with pytest.raises(UserError, match=f"largest value of the test images is {largest}, that"):
            prepare(
                *(*self.train, images, self.test[1], "abc"),
                **{"validation": 1, "seed": 0, "path": tmp_path / "other.h5", "settings": {}},
            )

    @pytest.mark.parametrize("name", ["train", "validation", "test"])
    def test_load_split(self, path, name):
        split = load_split(path, name)
        images, labels = self.test if name == "test" else self.train
        np.testing.assert_array_equal(split.images, images[split.index])
        np.testing.assert_array_equal(split.labels, labels[split.index])
        assert len(split.index) == {"train": 80, "validation": 20, "test": 30}[name]

    def test_subsets_are_nested(self, path):
        whole = load_split(path, "test")
        for count in (1, 7, 30):
            part = load_split(path, "test", count)
            np.testing.assert_array_equal(part.index, whole.index[:count])
            np.testing.assert_array_equal(part.images, whole.images[:count])
            np.testing.assert_array_equal(part.labels, whole.labels[:count])

    @pytest.mark.parametrize(("name", "there"), [("validation", 20), ("test", 30)])
    def test_more_than_there_are(self, path, name, there):
        with pytest.raises(UserError, match=rf"subset\.{name}: 500 .* {there} are available"):
            load_split(path, name, 500)

    def test_more_than_there_are_or_all(self, path):
        split = load_split(path, "test", 500, or_fewer=True)
        np.testing.assert_array_equal(split.index, load_split(path, "test").index)
        assert len(load_split(path, "test", 7, or_fewer=True).index) == 7

    def test_count(self, path):
        assert count_images(path) == (100, 30)

    def test_a_subset_of_many_chunks_needs_little_memory(self, tmp_path):
        images, labels = toy(3000, 0, (3, 32, 32))
        path = tmp_path / "data.h5"
        prepare(
            images,
            labels,
            *toy(5, 1, (3, 32, 32)),
            "abc",
            validation=100,
            seed=0,
            path=path,
            settings={},
        )
        load_split(path, "test")
        tracemalloc.start()
        split = load_split(path, "train", 50)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(split.images, images[split.index])
        assert peak < images.nbytes / 10


def test_names_from_the_configuration_are_quoted_in_urls():
    files = {role: (f"{role} #1.gz", "0" * 64) for role in ROLES}
    source = find_source("idx", ["file:///data/"], files=files, class_names=["a"])
    assert source.files[0] == RemoteFile(
        "train_images #1.gz", "0" * 64, ("file:///data/train_images%20%231.gz",)
    )
