"""The second program of the question: a Queue is passed to a child, and pickled.

    python -m kinfolk question_queue.py fork|spawn|forkserver

The standard library refuses pickle.dumps(queue): "Queue objects should only be
shared between processes through inheritance".
"""

import pickle
import sys
from multiprocessing import Process, Queue, set_start_method


def worker(queue):
    queue.put("greetings from the child")


if __name__ == "__main__":
    set_start_method(sys.argv[1])
    queue = Queue()

    data = pickle.dumps(queue)
    print("pickle.dumps(queue):", len(data), "bytes")

    process = Process(target=worker, args=(queue,))
    process.start()
    print("from the queue:", queue.get())
    process.join()

    queue.put("the same queue")
    print("from what pickle.loads made of the bytes:", pickle.loads(data).get())
    sys.exit(process.exitcode)
