"""kinfolk.futures.ProcessPoolExecutor: the standard library's rules, and what it has beyond them."""

import asyncio
import concurrent.futures
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import kinfolk
from kinfolk.futures import BrokenProcessPool, ProcessPoolExecutor, WorkerDied

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture(params=METHODS)
def ctx(request):
    return kinfolk.get_context(request.param)


def double(x, *, plus=0):
    return 2 * x + plus


def add(x, y):
    return x + y


def fail(x):
    raise LookupError(x)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(_):
    os._exit(0)


def die_once(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "the second time"
    return die(None)


def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.001)
    return path


def mark_and_wait(mark, path):
    open(mark, "w").close()
    return wait_for(path)


def pid(_=None):
    return os.getpid()


def refuse():
    raise ArithmeticError("not fit")


given = None


def set_given(value):
    global given
    given = value


def get_given():
    return given


def test_submit(ctx):
    with ProcessPoolExecutor(2, ctx) as executor:
        future = executor.submit(double, 4, plus=1)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result() == 9
        assert future.done() and not future.running() and not future.cancelled()
        assert future.exception() is None
        assert not future.cancel()


def test_an_exception_comes_with_its_traceback(ctx):
    with ProcessPoolExecutor(1, ctx) as executor:
        future = executor.submit(fail, "this")
        with pytest.raises(LookupError, match="this") as caught:
            future.result()
        assert "in fail" in str(caught.value.__cause__)
        assert future.exception() is caught.value


def test_a_thousand_at_once(ctx):
    with ProcessPoolExecutor(3, ctx) as executor:
        futures = [executor.submit(double, i) for i in range(1000)]
        assert [future.result() for future in futures] == [2 * i for i in range(1000)]


def test_as_completed_and_wait(ctx):
    with ProcessPoolExecutor(2, ctx) as executor:
        futures = {executor.submit(double, i) for i in range(20)}
        found = {future.result() for future in concurrent.futures.as_completed(futures)}
        assert found == {2 * i for i in range(20)}
        done, left = concurrent.futures.wait(futures)
        assert done == futures and not left


def test_callbacks():
    with ProcessPoolExecutor(1, kinfolk.get_context("fork")) as executor:
        heard = []
        there = threading.Event()
        future = executor.submit(double, 3)
        future.add_done_callback(lambda f: (heard.append(f.result()), there.set()))
        assert there.wait(60)
        assert heard == [6]


@pytest.mark.parametrize("chunksize", [1, 3, 100])
@pytest.mark.parametrize("buffersize", [None, 1, 4])
def test_map(chunksize, buffersize):
    with ProcessPoolExecutor(2) as executor:
        found = executor.map(
            add, range(20), range(100, 130), chunksize=chunksize, buffersize=buffersize
        )
        assert list(found) == [100 + 2 * i for i in range(20)]
        assert list(executor.map(double, [])) == []


def test_map_takes_no_more_than_its_buffer():
    taken = []

    def numbers():
        for i in range(100):
            taken.append(i)
            yield i

    with ProcessPoolExecutor(2) as executor:
        found = executor.map(double, numbers(), buffersize=5)
        assert len(taken) == 5
        assert [next(found) for _ in range(3)] == [0, 2, 4]
        assert len(taken) == 8
        found.close()


def test_map_raises_in_its_place():
    with ProcessPoolExecutor(2) as executor:
        found = executor.map(fail, "ab")
        with pytest.raises(LookupError, match="a"):
            next(found)
        with pytest.raises(StopIteration):
            next(found)


def test_map_with_a_timeout(tmp_path):
    with ProcessPoolExecutor(1) as executor:
        found = executor.map(wait_for, [tmp_path / "go"], timeout=0.01)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(found)
        (tmp_path / "go").touch()


def test_result_with_a_timeout(tmp_path):
    with ProcessPoolExecutor(1) as executor:
        future = executor.submit(wait_for, tmp_path / "go")
        with pytest.raises(concurrent.futures.TimeoutError):
            future.result(0.01)
        (tmp_path / "go").touch()
        assert future.result() == tmp_path / "go"


def test_cancel(tmp_path, ctx):
    with ProcessPoolExecutor(1, ctx) as executor:
        first = executor.submit(mark_and_wait, tmp_path / "mark", tmp_path / "go")
        later = [executor.submit(double, i) for i in range(10)]
        wait_for(tmp_path / "mark")
        assert first.running()
        assert not first.cancel()
        assert not later[3].running()
        assert later[3].cancel()
        assert later[3].cancel()
        assert later[3].cancelled() and later[3].done()
        with pytest.raises(concurrent.futures.CancelledError):
            later[3].result()
        (tmp_path / "go").touch()
        del later[3]
        assert [future.result() for future in later] == [0, 2, 4, 8, 10, 12, 14, 16, 18]


