"""A program with a small main module: `python start_small.py PACKAGE METHOD COUNT`.

Prints the milliseconds that a start and join takes, by METHOD: fork, spawn or forkserver; `bare`,
os.fork() and os._exit(); or `pass`, a run of `python -c pass`.
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


def main(package, method, count):
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
