"""aget(), aput() and `async for`: queues in asyncio, without a thread."""

import asyncio
import os
import queue as stdlib
import threading

import pytest

import kinfolk

DEADLINE = 60


def run(coroutine):
    async def limited():
        return await asyncio.wait_for(coroutine, DEADLINE)

    return asyncio.run(limited())


@pytest.fixture(params=("Queue", "JoinableQueue", "SimpleQueue"))
def queue(request):
    return getattr(kinfolk, request.param)()


def put_all(queue, items, shut=False):
    for item in items:
        queue.put(item)
    if shut:
        queue.shutdown()


def test_what_is_there(queue):
    async def main():
        await queue.aput("a")
        await queue.aput("b")
        return await queue.aget(), await queue.aget()

    assert run(main()) == ("a", "b")


@pytest.mark.parametrize("method", ("fork", "spawn", "forkserver"))
def test_what_another_process_puts(method):
    ctx = kinfolk.get_context(method)
    queue = ctx.Queue()

    async def main():
        child = ctx.Process(target=put_all, args=(queue, range(300)))
        child.start()
        got = [await queue.aget() for _ in range(300)]
        child.join()
        return got

    assert run(main()) == list(range(300))


def test_iteration_ends_with_the_queue(queue):
    async def main():
        child = kinfolk.Process(target=put_all, args=(queue, range(300), True))
        child.start()
        got = [item async for item in queue]
        child.join()
        with pytest.raises(EOFError):
            await queue.aget()
        with pytest.raises(EOFError):
            await queue.aput(1)
        return got

    assert run(main()) == list(range(300))


def test_a_shutdown_ends_what_waits():
    full, empty = kinfolk.Queue(1), kinfolk.Queue()
    full.put(1)

    async def main():
        tasks = [asyncio.ensure_future(empty.aget()) for _ in range(3)]
        tasks += [asyncio.ensure_future(full.aput(n)) for n in range(3)]
        await asyncio.sleep(0)
        full.shutdown()
        empty.shutdown()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        return [type(end).__name__ for end in ends]

    assert run(main()) == ["ShutDown"] * 6


def test_room():
    queue = kinfolk.Queue(2)

    async def produce():
        for n in range(300):
            await queue.aput(n)
        queue.shutdown()

    async def consume():
        return [item async for item in queue]

    async def main():
        return await asyncio.gather(consume(), produce())

    assert run(main())[0] == list(range(300))


def test_room_in_bytes():
    queue = kinfolk.Queue(max_bytes=5000)

    async def produce(letter):
        for _ in range(50):
            await queue.aput(letter * 2000)

    async def consume():
        return sorted([(await queue.aget())[0] for _ in range(100)])

    async def main():
        return (await asyncio.gather(consume(), produce("a"), produce("b")))[0]

    assert run(main()) == ["a"] * 50 + ["b"] * 50


def test_many_tasks_are_served_in_turn():
    queue = kinfolk.Queue()

    async def main():
        tasks = [asyncio.ensure_future(queue.aget()) for _ in range(20)]
        await asyncio.sleep(0)
        put_all(queue, range(20))
        return await asyncio.gather(*tasks)

    assert run(main()) == list(range(20))


def test_who_comes_late_waits_behind():
    queue = kinfolk.Queue()

    async def main():
        first = asyncio.ensure_future(queue.aget())
        await asyncio.sleep(0)
        queue.put(1)
        second = asyncio.ensure_future(queue.aget())
        assert await first == 1
        queue.put(2)
        return await second

    assert run(main()) == 2