def test_cancel_of_what_lies_in_a_workers_line(tmp_path):
    """Quick calls first, so that a worker is given many ahead."""
    with ProcessPoolExecutor(1) as executor:
        for future in [executor.submit(double, i) for i in range(500)]:
            future.result()
        first = executor.submit(mark_and_wait, tmp_path / "mark", tmp_path / "go")
        later = [executor.submit(double, i) for i in range(100)]
        wait_for(tmp_path / "mark")
        assert all(future.cancel() for future in later[::2])
        (tmp_path / "go").touch()
        assert [future.result() for future in later[1::2]] == [2 * i for i in range(1, 100, 2)]
        assert first.result()


def test_shutdown_finishes_what_was_submitted(ctx):
    executor = ProcessPoolExecutor(2, ctx)
    futures = [executor.submit(double, i) for i in range(50)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)
    executor.shutdown()


def test_shutdown_that_cancels(tmp_path):
    executor = ProcessPoolExecutor(1)
    first = executor.submit(mark_and_wait, tmp_path / "mark", tmp_path / "go")
    later = [executor.submit(double, i) for i in range(10)]
    wait_for(tmp_path / "mark")
    executor.shutdown(wait=False, cancel_futures=True)
    assert all(future.cancelled() for future in later)
    (tmp_path / "go").touch()
    assert first.result()
    executor.shutdown()


def test_unused():
    executor = ProcessPoolExecutor(2)
    executor.shutdown()
    with ProcessPoolExecutor(2):
        pass


@pytest.mark.parametrize("how", [die, leave])
def test_a_death_breaks_it(tmp_path, ctx, how):
    executor = ProcessPoolExecutor(2, ctx)
    other = executor.submit(wait_for, tmp_path / "never")
    future = executor.submit(how, 1)
    with pytest.raises(BrokenProcessPool, match="terminated abruptly") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, WorkerDied)
    with pytest.raises(BrokenProcessPool):
        other.result()
    with pytest.raises(BrokenProcessPool):
        executor.submit(double, 1)
    executor.shutdown()


def test_a_death_of_an_idle_worker_breaks_it(ctx):
    executor = ProcessPoolExecutor(1, ctx)
    os.kill(executor.submit(pid).result(), signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        while True:
            executor.submit(double, 1).result()
    executor.shutdown()


def test_isolated(ctx):
    with ProcessPoolExecutor(2, ctx, isolate=True) as executor:
        futures = [executor.submit(die if i == 5 else double, i) for i in range(10)]
        with pytest.raises(WorkerDied, match="SIGKILL"):
            futures[5].result()
        del futures[5]
        assert [future.result() for future in futures] == [0, 2, 4, 6, 8, 12, 14, 16, 18]


def test_retries(tmp_path, ctx):
    with ProcessPoolExecutor(2, ctx, retries=1) as executor:
        assert executor.submit(die_once, tmp_path / "mark").result() == "the second time"


def test_initializer(ctx):
    with ProcessPoolExecutor(2, ctx, set_given, ("this",)) as executor:
        assert {executor.submit(get_given).result() for _ in range(10)} == {"this"}


def test_an_initializer_that_raises(ctx, capfd):
    with ProcessPoolExecutor(2, ctx, refuse) as executor:
        future = executor.submit(double, 1)
        with pytest.raises(BrokenProcessPool) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, ArithmeticError)
        with pytest.raises(BrokenProcessPool):
            executor.submit(double, 1)
    capfd.readouterr()  # the workers' tracebacks


@pytest.mark.parametrize("method", [None, "spawn", "forkserver"])
def test_max_tasks_per_child(method):
    ctx = method and kinfolk.get_context(method)
    with ProcessPoolExecutor(1, ctx, max_tasks_per_child=3) as executor:
        found = [executor.submit(pid).result() for _ in range(7)]
        assert len(set(found)) == 3


def test_workers_are_started_when_they_are_needed():
    with ProcessPoolExecutor(4, kinfolk.get_context("spawn")) as executor:
        for _ in range(10):
            executor.submit(double, 1).result()
        assert len(executor._processes) == 1


@pytest.mark.parametrize("how", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(tmp_path, how):
    executor = ProcessPoolExecutor(1)
    first = executor.submit(mark_and_wait, tmp_path / "mark", tmp_path / "never")
    later = executor.submit(double, 1)
    wait_for(tmp_path / "mark")
    getattr(executor, how)()
    with pytest.raises(BrokenProcessPool):
        first.result()
    assert later.cancelled()
    executor.shutdown()
    with pytest.raises(RuntimeError):
        executor.submit(double, 1)


def test_in_asyncio():
    async def main(executor):
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(loop.run_in_executor(executor, double, i) for i in range(20)))

    with ProcessPoolExecutor(2) as executor:
        assert asyncio.run(main(executor)) == [2 * i for i in range(20)]


def test_arguments_that_do_not_pickle():
    with ProcessPoolExecutor(1) as executor:
        with pytest.raises(TypeError):
            executor.submit(double, (i for i in ())).result()
        assert executor.submit(double, 1).result() == 2


