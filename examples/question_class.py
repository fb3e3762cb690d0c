"""The third program of the question: a class that only the main program has.

    python -m kinfolk question_class.py fork|spawn|forkserver

The standard library's spawned child dies with "Can't get attribute 'Foo' on
<module '__mp_main__' ...>".
"""

import pickle
import sys
from multiprocessing import Process, set_start_method


def worker(foo):
    print("the child has a", type(foo).__name__, "of", foo.bar, flush=True)


if __name__ == "__main__":
    set_start_method(sys.argv[1])

    class Foo:
        def __init__(self, bar):
            self.bar = bar

    foo = Foo(42)
    print("pickle.dumps(foo):", len(pickle.dumps(foo)), "bytes", flush=True)

    process = Process(target=worker, args=(foo,))
    process.start()
    process.join()
    sys.exit(process.exitcode)
