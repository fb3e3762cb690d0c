"""A Queue sent through a Queue to a process that was started before it existed.

python -m kinfolk late_queue.py fork|spawn|forkserver
"""

import sys
from multiprocessing import Process, Queue, set_start_method


def worker(errands):
    answers = errands.get()
    answers.put("found my way")


if __name__ == "__main__":
    set_start_method(sys.argv[1])
    errands = Queue()
    process = Process(target=worker, args=(errands,))
    process.start()

    answers = Queue()  # made when the child runs already
    errands.put(answers)
    print("through the late queue:", answers.get())
    process.join()
    sys.exit(process.exitcode)
