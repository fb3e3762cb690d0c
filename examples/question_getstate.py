"""The first program of the question: what is pickled, and when?

    python -m kinfolk question_getstate.py fork|spawn|forkserver

A forked child gets the object from its parent's memory, the others by a message.
"""

import multiprocessing
import sys


class Foobar:
    def __init__(self):
        self.name = "foobar"

    def __getstate__(self):
        print("I'm being pickled!", flush=True)
        return self.__dict__


def worker(foobar):
    print("the child has", foobar.name, flush=True)


if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    process = multiprocessing.Process(target=worker, args=(Foobar(),))
    process.start()
    process.join()
    sys.exit(process.exitcode)
