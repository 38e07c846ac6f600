"""A GPU that is not there: within ``with SimulatedDevice() as device:`` tensors can be moved to
"cuda", where they are computed as on the CPU but kept apart as on a GPU.

- They say that they are on ``cuda:0``, and refuse ``numpy()``.
- An operation on tensors from both sides raises as CUDA does; 0-dimensional ones of the CPU may
  join, indices on the CPU too.
- What makes the CPU wait for a GPU is counted in ``device.waits``: values that are read, copies
  back, copies to the device that are not ``non_blocking``, and operations whose output's size
  follows from values (``nonzero``, a mask as an index).

The memory of every tensor is the CPU's and so are the kernels: what runs here computes what the CPU
would, and only its place is simulated. Left out are kernels, precision, memory, several streams and
processes, ``torch.compile`` and CUDA's own random numbers; and a copy back that is not waited for
counts as one that is. ``torch.cuda.is_available()`` stays false.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self
from unittest import mock

import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import _allowed_determinism_checks_to_fns as DESCRIPTIONS

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")

aten = torch.ops.aten
# Operations that a GPU's host has to wait for, since it needs a value or a size.
WAITING = {
    aten._local_scalar_dense: "item",
    aten.equal: "equal",
    aten.nonzero: "nonzero",
    aten.masked_select: "masked_select",
    aten.bincount: "bincount",
    aten._unique2: "unique",
    aten.unique_consecutive: "unique",
    aten.unique_dim: "unique",
}
INDEXING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
    aten._unsafe_index,
    aten._unsafe_index_put,
}
FROM_VALUES = (torch.tensor, torch.as_tensor, torch.asarray)


class SimulatedDevice:
    """The context; ``waits`` counts by kind, ``places`` by kind, file and line of the caller."""

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.calling = False  # a function of torch that was given tensors of the device
        self._storages: dict[int, StorageWeakRef] = {}
        self._limit = 1000
        self._operations = _Operations(self)
        self._functions = _Functions(self)
        # A checkpoint describes what is saved within torch's calls, where properties say "cpu".
        self._described = mock.patch.dict(DESCRIPTIONS, {"default": self._describe})

    def __enter__(self) -> Self:
        self._operations.__enter__()
        self._functions.__enter__()
        self._described.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._described.stop()
        self._functions.__exit__(*exception)
        self._operations.__exit__(*exception)

    def _describe(self, tensor: Tensor) -> tuple[torch.Size, torch.dtype, bool]:
        return tensor.shape, tensor.dtype, self.holds(tensor)

    def holds(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` is on the device."""
        return _storage(tensor)._cdata in self._storages

    def place(self, tensor: Tensor, on_device: bool) -> Tensor:
        """Note where the memory of ``tensor``, and of all its views, is."""
        storage = _storage(tensor)
        if not on_device:
            self._storages.pop(storage._cdata, None)
            return tensor
        if storage._cdata not in self._storages:
            # As long as the weak reference is kept, no other storage gets this address.
            self._storages[storage._cdata] = StorageWeakRef(storage)
            self._forget_the_dead()
        return tensor

    def _forget_the_dead(self) -> None:
        if len(self._storages) < self._limit:
            return
        for key, reference in list(self._storages.items()):
            if reference.expired():
                del self._storages[key]
        self._limit = 1000 + 2 * len(self._storages)

    def wait(self, kind: str) -> None:
        """Count a wait of the CPU for the device."""
        self.waits[kind] += 1
        self.places[f"{kind} at {_caller()}"] += 1

    def copied(self, from_device: bool, to_device: bool, non_blocking: bool) -> None:
        """Count a copy that makes the CPU wait."""
        if from_device and not to_device:
            self.wait("copy back")
        elif to_device and not from_device and not non_blocking:
            self.wait("upload")

    def fabric(self, precision: Any = "32-true") -> Fabric:
        """Fabric with one process, on the device."""
        strategy = SingleDeviceStrategy(CUDA, accelerator=_Accelerator())
        return Fabric(strategy=strategy, precision=precision)


