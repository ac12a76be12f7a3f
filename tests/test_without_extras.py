"""With torch alone: core features work, and what needs more says what to install."""

import subprocess
import sys

# Everything that an extra brings, and numpy, which torch itself can do without.
HIDDEN = """
import sys
from importlib.machinery import PathFinder

absent = {
    "jinja2", "matplotlib", "numpy", "pandas", "plotly", "pyarrow", "rich", "scipy", "sklearn",
    "tensorboard", "torchmetrics", "typer",
}
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, path=None, target=None: (
    None if name.partition(".")[0] in absent else find(name, path, target)
)
import warnings
warnings.filterwarnings("error")
warnings.filterwarnings("ignore", "Failed to initialize NumPy")  # of torch
"""

IMPORTS = """
import torch
import torch_plateau as ours
"""

CORE = """
from pathlib import Path

from torch_plateau.histories.files import read_histories

def parameter(*shape):
    return torch.nn.Parameter(torch.ones(shape))

lanes = ours.PlateauLanes(3, 0.5, patience=0)
assert lanes.step([1.0, 2.0, 3.0]).tolist() == [0.5] * 3
rates = lanes.step(torch.tensor([1.0, 1.0, 4.0])).tolist()
assert [round(rate, 6) for rate in rates] == [0.05, 0.5, 0.05]
lanes.remove([1])
lanes.append(1, lr=0.25)
ours.save_atomically(lanes.state_dict(), "lanes.pt")
again = ours.PlateauLanes(3, 0.5, patience=0)
again.load_state_dict(torch.load("lanes.pt", weights_only=True))
assert again.lr.tolist() == lanes.lr.tolist()

stacked = parameter(3, 2)
stack = ours.LaneStack(lanes, ours.LaneAdam([stacked], lanes), {"stacked": stacked})
stacked.sum().backward()
stack.step()

optimizer = torch.optim.SGD([parameter(2)], lr=0.1)
drop_in = ours.ReduceLROnPlateau(optimizer, patience=0)
for _ in range(2):
    drop_in.step(1.0)
assert optimizer.param_groups[0]["lr"] == 0.1 * 0.1
batched = ours.BatchedReduceLROnPlateau(
    [torch.optim.SGD([parameter(2)], lr=0.1) for _ in range(2)], patience=0
)
for metrics in ([1.0, 1.0], [1.0, 0.5]):
    batched.step(metrics)
assert batched.get_last_lr() == [0.1 * 0.1, 0.1]

history = [1.0, 0.5, 0.5, 0.5, 0.5]
with open("run.csv", "w") as file:
    file.write("loss\\n" + "\\n".join(map(str, history)))
with open("run.jsonl", "w") as file:
    file.writelines(f'{{"loss": {value}}}\\n' for value in history)
for name in ("run.csv", "run.jsonl"):
    (read,) = read_histories([Path(name)], "loss")
    assert read.metric.tolist() == history
replayed = ours.replay(history, lr=0.1, patience=1)
swept = ours.sweep(history, lr=0.1, patience=[1, 2])
assert swept.table()["num_reductions"] == [1, 1]
assert replayed.table()["num_reductions"] == [1]
ours.diagnose(history)
"""

RANKS = """
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch_plateau.distributed import Agreement, LaneShard

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
agreeing = ours.PlateauLanes(3, 0.5, patience=0, process_group=dist.group.WORLD)
agreeing.step([1.0, 2.0, 3.0])
mesh = init_device_mesh("cpu", (1,))
lanes = ours.PlateauLanes(3, 0.5, process_group=False)
for refused in (lambda: Agreement(None, check_every=9), lambda: LaneShard(lanes, 3, mesh)):
    try:
        refused()
    except ImportError as error:
        print(error)
dist.destroy_process_group()
"""

REST = """
for name in ("run.parquet", "events.out.tfevents.1"):
    with open(name, "wb") as file:
        file.write(b"PAR1")
    try:
        read_histories([Path(name)], "loss")
    except Exception as error:
        print(type(error).__name__, error)
for result in (replayed, swept):
    try:
        result.to_pandas()
    except ImportError as error:
        print(type(error).__name__, error)
import torch_plateau.cli
"""


def test_with_torch_alone_all_but_commands_and_pictures_works(tmp_path):
    command = [sys.executable, "-c", HIDDEN + IMPORTS + CORE + REST]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2  # which is a missing extra's
    assert done.stderr.splitlines() == [
        "torch-plateau: no module 'typer'; "
        "the command line needs its extra: pip install 'torch-plateau[cli]'"
    ]
    parquet, events, *frames = done.stdout.splitlines()
    assert parquet.startswith("FileError run.parquet: reading it needs pyarrow")
    assert parquet.endswith("pip install 'torch-plateau[parquet]'")
    assert events.startswith("FileError events.out.tfevents.1: reading it needs tensorboard")
    assert events.endswith("pip install 'torch-plateau[tensorboard]'")
    assert (
        frames
        == [
            "ImportError to_pandas: needs pandas (No module named 'pandas'): pip install pandas; "
            "table() has the same columns"
        ]
        * 2
    )


def test_ranks_agree_without_numpy_and_what_sends_objects_asks_for_it(tmp_path):
    command = [sys.executable, "-c", HIDDEN + IMPORTS + RANKS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{what}: torch.distributed needs numpy for it: pip install numpy"
        for what in ("check_every", "LaneShard")
    ]
