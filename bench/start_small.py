"""A program with a small main module: `python start_small.py PACKAGE METHOD COUNT`.

Prints the milliseconds that a start and join takes, by METHOD: fork, spawn or forkserver; `bare`,
os.fork() and os._exit(); or `pass`, a run of `python -c pass`.  With `memory`: the megabytes of
COUNT idle children by forkserver, each page's share (PSS).
"""

import importlib
import sys
import time


def nothing():
    pass


def start_and_join(package, method):
    process = importlib.import_module(package).get_context(method).Process(target=nothing)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"a child by {method} failed")


def fork_and_wait():
    import os

    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def run_pass():
    import subprocess

    subprocess.run([sys.executable, "-c", "pass"], check=True)


def idle(here, go):
    here.send(1)
    go.recv()


def pss(pid):
    """Kilobytes of a process's memory, with its share of what it shares."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def memory(package, count):
    context = importlib.import_module(package).get_context("forkserver")
    children = []
    for _ in range(count):
        (here, say_here), (wait, go) = context.Pipe(False), context.Pipe(False)
        child = context.Process(target=idle, args=(say_here, wait))
        child.start()
        here.recv()
        children.append((child, go))
    total = sum(pss(child.pid) for child, _ in children) / 1024
    for child, go in children:
        go.send(1)
        child.join()
    return total


def main(package, method, count):
    if method == "memory":
        print(memory(package, int(count)))
        return

    def once():
        if method == "bare":
            fork_and_wait()
        elif method == "pass":
            run_pass()
        else:
            start_and_join(package, method)

    once()
    began = time.perf_counter()
    for _ in range(int(count)):
        once()
    print((time.perf_counter() - began) / int(count) * 1e3)


if __name__ == "__main__":
    main(*sys.argv[1:])
