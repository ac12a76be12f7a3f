"""What is written, by any of our writers: no input is overwritten, and the old file stays.

Run as a script this file is killed by SIGKILL at each step of writing a file, in forks.
"""

import builtins
import json
import os
import pathlib
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
import tty
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

import torch_plateau.cli.bench as bench_command
from torch_plateau import PlateauLanes, replay, save_atomically
from torch_plateau.cli import app, commands, outputs
from torch_plateau.cli.pictures import draw_replay
from torch_plateau.cli.report import write_report
from torch_plateau.integrations.logging import LaneLog
from torch_plateau.saving import replacing

TABLE = "val_loss\n" + "\n".join(map(str, [0.5, 0.4, 0.45, 0.45, 0.45, 0.3])) + "\n"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner(env={"COLUMNS": "200"}).invoke(app, list(map(str, words)))


def everything_in(folder):
    """Names, kinds and contents of all that is in a folder and below."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        if path.is_file()
        else None
        for path in folder.rglob("*")
    }


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Inputs that nobody may read, by many names; a picture and a page of before."""
    monkeypatch.setattr(commands, "read_histories", lambda *_, **__: pytest.fail("was read"))
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "in.csv").write_text(TABLE)
    (tmp_path / "in.png.tmp").write_text(TABLE)
    (folder / "events.out.tfevents.1").write_bytes(b"events")
    (tmp_path / "a.png").write_bytes(b"picture")
    (tmp_path / "link").symlink_to("in.csv")
    (tmp_path / "to_link").symlink_to(tmp_path / "link")
    os.link(tmp_path / "in.csv", tmp_path / "hard")
    (tmp_path / "to_folder").symlink_to("folder")
    (tmp_path / "picture.png").symlink_to("a.png")
    os.link(tmp_path / "a.png", tmp_path / "hard.png")
    (tmp_path / "to_nothing.png").symlink_to("new.png")
    return tmp_path


SAME = [
    ("in.csv --html in.csv", "--html: 'in.csv' would overwrite FILE 'in.csv'"),
    ("in.csv --html ./folder/../in.csv", "would overwrite FILE 'in.csv'"),
    ("in.csv --html {}/in.csv", "would overwrite FILE 'in.csv'"),
    ("in.csv --html link", "--html: 'link' would overwrite FILE 'in.csv'"),
    ("link --html in.csv", "--html: 'in.csv' would overwrite FILE 'link'"),
    ("in.csv --html to_link", "would overwrite FILE 'in.csv'"),
    ("in.csv --html hard", "would overwrite FILE 'in.csv'"),
    ("folder --html to_folder/events.out.tfevents.1", "would overwrite FILE 'folder/events.out"),
    ("in.png.tmp --out in.png", "--out: 'in.png' would overwrite FILE 'in.png.tmp'"),
    ("in.csv --out a.png --html a.png", "--html: 'a.png' would overwrite --out 'a.png'"),
    ("in.csv --out new.png --html ./new.png", "--html: 'new.png' would overwrite --out 'new.png'"),
    ("in.csv --out a.png --html picture.png", "would overwrite --out 'a.png'"),
    ("in.csv --out to_nothing.png --html new.png", "would overwrite --out 'to_nothing.png'"),
    ("in.csv --out a.png --html hard.png", "would overwrite --out 'a.png'"),
    ("in.csv --out new.png --html new.png.tmp", "would overwrite --out 'new.png'"),
]


SAME_BY_COMMAND = [
    (f"{command} {words}", says)
    for command in ("replay", "sweep", "inspect")
    for words, says in SAME
    if command != "inspect" or "--out" not in words
]


@pytest.mark.parametrize(("words", "says"), SAME_BY_COMMAND, ids=[w for w, _ in SAME_BY_COMMAND])
def test_no_output_overwrites_an_input_or_another(run, files, words, says):
    before = everything_in(files)
    result = run(*words.format(files).split())
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert everything_in(files) == before


def test_a_benchmark_has_two_files_for_its_two_outputs(run, tmp_path):
    result = run("bench", "--out", "a.png", "--json", "../" + tmp_path.name + "/a.png")
    assert result.exit_code == 2
    assert "would overwrite --out 'a.png'" in result.stderr
    assert everything_in(tmp_path) == {}


@pytest.mark.parametrize(("number", "name"), [(1, "stdout"), (2, "stderr")])
@pytest.mark.parametrize("path", ["said", "/dev/std{}"])
def test_no_output_overwrites_what_is_printed(run, files, capfd, number, name, path):
    with capfd.disabled():
        kept = os.dup(number)
        try:
            with open("said", "wb") as said:
                os.dup2(said.fileno(), number)
            result = run("inspect", "in.csv", "--html", path.format(name[3:]))
        finally:
            os.dup2(kept, number)
            os.close(kept)
    assert result.exit_code == 2
    assert f"would overwrite what goes to {name}" in result.stderr
    assert (files / "said").read_bytes() == b""