def test_cancelling_loses_nothing():
    """Whatever is cancelled, and when: each object is got once."""
    queue = kinfolk.Queue()
    got = []

    async def take():
        got.append(await queue.aget())

    async def main():
        for n in range(200):
            tasks = [asyncio.ensure_future(take()) for _ in range(3)]
            for _ in range(n % 5):
                await asyncio.sleep(0)
            queue.put(n)
            for _ in range(n // 5 % 5):
                await asyncio.sleep(0)
            tasks[0].cancel()
            tasks[1].cancel()
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        while not queue.empty():
            got.append(queue.get_nowait())

    run(main())
    assert sorted(got) == list(range(200))


def test_a_woken_task_that_is_cancelled_wakes_the_next():
    queue = kinfolk.Queue()

    async def main():
        first, second = (asyncio.ensure_future(queue.aget()) for _ in range(2))
        await asyncio.sleep(0)
        bell = kinfolk._queue_async._bells[asyncio.get_running_loop()]
        queue.put("x")
        bell.rung()  # the first is woken, and has not run yet
        first.cancel()
        assert await second == "x"
        with pytest.raises(asyncio.CancelledError):
            await first

    run(main())


def test_a_time_limit():
    queue = kinfolk.Queue()

    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(queue.aget(), 0.01)
        queue.put(1)
        return await queue.aget()

    assert run(main()) == 1
    assert queue.empty()


def test_errors_go_to_who_asked():
    queue = kinfolk.Queue()

    async def main():
        with pytest.raises(ZeroDivisionError):
            await queue.aput(Unsendable())
        queue.close()
        for use in (queue.aget(), queue.aput(1)):
            with pytest.raises(ValueError, match="closed"):
                await use

    run(main())


class Unsendable:
    def __reduce__(self):
        raise ZeroDivisionError


def test_two_handles_of_one_queue():
    queue = kinfolk.Queue()
    dumps, loads = kinfolk.reduction.ForkingPickler.dumps, kinfolk.reduction.ForkingPickler.loads
    twin = loads(dumps(queue))

    async def main():
        one = asyncio.ensure_future(queue.aget())
        other = asyncio.ensure_future(twin.aget())
        await asyncio.sleep(0)
        other.cancel()
        await asyncio.sleep(0)
        queue.put(1)
        return await one

    assert run(main()) == 1


def test_several_loops_in_threads():
    queue = kinfolk.Queue()
    got = []

    async def take():
        async for item in queue:
            got.append(item)

    threads = [threading.Thread(target=run, args=(take(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    put_all(queue, range(400), shut=True)
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(got) == list(range(400))


def test_a_loop_that_is_closed_meanwhile():
    """Its tasks go; the queue, and the next loop, are as before."""
    queue = kinfolk.Queue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(queue.aget())
    loop.run_until_complete(asyncio.sleep(0))
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    queue.put(1)

    async def main():
        waiting = asyncio.ensure_future(queue.aget())
        assert await waiting == 1
        return queue.empty()

    assert run(main())


def test_beside_add_reader():
    """The queue's own descriptor in a loop, as programs have it today."""
    queue = kinfolk.Queue()

    async def main():
        loop = asyncio.get_running_loop()
        got, done = [], loop.create_future()

        def read():
            try:
                got.append(queue.get_nowait())
            except stdlib.Empty:
                return
            if len(got) == 100 and not done.done():
                done.set_result(None)

        loop.add_reader(queue._reader.fileno(), read)
        child = kinfolk.Process(target=put_all, args=(queue, range(100)))
        child.start()
        await done
        loop.remove_reader(queue._reader.fileno())
        child.join()
        return got

    assert run(main()) == list(range(100))


def test_a_forked_child_has_loops_of_its_own():
    queue, answers = kinfolk.Queue(), kinfolk.Queue()

    async def main():
        waiting = asyncio.ensure_future(queue.aget())
        await asyncio.sleep(0)
        child = kinfolk.Process(target=in_child, args=(queue, answers))
        child.start()
        assert await answers.aget() == "ready"
        await queue.aput("one")
        await queue.aput("two")
        got = {await waiting, await answers.aget()}
        child.join()
        return got

    assert run(main()) == {"one", "two"}


def in_child(queue, answers):
    async def main():
        await answers.aput("ready")
        await answers.aput(await queue.aget())

    asyncio.run(main())


def test_no_thread_and_one_descriptor():
    queues = [kinfolk.Queue() for _ in range(20)]

    async def main():
        before = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
        tasks = [asyncio.ensure_future(queue.aget()) for queue in queues]
        await asyncio.sleep(0)
        now = len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))
        for n, queue in enumerate(queues):
            queue.put(n)
        assert await asyncio.gather(*tasks) == list(range(20))
        return now[0] - before[0], now[1] - before[1]

    assert run(main()) == (0, 1)
