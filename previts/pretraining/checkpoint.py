"""The folder of a pretraining run: states for resuming, the log and, once finished, the model.

    log.jsonl | pictures/ | step-XXXXXXXX.pt (the last two) | experiment.json, model.pt and encoder.pt (once finished)

Every .pt has a .sha256 next to it, which is written after it. A file without a matching .sha256 is ignored. Files are
loaded with `weights_only=True`, so a file from an untrusted source cannot run code. No training happens here.
"""

import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from previts.config.experiment import Experiment
from previts.errors import InputError
from previts.models.moco import MoCo
from previts.storage import fences, files, folders
from previts.storage.states import States
from previts.storage.tensors import ENCODER, read_checked, reason, write_checked

MODEL, LOG, EXPERIMENT = "model.pt", "log.jsonl", "experiment.json"


def _states(uri: str, restored: int = 0) -> States:
    return States(uri, "step-{:08d}.pt", keep=2, sound=restored)


def steps(uri: str) -> list[int]:
    """Return the steps of the states in a folder, in order; some may be damaged."""
    return _states(uri).numbers()


class Saver:
    """Writes states in the background, one at a time, while training continues; the block ends once all are written.

    `save` copies the state to the memory of this machine before it returns, so later training steps do not change it.
    The next call raises the errors of the background write.
    """

    def __init__(self, uri: str, restored: int = 0) -> None:
        self._states = _states(uri, restored)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._failed = False

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown()
        if kind is None:
            self.wait()

    def save(
        self, step: int, model: MoCo, optimizer: torch.optim.Optimizer, damaged: dict[str, str] | None = None
    ) -> None:
        """Write the state after `step` steps, then delete all states except this one and the last sound one before it.

        If the previous state could not be written, a message reports it and this state is still tried. Two failures in
        a row are raised.

        Raises:
            FloatingPointError: If a weight is not finite; nothing is written.
        """
        try:
            self.wait()
            self._failed = False
        except fences.LostError:
            raise
        except Exception as error:  # object stores raise types of their own
            if self._failed:
                raise
            self._failed = True
            print(f"the state before step {step} could not be written, this one is tried: {error}", file=sys.stderr)
        norms = torch.stack(torch._foreach_norm([parameter.detach() for parameter in model.parameters()]))
        if not torch.isfinite(norms).all():
            raise FloatingPointError(
                f"the weights after step {step} are not finite; lower optim.lr, or set optim.clip_norm"
            )
        state = {
            "step": step,
            "damaged": dict(damaged or {}),
            "experiment": model.experiment.to_json(),
            "model": _copied(model.state_dict()),
            "optimizer": _copied(optimizer.state_dict()),
        }
        self._writing = self._pool.submit(self._states.save, step, state)

    def wait(self) -> None:
        """Return once everything is written."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _copied(value: Any) -> Any:
    """Return nested dictionaries and lists with a copy of each tensor in the machine's own memory."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def restore(
    uri: str, model: MoCo, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, dict[str, str]]:
    """Load the newest sound state of a folder into model and optimiser.

    Returns:
        The number of steps that the state has completed, or 0, and the damaged videos found so far.

    Raises:
        InputError: If the folder belongs to another experiment, or the state has other content.
    """

    def is_own(state: dict[str, Any]) -> bool:
        return Experiment.from_json(state["experiment"]).learned() == model.experiment.learned()

    states = _states(uri)
    found = states.newest(device, is_own)
    if found is None:
        return 0, {}
    step, state = found
    with states.restoring(step):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return step, dict(state["damaged"])


def finish(uri: str, experiment: Experiment, trained: int | None = None) -> None:
    """Turn the newest state of a folder into the finished model, and delete the states; a second call does nothing.

    `encoder.pt` is the bare encoder: `torchvision.models.resnet50().load_state_dict(..., strict=False)` accepts it.

    Args:
        uri: The folder.
        experiment: What was learned.
        trained: Step of the state to use. If that state is damaged, an older one must not become the result. None: the
            newest sound state.

    Raises:
        InputError: If there is neither a sound state (of step `trained`) nor a finished model.
    """
    fences.check(uri)
    files.write_bytes(files.join(uri, EXPERIMENT), experiment.to_json().encode() + b"\n")
    states = _states(uri)
    if trained is not None:
        state = states.read(trained)
    else:
        found = states.newest()
        state = found[1] if found else None
    if state is not None:
        weights: dict[str, Tensor] = state["model"]
        write_checked(files.join(uri, ENCODER), query_encoder_state(weights))
        write_checked(files.join(uri, MODEL), {key: state[key] for key in ("step", "experiment", "model")})
    elif finished_steps(uri) is None:
        last = "" if trained is None else f" of step {trained}"
        raise InputError(
            f"{uri} has no sound checkpoint{last} to finish: it is damaged, or another run uses this folder; "
            "when no other run uses it, run `previts pretrain` again"
        )
    states.sweep()


def written(uri: str) -> list[str]:
    """Return the names of the files of a finished folder that a later stage reads; without a step there is no log."""
    return [name for name in (MODEL, ENCODER, EXPERIMENT, LOG) if files.exists(files.join(uri, name))]


def query_encoder_state(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the query encoder of a MoCo state under torchvision's names (all of its ResNet but `fc`)."""
    prefix = "encoder_q."
    return {name.removeprefix(prefix): value.contiguous() for name, value in weights.items() if name.startswith(prefix)}


def finished_steps(uri: str) -> int | None:
    """Return the number of steps of the finished model of a folder, or None if there is none."""
    state = read_checked(files.join(uri, MODEL), "cpu")
    if state is not None and type(state.get("step")) is not int:
        raise InputError(
            f"{files.join(uri, MODEL)} is not a model of previts; delete it and run the same command again"
        )
    return None if state is None else int(state["step"])


def load_model(uri: str, device: torch.device | str) -> MoCo:
    """Return the finished model of a folder in eval mode; `model.experiment` is what it was trained with.

    Raises:
        InputError: If there is none, or it is damaged.
    """
    state = read_checked(files.join(uri, MODEL), device)
    remedy = f"delete {folders.MANIFEST} there, if it exists, and run `previts pretrain` again"
    if state is None:
        raise InputError(f"{uri} has no sound {MODEL}: it is missing or damaged; {remedy}")
    try:
        model = MoCo(Experiment.from_json(state["experiment"]))
        model.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError, ValueError) as error:
        raise InputError(f"{files.join(uri, MODEL)} is not a model of previts ({reason(error)}); {remedy}") from None
    return model.to(device).eval()


def read_log(uri: str, steps: int) -> list[dict[str, float]]:
    """Return the lines of a folder's log up to step `steps`, without those that are damaged."""
    try:
        files.check_regular(files.join(uri, LOG))
        text = files.read_bytes(files.join(uri, LOG)).decode(errors="replace")
    except FileNotFoundError:
        return []
    lines = [line for line in map(_line, text.splitlines()) if line is not None]
    return [line for line in lines if line["step"] <= steps]


def _line(text: str) -> dict[str, float] | None:
    """Return a line of the log, or None if it is damaged: a damaged log must not stop training."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def write_log(uri: str, lines: list[dict[str, float]]) -> None:
    """Write the log of a folder, whole or not at all."""
    text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
    files.write_bytes(files.join(uri, LOG), text.encode())
