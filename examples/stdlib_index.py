"""A real job: which names does the standard library use, and how often?

    python -m kinfolk stdlib_index.py fork|spawn|forkserver [workers] [--check]

Every .py file of the interpreter's own library is read, tokenised and counted
by worker processes that a queue feeds.  Among their arguments are a nested
function and a lambda.  --check: do the same in this one process, and compare.
"""

import argparse
import io
import keyword
import os
import sysconfig
import tokenize
from collections import Counter
from multiprocessing import Process, Queue, cpu_count, set_start_method

from tqdm import tqdm


def library_files():
    top = sysconfig.get_path("stdlib")
    for folder, folders, names in os.walk(top):
        folders[:] = sorted(set(folders) - {"site-packages", "__pycache__"})
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.join(folder, name)


def count_names(path, read, is_name):
    """The names in one file; a file that is no valid Python counts as far as it goes."""
    counts = Counter()
    try:
        for token in tokenize.generate_tokens(io.StringIO(read(path)).readline):
            if token.type == tokenize.NAME and is_name(token.string):
                counts[token.string] += 1
    except (tokenize.TokenError, SyntaxError):
        pass
    return counts


def work(tasks, results, read, is_name):
    for path in iter(tasks.get, None):
        results.put(count_names(path, read, is_name))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["fork", "spawn", "forkserver"])
    parser.add_argument("workers", type=int, nargs="?", default=cpu_count())
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    set_start_method(options.method)

    def read(path):
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()

    is_name = lambda text: not keyword.iskeyword(text)  # noqa: E731

    tasks, results = Queue(), Queue()
    workers = [
        Process(target=work, args=(tasks, results, read, is_name), daemon=True)
        for _ in range(options.workers)
    ]
    for worker in workers:
        worker.start()
    paths = list(library_files())
    for path in paths:
        tasks.put(path)
    for _ in workers:
        tasks.put(None)

    total = Counter()
    for _ in tqdm(paths, desc=f"index ({options.method})", unit="file"):
        total.update(results.get())
    for worker in workers:
        worker.join()
    common = ", ".join(f"{name} {count}" for name, count in total.most_common(5))
    print(
        f"{len(paths)} files, {total.total() if hasattr(total, 'total') else sum(total.values())}"
        f" names, {len(total)} different: {common}"
    )
    if not options.check:
        return
    alone = Counter()
    for path in tqdm(paths, desc="index (one process)", unit="file"):
        alone.update(count_names(path, read, is_name))
    if alone != total:
        raise SystemExit("the workers' totals are wrong")
    print("one process alone counts the same")


if __name__ == "__main__":
    main()
