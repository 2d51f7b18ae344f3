"""Fingerprints: short hashes of settings, equal for equal settings.

The address of a result contains the fingerprint of its settings and inputs (see `folders`).
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Return `value` as JSON types; equal settings give equal JSON.

    Raises:
        TypeError: For a type that has no single JSON form (sets, functions, arrays, ...).
        ValueError: For a float that is not finite.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a fingerprint needs finite numbers, got {value = }")
        return value
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"a fingerprint needs string keys, got {list(value)}")
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a fingerprint cannot cover {type(value).__name__}: {value!r}")


def fingerprint(value: Any) -> str:
    """Return 12 hex digits that identify a value: equal values give equal digits, in every process and version."""
    canonical = json.dumps(plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
