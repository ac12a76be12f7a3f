"""A shard's checkpoint: torch.distributed.checkpoint, whole or not at all, with errors of ours."""

from __future__ import annotations

import os
import pickle
import shutil
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_all
from torch.distributed.checkpoint.state_dict_saver import save as save_all

from .spread import lanes_of

if TYPE_CHECKING:
    from .shard import LaneShard

__all__ = ["load", "save"]

# What the index of a checkpoint is made of: records, which do nothing when they are built.
_RECORDS = {
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "WindowsPath"},
    "torch": {"Size", "device"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.serialization": {"_get_layout"},
}


class _Unpickler(pickle.Unpickler):
    """Builds what an index is made of, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return torch's record of this name, or one of torch's dtypes."""
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        if name not in _RECORDS.get(module, ()):
            raise pickle.UnpicklingError(f"its index names {module}.{name}")
        return super().find_class(module, name)


class _Reader(FileSystemReader):
    """torch's reader, which would run whatever the index, a pickle, asks for.

    Tensors it reads with ``weights_only=True``, and nothing else is asked of it.
    """

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """Return the index; raises ValueError if it is none."""
        try:
            with open(os.path.join(self.path, ".metadata"), "rb") as file:
                index = _Unpickler(file).load()
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"path: expected a checkpoint at {str(self.path)!r}: {error}"
            ) from error
        if not isinstance(index, Metadata):
            raise ValueError(
                f"path: expected a checkpoint at {str(self.path)!r}, got another index"
            )
        index.storage_meta = index.storage_meta or StorageMeta()
        index.storage_meta.load_id = self.load_id
        return index


def save(shard: LaneShard, path: str | os.PathLike[str], key: str) -> None:
    """Write a checkpoint, as ``LaneShard.save`` says.

    ::

        all ranks write to path + ".new"; path becomes path + ".old", and ".new" path; ".old" goes

    A process that is killed at any moment leaves the old one at ``path``, or between the two
    renames at ``path + ".old"``, where ``load`` looks for it.
    """
    path = os.path.realpath(path)  # a link stays, and what it points to is replaced
    new, old = f"{path}.new", f"{path}.old"
    group = shard.mesh.get_group()
    first = dist.get_rank(group) == 0
    if first:
        shutil.rmtree(new, ignore_errors=True)
    dist.barrier(group)
    try:
        save_all({key: shard.state_dict()}, checkpoint_id=new, process_group=group)
    except CheckpointException as error:  # which is no Exception
        if first:
            shutil.rmtree(new, ignore_errors=True)
        _raise_interrupt(error)
        raise RuntimeError(f"path: cannot save to {path!r}: {error}") from error
    if first:
        if os.path.exists(path):
            shutil.rmtree(old, ignore_errors=True)
            os.rename(path, old)
        os.rename(new, path)
        shutil.rmtree(old, ignore_errors=True)
    dist.barrier(group)


def load(shard: LaneShard, path: str | os.PathLike[str], key: str) -> None:
    """Read a checkpoint, as ``LaneShard.load`` says; what it holds decides what is read."""
    path = os.path.realpath(path)
    if not os.path.exists(path) and os.path.exists(f"{path}.old"):
        path = f"{path}.old"
    try:
        found = _Reader(path).read_metadata().state_dict_metadata
    except FileNotFoundError as error:
        raise FileNotFoundError(f"path: expected a checkpoint, got none at {path!r}") from error
    within = {
        name.removeprefix(f"{key}."): each
        for name, each in found.items()
        if name.startswith(f"{key}.") and isinstance(each, TensorStorageMetadata)
    }
    if "rest" not in within:
        raise ValueError(f"key: expected one of a LaneShard in the checkpoint, got {key!r}")
    sizes = {each.size[0] for name, each in within.items() if name.startswith("rows.")}
    if sizes - {shard.n}:
        raise ValueError(
            f"n: expected a checkpoint of {shard.n} lanes, got one of {(sizes - {shard.n}).pop()}"
        )
    here = len(lanes_of(shard.n, shard.mesh.size(), shard.mesh.get_local_rank()))
    target: dict[str, Any] = {"rows": {}, "scalars": {}}
    for name, each in within.items():
        kind, _, inner = name.partition(".")
        dtype, device = each.properties.dtype, shard.lanes.device
        if kind == "rows":
            local = torch.empty(here, *each.size[1:], dtype=dtype, device=device)
            target["rows"][inner] = shard._spread_out(local)
        elif kind == "scalars":
            target["scalars"][inner] = torch.empty(each.size, dtype=dtype, device=device)
        else:
            target[kind] = torch.empty(each.size, dtype=dtype)
    try:
        group = shard.mesh.get_group()
        load_all({key: target}, storage_reader=_Reader(path), process_group=group)
    except CheckpointException as error:
        _raise_interrupt(error)
        raise ValueError(f"path: cannot load {path!r}: {error}") from error
    shard.load_state_dict(target)


def _raise_interrupt(error: CheckpointException) -> None:
    """Raise what is no failure to write or read: Ctrl-C."""
    if any(isinstance(each, KeyboardInterrupt) for each, _ in error.failures.values()):
        raise KeyboardInterrupt from error