class Stubborn:
    def __init__(self, where, exc):
        self.where, self.exc = where, exc

    def __reduce__(self):
        if self.where == "pickle":
            raise self.exc
        return throw, (self.exc,)


def throw(exc):
    raise exc


@pytest.mark.parametrize("isolate", [False, True])
@pytest.mark.parametrize("exc", [LookupError("no"), SystemExit(3)], ids=repr)
def test_what_cannot_be_pickled_fails_alone(isolate, exc):
    with ProcessPoolExecutor(1, isolate=isolate) as executor:
        with pytest.raises(type(exc)) as caught:
            executor.submit(Stubborn, "pickle", exc).result()
        assert caught.value.args == exc.args
        with pytest.raises(type(exc)):
            executor.submit(throw, exc).result()
        assert executor.submit(double, 1).result() == 2


def test_what_cannot_be_unpickled_breaks_it(capfd):
    for call in [
        (double, Stubborn("unpickle", LookupError("no"))),
        (Stubborn, "unpickle", LookupError("no")),
    ]:
        with ProcessPoolExecutor(1) as executor:
            with pytest.raises(BrokenProcessPool):
                executor.submit(*call).result()
    capfd.readouterr()  # a worker's traceback


def test_what_cannot_be_unpickled_fails_alone_if_isolated():
    with ProcessPoolExecutor(1, isolate=True) as executor:
        with pytest.raises(LookupError, match="no"):
            executor.submit(double, Stubborn("unpickle", LookupError("no"))).result()
        with pytest.raises(Exception, match="cannot be unpickled"):
            executor.submit(Stubborn, "unpickle", LookupError("no")).result()
        assert executor.submit(double, 1).result() == 2


def test_a_lambda_is_welcome():
    with ProcessPoolExecutor(1, kinfolk.get_context("spawn")) as executor:
        assert executor.submit(lambda x: x + 1, 1).result() == 2


def run(program):
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("first", ["concurrent.futures", "kinfolk.futures"])
def test_a_program_left_as_it_is_has_this_one(tmp_path, first):
    (tmp_path / "program.py").write_text(
        f"import {first}\n"
        "from concurrent.futures import ProcessPoolExecutor, process\n"
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    assert process.ProcessPoolExecutor is ProcessPoolExecutor\n"
        "    print(ProcessPoolExecutor.__module__)\n"
        "    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as executor:\n"
        "        print(list(executor.map(abs, [-1, 1, -2], chunksize=2)))\n"
    )
    command = [sys.executable, "-m", "kinfolk", str(tmp_path / "program.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("kinfolk.futures\n[1, 1, 2]\n", "")


def test_the_end_of_the_program_waits_for_what_was_submitted():
    done = run(
        "from kinfolk.futures import ProcessPoolExecutor\n"
        "import time\n"
        "def say(): time.sleep(0.05); print('done', flush=True)\n"
        "e = ProcessPoolExecutor(1)\n"
        "f = [e.submit(say) for _ in range(3)]\n"
    )
    assert (done.stdout, done.stderr) == ("done\n" * 3, "")


@pytest.mark.parametrize("how", ["", ".shutdown(wait=False)"])
def test_the_end_of_the_program_waits_for_those_that_are_forgotten(how):
    done = run(
        "from kinfolk.futures import ProcessPoolExecutor\n"
        "import time\n"
        "def say(): time.sleep(0.2); print('done', flush=True)\n"
        "def start():\n"
        "    e = ProcessPoolExecutor(1)\n"
        "    e.submit(say)\n"
        f"    e{how}\n"
        "start()\n"
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_one_that_is_forgotten_finishes():
    executor = ProcessPoolExecutor(1)
    futures = [executor.submit(double, i) for i in range(20)]
    del executor
    assert [future.result() for future in futures] == [2 * i for i in range(20)]


def test_in_a_forked_child_it_is_nobodys():
    with ProcessPoolExecutor(1) as executor:
        executor.submit(double, 1).result()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                executor.submit(double, 1)
            except RuntimeError as exc:
                code = 0 if "process" in str(exc) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"max_workers": 0}, ValueError),
        ({"max_workers": -1}, ValueError),
        ({"initializer": 3}, TypeError),
        ({"max_tasks_per_child": 0}, ValueError),
        ({"max_tasks_per_child": 1.5}, TypeError),
        ({"max_tasks_per_child": 1, "mp_context": kinfolk.get_context("fork")}, ValueError),
        ({"retries": -1}, ValueError),
    ],
    ids=str,
)
def test_arguments_that_cannot_be(arguments, error):
    with pytest.raises(error):
        ProcessPoolExecutor(**arguments)


@pytest.mark.parametrize(
    "arguments, error",
    [
        ({"chunksize": 0}, ValueError),
        ({"buffersize": 0}, ValueError),
        ({"buffersize": 1.0}, TypeError),
    ],
    ids=str,
)
def test_arguments_of_map_that_cannot_be(arguments, error):
    with ProcessPoolExecutor(1) as executor, pytest.raises(error):
        executor.map(double, [1], **arguments)
