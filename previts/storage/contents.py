"""What a file contains, by its bytes: a web page, an archive or a file of another framework instead of what it should.

The descriptions are for error messages. Each says what to do.
"""

import json
import re

_LFS = b"version https://git-lfs.github.com/spec/"
_UNPACK = "unpack it and give the file in it"
_CONVERT = "convert it where it was made, and save the tensors with torch.save(state_dict, FILE)"
_BEGINNINGS = (
    (_LFS, "a pointer of Git LFS and not the file itself; run `git lfs pull` in its repository"),
    (b"\x1f\x8b", f"compressed with gzip; {_UNPACK}"),
    (b"BZh91AY&SY", f"compressed with bzip2; {_UNPACK}"),
    (b"\xfd7zXZ\x00", f"compressed with xz; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd; {_UNPACK}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (b"Rar!\x1a\x07", f"a RAR archive; {_UNPACK}"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file, such as weights of Keras; {_CONVERT}"),
    (b"\x93NUMPY", f"a NumPy array; {_CONVERT}"),
)
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script")
_XML = (b"<?xml", b"<error")
_ONNX = re.compile(rb"\x08[\x01-\x1f](\x12[\x00-\x40]|\x3a)")  # protobuf: ir_version, then producer_name or graph
_LEVELDB_END = bytes.fromhex("57fb808b247547db")  # of the index of a TensorFlow checkpoint
_LONGEST_JSON = 1 << 20


def describe(data: bytes) -> str:
    """Return what the bytes of a file are, and what to do, or "" for anything that is not recognised.

    Recognised are files that stand in the place of weights or tables by mistake: nothing, pages of web servers,
    pointers of Git LFS, archives, and weights of other frameworks. A zip is not, since torch writes zips.
    """
    if not data:
        return "empty (0 bytes); copy or download it again"
    for beginning, what in _BEGINNINGS:
        if data.startswith(beginning):
            return what
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_HTML):
        return "a web page (HTML), such as a login or an error; download the file itself"
    if start.startswith(_XML):
        return "an XML document, such as the error of an object store; download the file itself"
    if start[:1] in (b"{", b"[") and _is_json(data):
        text = " ".join(data[:100].decode(errors="replace").split())
        return f"a JSON document ({text}), such as the error of a server; download the file itself"
    if data[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    if data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8:
        return (
            "a safetensors file; convert it: "
            "python -c \"import torch; from safetensors.torch import load_file; torch.save(load_file('IN'), 'OUT')\""
        )
    if data.endswith(_LEVELDB_END):
        return f"the index of a TensorFlow checkpoint; {_CONVERT}"
    if _ONNX.match(data):
        return f"an ONNX model; {_CONVERT}"
    return ""


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data[:_LONGEST_JSON])
    except ValueError:
        return False
    return True
