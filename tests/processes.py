"""A test file as a script that is two processes of gloo."""

import json
import os
import socket
import subprocess
import sys


def in_two_processes(script, *arguments):
    """Run it as ranks 0 and 1; return the JSON that each prints last, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, script, *arguments],
            env={**shared, "MASTER_PORT": str(port), "RANK": str(i), "LOCAL_RANK": str(i)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    said = [each.communicate(timeout=120)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0]
    return [json.loads(each.splitlines()[-1]) for each in said]
