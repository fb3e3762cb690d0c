"""The cases of starting processes: start and join of a child that does nothing.

What a child costs depends on the main module, so these measure programs of their own: a small one,
and one that imports numpy.
"""

import os
import subprocess
import sys

from cases import case

FOLDER = os.path.dirname(os.path.abspath(__file__))


def run(program, mp, method, count):
    done = subprocess.run(
        [sys.executable, os.path.join(FOLDER, program), mp.__name__, method, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout)


@case("ms")
def start_fork(mp):
    return run("start_small.py", mp, "fork", 100)


@case("ms")
def start_spawn(mp):
    return run("start_small.py", mp, "spawn", 10)


@case("ms")
def start_forkserver(mp):
    return run("start_small.py", mp, "forkserver", 50)


@case("ms")
def start_fork_numpy(mp):
    return run("start_numpy.py", mp, "fork", 50)


@case("ms")
def start_spawn_numpy(mp):
    return run("start_numpy.py", mp, "spawn", 5)


@case("ms")
def start_forkserver_numpy(mp):
    return run("start_numpy.py", mp, "forkserver", 20)


@case("MB")
def memory_of_20_forkserver(mp):
    return run("start_small.py", mp, "memory", 20)


@case("MB")
def memory_of_20_forkserver_numpy(mp):
    return run("start_numpy.py", mp, "memory", 20)
