"""Oracles: files of the libraries and tools that write each format, and files that must not be taken for them."""

import bz2
import gzip
import io
import lzma
import tarfile

import numpy as np
import pytest
import torch

from previts.storage import contents


def packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.eye(2))
    return buffer.getvalue()


HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
KNOWN = {
    "empty": b"",
    "gzip": gzip.compress(b"x"),
    "bzip2": bz2.compress(b"x"),
    "xz": lzma.compress(b"x"),
    "tar archive": packed(),
    "NumPy array": array(),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "HTML": b"\n <!DOCTYPE HTML><title>Sign in</title>",
    "XML": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "JSON": b'{"message": "Not Found"}',
    "safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "ONNX": b"\x08\x07\x12\x07pytorch\x1a\x061.13.1:\xb4\x01",
    "TensorFlow": b"index" + bytes.fromhex("57fb808b247547db"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_description_names_the_format_and_says_what_to_do(name: str):
    what = contents.describe(KNOWN[name])
    assert name in what
    assert what.partition("; ")[2]


def test_files_that_are_what_they_should_be_are_not_recognised():
    buffer, old = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(3)}, buffer)
    torch.save({"a": torch.zeros(3)}, old, _use_new_zipfile_serialization=False)
    crawls = [b"video_id,url\na,b\n", b"BZhxxxxxxxx,30,dog,train\n", b"{x},y\n", b"\xef\xbb\xbfvideo_id,url\n", b"PAR1"]
    for data in (buffer.getvalue(), old.getvalue(), b"\x08", b"no weights", *crawls):
        assert contents.describe(data) == ""
