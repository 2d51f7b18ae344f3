"""Weight files of this project and of others: the format of a file, and the encoder's tensors renamed to our names.

The names of the tensors in a file decide its format. The encoder must be complete, and there must be no unknown tensor
under its prefix, so an encoder is never loaded in part. Files are loaded with `weights_only=True`, so a file from an
untrusted source cannot run code.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from previts.errors import InputError
from previts.models.encoders import Kind, build_encoder
from previts.storage import tensors

_SHOWN = 3  # names listed in a message
_COUNTER = "num_batches_tracked"  # of batch normalisation; older files do not have it and no code reads it

# Our names of the parts of S3D-G, and RSPNet's.
_RSPNET = {
    "conv_1a": "sepConv1",
    "conv_2b": "basicConv3d",
    "conv_2c": "sep_conv2",
    "spatial": "sep_conv.0",
    "temporal": "sep_conv.1",
    "gate": "excitation",
    "conv": "conv3d",
    "norm": "bn",
    "alone": "branch0",
    "reduced_a": "branch1.0",
    "wide_a": "branch1.1",
    "reduced_b": "branch2.0",
    "wide_b": "branch2.1",
    "pooled": "branch3.1",
}


def _same(name: str) -> str:
    return name


def _rspnet(name: str) -> str:
    parts = (_RSPNET.get(part, part.replace("mixed_", "sepInc_")) for part in name.split("."))
    return ".".join(("feature", *parts))


@dataclass(frozen=True)
class Format:
    """The names of an encoder in a file: a prefix, our names under other names, and other tensors with the prefix.

    `module.` and `_orig_mod.`, which torch's wrappers add to names, are not part of the prefix.
    """

    name: str
    prefix: str
    rename: Callable[[str], str] = _same
    ignored: tuple[str, ...] = ()  # prefixes, after `prefix`, of the tensors of heads and classifiers


_OURS = (Format("previts encoder", ""), Format("previts model", "encoder_q."))
_CLASSIFIER = ("fc.",)  # also MoCo's head, of one layer (v1: fc.weight) or two (v2: fc.0.weight, fc.2.weight)
_RESNETS = (
    *_OURS,
    Format("torchvision", "", ignored=_CLASSIFIER),
    Format("MoCo", "encoder_q.", ignored=_CLASSIFIER),
)
_S3DG = (
    *_OURS,
    # Pretrained; fine-tuned; without the wrapper that adds the two heads.
    Format("RSPNet pretraining", "encoder_q.encoder.", _rspnet, _CLASSIFIER),
    Format("RSPNet fine-tuning", "encoder.", _rspnet, _CLASSIFIER),
    Format("RSPNet S3D-G", "", _rspnet, _CLASSIFIER),
)


def read_encoder(uri: str, kind: Kind, width: float = 1.0) -> dict[str, Tensor]:
    """Return the state of an encoder from a file of any known format, or from a finished folder of `pretrain`.

    `build_encoder(kind, width=width).load_state_dict` accepts it. URIs and error messages are those of
    `ModelConfig.weights`.

    Raises:
        InputError: If there is no such file, it cannot be read, or it does not contain a whole encoder of this kind and
            width.
    """
    path = tensors.weights_path(uri, "model.weights")
    return convert_state(tensors.load(path, "model.weights")[0], kind, width, f"model.weights = {path}")[0]


def convert_state(
    state: object, kind: Kind, width: float = 1.0, source: str = "the weights"
) -> tuple[dict[str, Tensor], str]:
    """Return the state of an encoder under our names, in single precision, and the name of its format in the file.

    Args:
        state: Tensors by name, or a checkpoint that contains them as `state_dict` (MoCo) or `model` (RSPNet, ours).
        kind: The encoder to find in it.
        width: Its share of the channels.
        source: Name of the file for messages.

    Raises:
        InputError: If names or shapes do not fit, or values are not finite; the message counts them and shows some.
    """
    for name in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{source} contains {_described(state)}, expected tensors by name; {_known(kind)}")
    given: dict[str, Tensor] = tensors.unwrapped(state, source)
    tensors.check_plain(given, source)
    with torch.device("meta"):  # names and shapes only: neither memory nor random numbers
        expected = build_encoder(kind, width=width).state_dict()
    fits = (_fit(candidate, given, expected) for candidate in _formats(kind))
    fit = max(fits, key=lambda fit: (len(fit.taken), -len(fit.unexpected)))
    if not fit.taken:
        raise InputError(f"{source} has no tensor of {kind}, only {_some(given)}; {_known(kind)}")
    shapes = [
        f"{fit.format.prefix}{fit.format.rename(name)} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in fit.taken.items()
        if value.shape != expected[name].shape
    ]
    # Whole numbers and truth values would be taken for weights that were rounded.
    kinds = [
        f"{fit.format.prefix}{fit.format.rename(name)} {value.dtype} instead of {expected[name].dtype}"
        for name, value in fit.taken.items()
        if value.is_floating_point() != expected[name].is_floating_point()
    ]
    faults = {
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "of another shape": shapes,
        "of another type": kinds,
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in faults.items() if names)
        size = f" of width {width:g}" if width != 1 else ""
        raise InputError(
            f"{source} does not contain a whole {kind}{size}: read in format {fit.format.name!r}, {len(fit.taken)} "
            f"tensors are there; {listed}; {_known(kind)}"
        )
    # Half precision is for storage only; training needs single precision.
    taken = {name: value.float() if value.is_floating_point() else value for name, value in fit.taken.items()}
    tensors.check_finite(taken, source)  # numbers in double precision may be too large
    return {name: taken.get(name, torch.zeros((), dtype=torch.int64)) for name in expected}, fit.format.name


@dataclass(frozen=True)
class _Fit:
    """The tensors of an encoder in a file, by our names; the missing and unexpected ones by the names of the format."""

    format: Format
    taken: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]


def _fit(candidate: Format, given: Mapping[str, Tensor], expected: Iterable[str]) -> _Fit:
    theirs = {candidate.prefix + candidate.rename(name): name for name in expected}
    ignored = tuple(candidate.prefix + beginning for beginning in candidate.ignored)
    under = [name for name in given if name.startswith(candidate.prefix)]
    return _Fit(
        candidate,
        taken={own: given[name] for name, own in theirs.items() if name in given},
        missing=[name for name in theirs if name not in given and not name.endswith(_COUNTER)],
        unexpected=[name for name in under if name not in theirs and not name.startswith(ignored)],
    )


def _formats(kind: Kind) -> tuple[Format, ...]:
    return _S3DG if kind == "s3dg" else _RESNETS


def _known(kind: Kind) -> str:
    """Return the known formats of an encoder, each with one of its names."""
    first = "conv_1a.spatial.conv.weight" if kind == "s3dg" else "conv1.weight"
    examples = {known.name: known.prefix + known.rename(first) for known in _formats(kind)}
    return f"known formats of {kind}: " + ", ".join(f"{name} ({example})" for name, example in examples.items())


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


def _described(state: object) -> str:
    """Return a description of a file that does not contain tensors by name."""
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    return "nothing" if not state else _some(f"{name} ({type(value).__name__})" for name, value in state.items())
