"""A thousand starts by the fork server, many at a time: none fails, and no descriptor is left."""

import os
import threading

import kinfolk
from kinfolk.forkserver import _forkserver

BATCHES, AT_ONCE, THREADS = 5, 25, 8


def count_fds(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def start_one(ctx):
    child = ctx.Process(target=int)
    child.start()
    child.join()
    child.close()


def start_batches(ctx, failed):
    for _ in range(BATCHES):
        children = [ctx.Process(target=int) for _ in range(AT_ONCE)]
        for child in children:
            child.start()
        for child in children:
            child.join()
            if child.exitcode != 0:
                failed.append(child.exitcode)
            child.close()


def test_a_thousand_starts():
    ctx = kinfolk.get_context("forkserver")
    start_one(ctx)
    server = _forkserver._forkserver_pid
    before = count_fds(os.getpid())
    failed = []
    threads = [
        threading.Thread(target=start_batches, args=(ctx, failed), daemon=True)
        for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert count_fds(os.getpid()) == before
    # Its own few, and two for the child that it keeps ready; it may be busy with the last ones yet.
    while count_fds(server) > 12:
        start_one(ctx)
    assert _forkserver._forkserver_pid == server  # it was the same one all the time