class _Accelerator(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Nothing to choose."""


class _Functions(TorchFunctionMode):
    """What is asked of tensors in python: where they are, to go elsewhere, to be made there."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        handler = HANDLERS.get(_name(func))
        if handler is not None and isinstance(args[0], Tensor):
            return handler(self.device, func, args, kwargs)
        if kwargs.get("device") is not None:
            return self._made(func, args, kwargs)
        return self._call(func, args, kwargs)

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """What torch makes itself on the way (zeros, masks) lies where its arguments do."""
        before = self.device.calling
        self.device.calling = any(map(self.device.holds, _tensors((args, kwargs))))
        try:
            return func(*args, **kwargs)
        finally:
            self.device.calling = before

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """A new tensor on the ``device`` that was asked for."""
        on_device = torch.device(kwargs["device"]).type == CUDA.type
        kwargs["device"] = CPU
        generator = kwargs.get("generator")
        if on_device and generator is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if func in FROM_VALUES and isinstance(args[0], Tensor):
            return _move(self.device, args[0].to(kwargs.get("dtype")), on_device, False)
        made = func(*args, **kwargs)
        if on_device and (func in FROM_VALUES or _name(func) == "new_tensor"):
            self.device.wait("upload")
        return self.device.place(made, on_device)


class _Operations(TorchDispatchMode):
    """Every operation, those of a backward pass too: whether its tensors are in one place."""

    def __init__(self, device: SimulatedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunction():
            whole = self._decomposed(func, args, kwargs)
            if whole is not NotImplemented:  # in inference mode
                return whole
            return self._run(func, args, kwargs)

    def _decomposed(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(
            func.name(), torch._C.DispatchKey.CompositeImplicitAutograd
        ):
            return NotImplemented
        with self:
            return func.decompose(*args, **kwargs)

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        tensors = _tensors((args, kwargs))
        packet = func.overloadpacket
        if packet is aten.copy_:
            return self._copied(func, args, kwargs)
        on_device = any(map(self.device.holds, tensors))
        if on_device:
            self._check(func, args, tensors, kwargs)
            self._count(packet, args)
        elif not tensors:
            on_device = self.device.calling
        result = func(*args, **kwargs)
        if on_device:
            for tensor in _tensors(result):
                self.device.place(tensor, True)
        return result

    def _check(self, func: Any, args: Any, tensors: list[Tensor], kwargs: dict[str, Any]) -> None:
        """Raise as CUDA does for tensors in two places, or for a generator in another one."""
        if kwargs.get("generator") is not None:
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        if func.overloadpacket in INDEXING and self.device.holds(args[0]):
            indices = _tensors(args[1])
            tensors = [tensor for tensor in tensors if not _among(tensor, indices)]
        elsewhere = [tensor for tensor in tensors if not self.device.holds(tensor)]
        written = func._schema.is_mutable and _among(args[0], elsewhere)
        if written or any(tensor.ndim > 0 for tensor in elsewhere):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:0 and cpu! (in {func})"
            )

    def _count(self, packet: Any, args: Any) -> None:
        if packet in WAITING:
            self.device.wait(WAITING[packet])
        if packet in INDEXING:
            for index in _tensors(args[1]):
                if index.dtype in (torch.bool, torch.uint8):
                    self.device.wait("mask as index")
                elif not self.device.holds(index):
                    self.device.wait("upload")

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """``target.copy_(source, non_blocking)``, the one operation between two places."""
        target, source = args[:2]
        non_blocking = kwargs.get("non_blocking", False)
        if len(args) > 2:
            non_blocking = args[2]
        self.device.copied(self.device.holds(source), self.device.holds(target), non_blocking)
        return func(*args, **kwargs)


class _Move(torch.autograd.Function):
    """A copy in the other place, whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, device: SimulatedDevice, tensor: Tensor, on_device: bool) -> Tensor:
        ctx.device = device
        ctx.back = not on_device
        return device.place(tensor.clone(), on_device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        return None, ctx.device.place(gradients[0].clone(), ctx.back), None


def _move(device: SimulatedDevice, tensor: Tensor, on_device: bool, non_blocking: bool) -> Tensor:
    """``tensor`` itself where it is there already, else a copy."""
    if device.holds(tensor) == on_device:
        return tensor
    device.copied(device.holds(tensor), on_device, non_blocking)
    return _Move.apply(device, tensor, on_device)


Handler = Callable[[SimulatedDevice, Any, Any, dict[str, Any]], Any]


def _get_device(device: SimulatedDevice, func: Any, args: Any, kwargs: Any) -> torch.device:
    return CUDA if device.holds(args[0]) else func(*args)


def _get_is_cuda(device: SimulatedDevice, func: Any, args: Any, kwargs: Any) -> bool:
    return device.holds(args[0])


def _to(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    """``Tensor.to`` in all its forms."""
    tensor, *others = args
    copy = kwargs.pop("copy", False)
    if others and isinstance(others[0], Tensor):  # like another tensor
        on_device = device.holds(others[0])
        others[0] = others[0].dtype
        dtype, non_blocking, layout = torch._C._nn._parse_to(*others, **kwargs)[1:]
    else:
        target, dtype, non_blocking, layout = torch._C._nn._parse_to(*others, **kwargs)
        on_device = device.holds(tensor) if target is None else target.type == CUDA.type
    cast = tensor.to(
        dtype=dtype or tensor.dtype, copy=copy, memory_format=layout or torch.preserve_format
    )
    return _move(device, cast, on_device, non_blocking)


def _to_cpu(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    return _move(device, args[0], False, False)


def _numpy(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if device.holds(args[0]):
        raise TypeError(
            "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor "
            "to host memory first."
        )
    return func(*args, **kwargs)


def _tolist(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if device.holds(args[0]):
        device.wait("tolist")
    return func(*args, **kwargs)


def _pin_memory(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
    if device.holds(args[0]):
        raise RuntimeError(
            "cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned"
        )
    return args[0].clone()


def _backward(device: SimulatedDevice, func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    """With the mode on, so that what a checkpoint computes again is asked the same questions."""
    names = ("tensor", "gradient", "retain_graph", "create_graph")
    given = dict(zip(names, args, strict=False)) | kwargs
    loss = given["tensor"]
    gradient = given.get("gradient")
    if gradient is None:
        gradient = torch.ones_like(loss)
    create_graph = bool(given.get("create_graph"))
    keep = given.get("retain_graph") or create_graph
    with device._functions:
        _engine_run_backward(
            (loss,),
            (gradient,),
            keep,
            create_graph,
            (),
            allow_unreachable=True,
            accumulate_grad=True,
        )


HANDLERS: dict[str, Handler] = {
    "device.__get__": _get_device,
    "is_cuda.__get__": _get_is_cuda,
    "to": _to,
    "cpu": _to_cpu,
    "numpy": _numpy,
    "__array__": _numpy,
    "tolist": _tolist,
    "pin_memory": _pin_memory,
    "backward": _backward,
}


def _name(func: Any) -> str:
    """A function's name, of a property "name.__get__"."""
    name = getattr(func, "__name__", "")
    if name == "__get__":
        return f"{func.__self__.__name__}.__get__"
    return name


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    with torch._C.DisableTorchFunction():
        return tensor.untyped_storage()


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def _among(value: Any, tensors: list[Tensor]) -> bool:
    return any(value is tensor for tensor in tensors)


def _caller() -> str:
    """File and line of the innermost frame that belongs neither to torch nor to this file."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        path = frame.f_code.co_filename
        if path != __file__ and "/torch/" not in path and "/lightning_fabric/" not in path:
            break
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
