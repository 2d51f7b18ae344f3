"""Encoders from files of this project and of others: which layout a file has, and its tensors under our names.

Layouts are told by the names in a file. All of an encoder must be there, and nothing under its prefix that is not
known, so an encoder is never taken in part. Files are loaded with `weights_only=True`: one from elsewhere cannot run
code.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from previts.errors import InputError
from previts.models.encoders import Kind, build_encoder
from previts.storage import tensors

_SHOWN = 3  # names of each kind in a message
_COUNTER = "num_batches_tracked"  # of batch normalisation; older files lack it and nothing reads it

# Names of RSPNet's S3D-G by ours, part by part.
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
class Layout:
    """How a file names an encoder: a prefix, what a name of ours is called there, and what else has the prefix.

    `module.` in front of a name, which torch's parallel wrappers add, is no part of the prefix.
    """

    name: str
    prefix: str
    rename: Callable[[str], str] = _same
    beside: tuple[str, ...] = ()  # beginnings, after the prefix, of what belongs to heads and classifiers


_OURS = (Layout("previts encoder", ""), Layout("previts model", "encoder_q."))
_CLASSIFIER = ("fc.",)  # also MoCo's head, of one layer (v1: fc.weight) or two (v2: fc.0.weight, fc.2.weight)
_RESNETS = (
    *_OURS,
    Layout("torchvision", "", beside=_CLASSIFIER),
    Layout("MoCo", "encoder_q.", beside=_CLASSIFIER),
)
_S3DG = (
    *_OURS,
    # Pretrained; fine-tuned; a model without the wrapper that adds the two heads.
    Layout("RSPNet pretraining", "encoder_q.encoder.", _rspnet, _CLASSIFIER),
    Layout("RSPNet fine-tuning", "encoder.", _rspnet, _CLASSIFIER),
    Layout("RSPNet S3D-G", "", _rspnet, _CLASSIFIER),
)


def read_encoder(uri: str, kind: Kind, width: float = 1.0) -> dict[str, Tensor]:
    """Return the state of an encoder from a file of any known layout, or from a finished folder of `pretrain`.

    `build_encoder(kind, width=width).load_state_dict` takes it. URIs are those of `ModelConfig.weights`, and so are
    messages.

    Raises:
        InputError: If there is no such file, it cannot be read, or it holds no whole encoder of this kind and width.
    """
    path = tensors.weights_path(uri, "model.weights")
    return encoder_state(tensors.load(path, "model.weights")[0], kind, width, f"model.weights = {path}")[0]


def encoder_state(
    state: object, kind: Kind, width: float = 1.0, source: str = "the weights"
) -> tuple[dict[str, Tensor], str]:
    """Return the state of an encoder under our names, in single precision, and the name of the layout it came in.

    Args:
        state: Tensors by name, or a checkpoint that has them as `state_dict` (MoCo) or `model` (RSPNet, ours).
        kind: The encoder to be found there.
        width: Its share of the channels.
        source: Where the state is from, for messages.

    Raises:
        InputError: If names or shapes do not fit; it counts them and shows some.
    """
    for name in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{source} holds {_described(state)}, expected tensors by name; {_known(kind)}")
    given: dict[str, Tensor] = {str(name).removeprefix("module."): value for name, value in state.items()}
    with torch.device("meta"):  # names and shapes only: neither memory nor random numbers
        expected = build_encoder(kind, width=width).state_dict()
    fits = (_fit(layout, given, expected) for layout in _layouts(kind))
    fit = max(fits, key=lambda fit: (len(fit.taken), -len(fit.unexpected)))
    if not fit.taken:
        raise InputError(f"{source} has no tensor of {kind}, but {_some(given)}; {_known(kind)}")
    shapes = [
        f"{fit.layout.prefix}{fit.layout.rename(name)} {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
        for name, value in fit.taken.items()
        if value.shape != expected[name].shape
    ]
    faults = {"missing": fit.missing, "unexpected": fit.unexpected, "of another shape": shapes}
    if any(faults.values()):
        said = "; ".join(f"{len(names)} {what}: {_some(names)}" for what, names in faults.items() if names)
        size = f" of width {width:g}" if width != 1 else ""
        raise InputError(
            f"{source} does not hold a whole {kind}{size}: read in layout {fit.layout.name!r}, {len(fit.taken)} "
            f"tensors are there; {said}; {_known(kind)}"
        )
    # Half precision saves room in a file, not in a training.
    taken = {name: value.float() if value.is_floating_point() else value for name, value in fit.taken.items()}
    return {name: taken.get(name, torch.zeros((), dtype=torch.int64)) for name in expected}, fit.layout.name


@dataclass(frozen=True)
class _Fit:
    """What of a file is an encoder in some layout: tensors by our names, and by its own what lacks or is too much."""

    layout: Layout
    taken: dict[str, Tensor]
    missing: list[str]
    unexpected: list[str]


def _fit(layout: Layout, given: Mapping[str, Tensor], expected: Iterable[str]) -> _Fit:
    theirs = {layout.prefix + layout.rename(name): name for name in expected}
    beside = tuple(layout.prefix + beginning for beginning in layout.beside)
    under = [name for name in given if name.startswith(layout.prefix)]
    return _Fit(
        layout,
        taken={own: given[name] for name, own in theirs.items() if name in given},
        missing=[name for name in theirs if name not in given and not name.endswith(_COUNTER)],
        unexpected=[name for name in under if name not in theirs and not name.startswith(beside)],
    )


def _layouts(kind: Kind) -> tuple[Layout, ...]:
    return _S3DG if kind == "s3dg" else _RESNETS


def _known(kind: Kind) -> str:
    """Return the layouts in which an encoder may come, each with one of the names in it."""
    first = "conv_1a.spatial.conv.weight" if kind == "s3dg" else "conv1.weight"
    examples = {layout.name: layout.prefix + layout.rename(first) for layout in _layouts(kind)}
    return f"known layouts of {kind}: " + ", ".join(f"{name} ({example})" for name, example in examples.items())


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "")


def _described(state: object) -> str:
    """Return what a file holds instead of tensors by name."""
    if not isinstance(state, Mapping):
        return f"a {type(state).__name__}"
    return "nothing" if not state else _some(f"{name} ({type(value).__name__})" for name, value in state.items())
