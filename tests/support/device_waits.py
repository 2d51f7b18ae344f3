"""A device without hardware that records each time a program waits for it, as it would wait for a GPU.

The device is torch's `meta`: its tensors have shapes but no values. The program waits for a device if it needs the
value of a tensor, or a size that depends on values. It also waits for a copy in either direction that is not
`non_blocking`.
"""

import sys
from collections import Counter

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
aten = torch.ops.aten
SIZES = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive, aten.unique_dim, aten.bincount)
INDEXING = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index)
MADE = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)  # copy Python values to the device, and wait


class DeviceWaits(TorchDispatchMode):
    """Counts the waits of a block in `counted`, by the function of previts that waits and the reason.

    A value that the program reads is 1, and those that it copies are 0, 1, 2, ... A size that depends on values cannot
    be made up: it raises an error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[tuple[str, str]] = Counter()
        self._made = _MadeTensors(self)

    def __enter__(self):
        self._made.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._made.__exit__(*error)

    def note(self, reason: str) -> tuple[str, str]:
        frame = sys._getframe(1)
        while "/previts/" not in frame.f_code.co_filename and frame.f_back is not None:
            frame = frame.f_back
        place = f"{frame.f_code.co_filename.rpartition('/previts/')[2]}: {frame.f_code.co_name}"
        self.counted[place, reason] += 1
        return place, reason

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, packet = kwargs or {}, function.overloadpacket
        if packet in (aten._to_copy, aten.copy_):
            return self._copy(function, args, kwargs)
        if any(map(on_device, tree_leaves((args, kwargs)))):
            if packet in (aten._local_scalar_dense, aten.equal):
                self.note("value")
                return packet is aten.equal or torch.ones((), dtype=args[0].dtype).item()
            indices = [index for index in args[1] if index is not None] if packet in INDEXING else []
            if packet in SIZES or any(index.dtype == torch.bool for index in indices):
                raise AssertionError(f"a size depends on values of the device: {self.note(str(packet))}")
            if not all(map(on_device, indices)):
                self.note("copy to the device")
            if packet is aten._fused_sgd_:  # has no rule for shapes
                return None
        return function(*args, **kwargs)

    def _copy(self, function, args, kwargs):
        in_place = function.overloadpacket is aten.copy_
        source = args[1] if in_place else args[0]
        target = args[0].device if in_place else kwargs.get("device") or source.device
        waits = not (args[2] if in_place and len(args) > 2 else kwargs.get("non_blocking", False))
        if not on_device(source):
            if target.type == DEVICE.type and waits:
                self.note("copy to the device")
            return function(*args, **kwargs)
        if target.type == DEVICE.type:
            return function(*args, **kwargs)
        self.note("copy to the host")
        values = torch.arange(source.numel()).view(source.shape).to(kwargs.get("dtype") or source.dtype)
        return args[0].copy_(values) if in_place else values


class _MadeTensors(TorchFunctionMode):
    """Notes tensors that are made on the device from Python values."""

    def __init__(self, waits: DeviceWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if function in MADE and on_device(made):
            self.waits.note("copy to the device")
        return made


def on_device(value: object) -> bool:
    """Return whether a value is a tensor on the device."""
    return isinstance(value, Tensor) and value.device.type == DEVICE.type
