"""How an object would travel to a child: what kinfolk.explain() finds out."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, TextIO

from rich.text import Text

COPIED: str
BY_NAME: str
BY_VALUE: str
BY_REF: str
DESCRIPTOR: str
BESIDE: str
CANNOT: str
ABOVE: str
UNSEEN: str
METHODS: tuple[_Method, ...]

_Method = Literal["fork", "spawn", "forkserver"]

class Problem(NamedTuple):
    path: str
    why: str
    hint: str

class Node:
    label: str
    whole: Node | None
    thing: object
    kind: str
    how: str
    what: str
    size: int | None
    parts: list[Node]
    more: tuple[int, bool]
    inherited: bool
    trouble: bool
    @property
    def path(self) -> str: ...

class Explanation:
    name: str
    method: _Method | None
    problems: list[Problem]
    size: int | None
    out_of_band: int
    buffers: int
    root: Node
    has_inherited: bool
    @property
    def travels(self) -> bool: ...
    def problems_of(self, method: _Method) -> list[Problem]: ...
    def print(
        self, file: TextIO | None = None, *, depth: int | None = None, width: int | None = None
    ) -> None: ...
    def text(self, *, depth: int | None = None, width: int | None = None) -> str: ...
    def _repr_html_(self) -> str: ...
    def __rich_console__(self, console: Any, options: Any) -> Iterable[Text]: ...

def _length(count: int) -> str: ...
def explain(obj: object, *, method: _Method | None = None, name: str = "obj") -> Explanation: ...
