"""States of objects, spoilt at random: numbers, tensors and things of every kind in odd places."""

import collections
import decimal
import fractions
import math
import types

import numpy as np
import torch
from torch.optim import SGD

from torch_plateau import PlateauLanes


def freed(like):
    tensor = like.detach().clone()
    tensor.untyped_storage().resize_(0)
    return tensor


def freed_slice(like):
    tensor = torch.cat([like.detach().flatten()] * 2)
    part = tensor[: like.numel()]
    tensor.untyped_storage().resize_(0)
    return part


def ring():
    endless = []
    endless.append(endless)
    return endless


NUMBERS = [
    *(math.nan, math.inf, -math.inf, -1, 0, 1, 2, 3, 0.5, 1.5, -0.0, 1e-300, 1e39, -1e39, 1e308),
    *(2**31 - 2, 2**31 - 1, 2**31, 2**52, 2**53 - 1, 2**53, 2**63 - 1, 2**64, 2**70, -(2**70)),
    *(10**400, -(2**31), -(2**63)),
]
OTHERS = [
    *(lambda: None, lambda: "", lambda: "min", lambda: "x", lambda: b"x", lambda: True),
    *(
        lambda: False,
        object,
        lambda: 1j,
        list,
        dict,
        tuple,
        set,
        lambda: [math.nan],
        lambda: ring(),
    ),
    *(lambda: [1.0], lambda: [0.5, 0.25], lambda: [1, 2, 3], lambda: [None], lambda: [[1.0]]),
    *(lambda: {"a": 1}, lambda: {3: 4}, lambda: range(3), lambda: lambda *_: None),
    *(lambda: np.float64(0.5), lambda: np.int64(3), lambda: np.ones(3), lambda: np.float32(1)),
    *(lambda: decimal.Decimal("0.5"), lambda: fractions.Fraction(1, 2), lambda: torch.float64),
    *(lambda: [torch.ones(3)], lambda: [freed(torch.ones(()))], lambda: [freed(torch.ones(2))]),
    *(lambda: [torch.ones((), device="meta")], lambda: ["min", "max", "min"], lambda: ["min"] * 2),
    lambda: SGD([torch.ones(1)], lr=0.1),
    lambda: PlateauLanes(2, 0.1),
]
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32),
    *(torch.int16, torch.uint8, torch.uint16, torch.bool, torch.complex64, torch.complex128),
]
TENSORS = [
    lambda t: t[None],
    lambda t: t.flatten()[:-1],
    lambda t: torch.cat([t.flatten(), t.flatten()]),
    lambda t: t.flatten()[:1].reshape(()) if t.numel() else torch.zeros(()),
    lambda t: t[:0] if t.ndim else t.flatten()[:0],
    lambda t: t.flatten(),
    lambda t: t.to("meta"),
    lambda t: t.to_sparse(),
    lambda t: t.reshape(1, -1).to_sparse_csr(),
    lambda t: torch.nested.nested_tensor([t.float(), t.float()]),
    lambda t: torch.nested.nested_tensor([t.double()]),
    lambda t: torch.nested.nested_tensor([t.flatten().double()] * 2, layout=torch.jagged),
    lambda _: torch.nested.nested_tensor([torch.tensor(1.0), torch.tensor(2.0)]),
    freed,
    freed_slice,
    lambda t: t.double().requires_grad_(),
    lambda t: t.double().requires_grad_() * 1.0,
    lambda t: torch.nn.Parameter(t.double()),
    lambda t: t.flatten()[:1].expand(t.shape) if t.numel() else t,
    lambda t: torch.stack([t, t], -1)[..., 0],
    lambda t: torch._neg_view(t.double()),
    lambda t: torch.complex(t.double(), t.double()).conj(),
    lambda t: t.float().to_mkldnn() if t.ndim else t,
    lambda t: t.tolist(),
    lambda t: t.numpy(),
    lambda _: torch.empty(0),
]


def spoilt_tensor(r, tensor):
    tensor = tensor.detach().clone()
    way = r.randrange(4)
    if way == 0 and tensor.numel():
        number = r.choice(NUMBERS)
        tensor.view(-1)[r.randrange(tensor.numel())] = number
        return tensor
    if way == 1:
        return tensor.to(r.choice(DTYPES))
    return r.choice(TENSORS)(tensor)


def is_whole(value):
    """Whether this is a tensor that torch can copy without a crash."""
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided or value.is_nested:
        return False
    return value.numel() == 0 or value.is_meta or value.untyped_storage().data_ptr() != 0


def spoilt_value(r, value):
    """Something else in the place of ``value``."""
    if is_whole(value) and r.random() < 0.7:
        return spoilt_tensor(r, value)
    way = r.randrange(6)
    if way < 3:
        return r.choice(NUMBERS)
    if way == 3:
        size = r.choice([(), (1,), (2,), (3,), (3, 2)])
        return spoilt_tensor(r, torch.full(size, r.choice([0.0, 0.5, 1.0, 3.0, math.nan])))
    return r.choice(OTHERS)()


def containers(state, found):
    """Every dict and list in a state."""
    if isinstance(state, (dict, list)) and not any(state is each for each in found):
        found.append(state)
        for each in state.values() if isinstance(state, dict) else state:
            containers(each, found)
    return found


def spoil(r, state):
    """Spoil one place in a state of dicts and lists; the result may be another object."""
    place = r.choice(containers(state, []))
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    way = r.randrange(12)
    if way == 0 and isinstance(place, dict):
        place[r.choice(["extra", "", 3, None, (1,), object(), 0.5])] = r.choice(OTHERS)()
    elif way == 0:
        place.append(spoilt_value(r, 0.5))
    elif way == 1 and keys:
        del place[r.choice(keys)]
    elif way == 2 and len(keys) > 1:
        one, other = r.sample(keys, 2)
        place[one], place[other] = place[other], place[one]
    elif way == 3 and isinstance(state, dict):
        kinds = [
            collections.OrderedDict,
            lambda d: collections.defaultdict(int, d),
            types.MappingProxyType,
            collections.UserDict,
            lambda d: list(d.items()),
        ]
        return r.choice(kinds)(state)
    elif keys:
        at = r.choice(keys)
        place[at] = spoilt_value(r, place[at])
    return state


def spoilt(r, state):
    for _ in range(r.choice([1, 1, 1, 2, 3])):
        while isinstance(state, (dict, list)):
            try:
                state = spoil(r, state)
            except (RuntimeError, TypeError, ValueError, OverflowError):
                continue  # not every tensor can be made what was to be made of it
            break
    return state
