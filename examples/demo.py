"""What `make demo` runs: the programs of the question, then a real job.

Each is an ordinary program that says `import multiprocessing`; here it runs as
`python -m kinfolk program.py`, under each of the three ways to start a child.
"""

import os
import subprocess
import sys
import time

from rich.console import Console
from rich.markup import escape
from rich.rule import Rule

HERE = os.path.dirname(os.path.abspath(__file__))
METHODS = ["fork", "spawn", "forkserver"]
console = Console(highlight=False)

QUESTION = [
    (
        "question_getstate.py",
        "What is pickled, and when?",
        {
            "fork": "The child inherited it with its parent's memory: nothing was pickled.",
            "spawn": "A fresh interpreter has nothing to inherit: the object was pickled, once.",
            "forkserver": "The child came from a clean template: the object was pickled, once.",
        },
    ),
    (
        "question_queue.py",
        "A Queue is passed to a child, and pickled by pickle.dumps",
        "The Queue lives in the family's arena; its pickle is its name there. It works any time.\n"
        "(The standard library: RuntimeError: Queue objects should only be shared ...)",
    ),
    (
        "question_class.py",
        "A class that only the main program has, under its guard",
        "The class went by reference, with its value as the spare where the name is not found.\n"
        "(The standard library, unless forked: AttributeError: Can't get attribute 'Foo' ...)",
    ),
    (
        "late_queue.py",
        "A Queue through a Queue, to a process older than it",
        "All that a child inherits is the family, once; what is made later travels by name.\n"
        "(The standard library: lost in a background thread, and the child waits for ever.)",
    ),
]


def run(program, method, *options):
    """Run it; show what it prints.  Returns its standard output."""
    command = [sys.executable, "-m", "kinfolk", os.path.join(HERE, program), method, *options]
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=1200)
    took = time.monotonic() - began
    console.print(f"[bold]{method:>10}[/]  [dim]{took:.2f} s[/]")
    for line in done.stdout.splitlines():
        console.print("            " + escape(line))
    if done.returncode:
        raise SystemExit(f"{program} under {method} ended with {done.returncode}")
    return done.stdout


def main():
    console.print(
        f"kinfolk under Python {sys.version.split()[0]}: {len(QUESTION)} programs that say "
        "[bold]import multiprocessing[/], run by [bold]python -m kinfolk[/]"
    )
    for program, title, words in QUESTION:
        console.print(Rule(f"{title} [dim]({program})", align="left"))
        for method in METHODS:
            run(program, method)
            if isinstance(words, dict):
                console.print("            [green]" + words[method])
        if isinstance(words, str):
            console.print("[green]" + words)

    console.print(
        Rule("A real job: an index of the standard library [dim](stdlib_index.py)", align="left")
    )
    counted = set()
    for method in METHODS:
        check = ["--check"] if method == METHODS[-1] else []
        counted.add(run("stdlib_index.py", method, *check).splitlines()[0])
    if len(counted) != 1:
        raise SystemExit("the three ways of starting do not count the same")
    console.print("[green]The three ways count the same, and so does one process alone.")


if __name__ == "__main__":
    main()