# -- what is there ----------------------------------------------------------------------------


def save(path, content="new"):
    save_atomically({"step": content}, path)


def draw(path):
    metric = torch.arange(30.0)
    result = replay(metric, record="all", patience=3)
    with outputs.replacing("--out", pathlib.Path(path)) as file:
        draw_replay(metric, result, ["run"], file)


def report(path):
    parts = {"results": None, "rows": None, "findings": [], "labels": ["run"]}
    write_report(pathlib.Path(path), title="t", metric=torch.ones(3), **parts)


def rows(path):
    with bench_command.replacing("--json", pathlib.Path(path)) as file:
        file.write(b'{"rows": None}\n' * 1000)


WRITERS = {"save_atomically": save, "picture": draw, "report": report, "rows": rows}


@pytest.fixture(params=WRITERS)
def write(request):
    """A writer: what it is given is a path."""
    return WRITERS[request.param]


def test_a_link_stays_and_its_file_is_replaced_with_its_mode(write, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    real, link = folder / "file", tmp_path / "link"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("elsewhere/file")
    write(link)
    assert os.readlink(link) == "elsewhere/file"
    assert real.read_bytes() not in (b"", b"old")
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert sorted(everything_in(tmp_path)) == ["elsewhere", "elsewhere/file", "link"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_new_file_has_the_mode_of_any_other(write, tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask


def test_a_link_to_nothing_gets_its_file(run, tmp_path):
    (tmp_path / "in.csv").write_text(TABLE)
    (tmp_path / "page.html").symlink_to("real.html")
    assert run("inspect", "in.csv", "--html", "page.html", "--factor", "7").exit_code == 2
    assert sorted(everything_in(tmp_path)) == ["in.csv", "page.html"]
    assert run("inspect", "in.csv", "--html", "page.html").exit_code == 0
    assert (tmp_path / "page.html").is_symlink()
    assert (tmp_path / "real.html").read_bytes().startswith(b"<!DOCTYPE html>")


def test_a_device_is_written_to_and_stays(write):
    there, device = os.openpty()
    tty.setraw(device)
    path, got = os.ttyname(device), []
    os.set_blocking(there, False)
    stop = threading.Event()

    def listen():
        while True:
            try:
                got.append(os.read(there, 1 << 16))
            except BlockingIOError:
                if stop.is_set():
                    return
                stop.wait(0.001)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        write(path)
        assert stat.S_ISCHR(os.stat(path).st_mode)
    finally:
        stop.set()
        listener.join()
        os.close(there)
        os.close(device)
    assert b"".join(got)


def test_a_fifo_is_written_to_and_stays(write, tmp_path):
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reading, True)

    def read():
        with open(reading, "rb") as file:
            got.append(file.read())

    reader = threading.Thread(target=read)
    with open(fifo, "wb"):  # so that it does not end before it begins
        reader.start()
        write(fifo)
    reader.join()
    write(tmp_path / "file")
    assert len(got[0]) == (tmp_path / "file").stat().st_size
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_fifo_that_nobody_reads_is_refused_at_once(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(OSError, match="nobody reads from it"):
        save(fifo)
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("kind", ["folder", "socket"])
def test_what_is_neither_a_file_nor_a_stream_is_refused(run, tmp_path, kind):
    (tmp_path / "in.csv").write_text(TABLE)
    if kind == "folder":
        (tmp_path / "there").mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("there")
    before = (tmp_path / "there").stat()
    result = run("inspect", "in.csv", "--html", "there")
    assert result.exit_code == 2
    assert ("Is a directory" if kind == "folder" else "neither a file nor") in result.stderr
    assert os.path.samestat((tmp_path / "there").stat(), before)
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "there"]


# -- what goes wrong --------------------------------------------------------------------------


@contextmanager
def room_for(size):
    """No file may be longer than this: what a full disk is, without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def fails(path, write):
    """Write, which must fail; return what was said. The old file stays, and nothing else."""
    folder = path.parent
    before = everything_in(folder)
    errors = []
    try:
        write(path)
    except BaseException as error:
        errors.append(error)
    assert len(errors) == 1, "it was written"
    assert everything_in(folder) == before
    return errors[0]


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("size", [200, 600])  # stderr is a file, too
def test_a_full_disk_leaves_the_old_file(write, tmp_path, size, old, capfd):
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    with room_for(size):
        error = fails(path, write)
    said = f"{error} {capfd.readouterr().err}"
    assert "File too large" in said


def test_what_torch_says_of_a_full_disk_is_what_the_system_says(tmp_path):
    with room_for(1 << 16), pytest.raises(OSError, match="File too large"):
        save_atomically(torch.zeros(1 << 16), tmp_path / "file")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["fsync", "replace", "open"])
def test_a_system_that_refuses_leaves_the_old_file(write, tmp_path, monkeypatch, name, capfd):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")  # root may do all that modes forbid

    module, real = (builtins, builtins.open) if name == "open" else (os, None)
    if name == "open":

        def refuse_temporary(file, *rest, **more):
            return refuse() if str(file).endswith(".tmp") else real(file, *rest, **more)

        monkeypatch.setattr(module, name, refuse_temporary)
    else:
        monkeypatch.setattr(module, name, refuse)
    error = fails(path, write)
    monkeypatch.undo()
    assert "Permission denied" in f"{error} {capfd.readouterr().err}"


def test_a_folder_that_cannot_be_flushed_is_no_failure(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *rest, **more):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    save(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_a_stop_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def stopped(path):
        with replacing(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    assert isinstance(fails(path, stopped), KeyboardInterrupt)


def test_of_two_who_write_one_file_neither_writes_a_half(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    first = replacing(path)
    first.__enter__().write(b"first")
    with replacing(path) as second:
        second.write(b"sec")
        second.flush()
        with pytest.raises(FileExistsError, match="another process saves to it"):
            first.__exit__(None, None, None)
        assert path.read_bytes() == b"old"
        second.write(b"ond")
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["file"]


def test_rows_that_a_full_disk_has_no_room_for_are_all_left_out(tmp_path):
    path = tmp_path / "lanes.csv"
    log = LaneLog(PlateauLanes(3, 0.1), path=path)
    log.write(0, [1.0, 2.0, 3.0])
    size = path.stat().st_size
    with room_for(size + 30):
        error = fails(path, lambda _: log.write(1, [1.0, 2.0, 3.0]))
    assert "File too large" in str(error)
    log.write(1, [1.0, 2.0, 3.0])
    steps = [line.split(",")[0] for line in path.read_text().splitlines()]
    assert steps == ["step", *"000111"]


@pytest.mark.parametrize("torn", [1, 2, 7, -3])
def test_a_row_that_a_kill_cut_short_is_dropped(tmp_path, torn):
    path = tmp_path / "lanes.csv"
    lanes = PlateauLanes(1, 0.1)
    log = LaneLog(lanes, path=path)
    log.write(0, [0.5])
    log.write(1, [0.25])
    whole = path.read_bytes()
    if torn < 0:  # the header
        path.write_bytes(whole[: len("step,lane")])
        LaneLog(lanes, path=path)
        assert path.read_bytes() == whole[: whole.index(b"\n") + 1]
    else:
        path.write_bytes(whole[:-torn])
        LaneLog(lanes, path=path).write(1, [0.25])
        assert path.read_bytes() == whole


def test_a_file_that_is_not_of_lanes_is_not_cut(tmp_path):
    path = tmp_path / "lanes.csv"
    path.write_bytes(b"step,lr\n1,2\n3,4")
    with pytest.raises(ValueError, match="path: expected a file of"):
        LaneLog(PlateauLanes(1, 0.1), path=path)
    assert path.read_bytes() == b"step,lr\n1,2\n3,4"


def killed_at(name, folder):
    """Die at a step of writing a file."""
    path = folder / "file"

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    if name == "end":
        path_open = os.open
        os.open = lambda path, *rest, **more: (
            die() if os.path.isdir(path) else path_open(path, *rest, **more)
        )
    elif name != "write":
        setattr(os, name, die)
    with replacing(path) as file:
        file.write(b"n" * 100_000)
        if name == "write":
            die()
        file.write(b"n" * 100_000)


STEPS = {"write": b"old", "fsync": b"old", "replace": b"old", "end": b"n" * 200_000}


def test_a_kill_at_any_step_leaves_the_old_file_or_the_new(tmp_path):
    done = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == dict.fromkeys(STEPS, -signal.SIGKILL)
    for step, there in STEPS.items():
        path = tmp_path / step / "file"
        assert path.read_bytes() == there
        left = set(os.listdir(tmp_path / step)) - {"file"}
        assert left == ({"file.tmp"} if there == b"old" else set())
        save(path)
        assert os.listdir(tmp_path / step) == ["file"]


if __name__ == "__main__":
    ended = {}
    for step in STEPS:
        place = pathlib.Path(sys.argv[1], step)
        place.mkdir()
        (place / "file").write_bytes(b"old")
        child = os.fork()
        if child == 0:
            killed_at(step, place)
            os._exit(1)
        ended[step] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout.write(json.dumps(ended))
