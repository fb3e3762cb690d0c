"""How an explanation looks: a verdict, the methods, the tree in columns, a legend.

Everything is laid out here, as lines of styled words for rich, which knows the
terminal: its width, whether it has colours (NO_COLOR, FORCE_COLOR), how
wide a character is.  Plain text is the same lines without the styles.

The columns: the tree itself, the types, the sizes, how each part travels, and a
few words on that.  The last is wrapped, the others are cut to fit.

It is in a folder of its own because it needs rich: every file of the package itself
can be imported without.
"""

import io
import sys

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from .. import _explain
from .._explain import (
    ABOVE,
    BESIDE,
    BY_NAME,
    BY_REF,
    BY_VALUE,
    CANNOT,
    COPIED,
    DESCRIPTOR,
    UNSEEN,
)

__all__ = ["html", "lines", "plain", "write"]

#: How deep the tree is shown if nobody says.
DEPTH = 8
#: So many levels more, where something keeps it from travelling.
DEEPEST = 30

#: Columns of a line where there is no terminal.
WIDTH = 100
MIN_WIDTH = 60

#: So many problems are told above the tree.
PROBLEMS = 3
#: Wider lines are hard to follow with the eye.
MAX_WIDTH = 140

STYLES = {
    COPIED: "green",
    BY_NAME: "cyan",
    BY_VALUE: "yellow",
    BY_REF: "magenta",
    DESCRIPTOR: "blue",
    BESIDE: "bright_green",
    CANNOT: "bold red",
    ABOVE: "dim",
    UNSEEN: "dim",
}

SIGNS = {
    COPIED: "●",
    BY_NAME: "→",
    BY_VALUE: "◆",
    BY_REF: "⇄",
    DESCRIPTOR: "⊙",
    BESIDE: "⇉",
    CANNOT: "✗",
    ABOVE: "↑",
    UNSEEN: "?",
}

LEGEND = {
    COPIED: "its contents are in the pickle",
    BY_NAME: "the child has it, or imports it",
    BY_VALUE: "its code, and what that uses, are in the pickle",
    BY_REF: "the pickle names it, and it stays where it is",
    DESCRIPTOR: "the child gets a duplicate",
    BESIDE: "beside the pickle: copied once, used in place",
    UNSEEN: "there were too many",
}

#: For terminals, and files, that have nothing but ASCII.
ASCII = {
    **dict(zip("●→◆⇄⊙⇉✗↑✓…·│├└─", "*>+=o^x^v~-||`-")),
    "…": "...",
    "⟨": "<",
    "⟩": ">",
}


def write(explanation, file=None, depth=None, width=None):
    """Write it to `file`, in colours if that is a terminal."""
    file = sys.stdout if file is None else file
    console = Console(file=file, width=width, highlight=False, soft_wrap=False)
    if width is None and not console.is_terminal:
        width = WIDTH
    ascii_only = not console.options.encoding.startswith("utf")
    for line in lines(explanation, depth, width or console.width, ascii_only):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def plain(explanation, depth=None, width=None):
    """The plain text."""
    return "\n".join(line.plain for line in lines(explanation, depth, width or WIDTH))


def html(explanation):
    """For notebooks."""
    console = Console(file=io.StringIO(), record=True, width=WIDTH, highlight=False)
    for line in lines(explanation, None, WIDTH):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)
    style = "white-space:pre;overflow-x:auto;line-height:normal;font-family:monospace"
    return console.export_html(
        inline_styles=True, code_format=f'<pre style="{style}">{{code}}</pre>'
    )


def lines(explanation, depth=None, width=WIDTH, ascii_only=False):
    """The lines of an explanation, as rich.text.Text."""
    width = max(MIN_WIDTH, min(width, MAX_WIDTH))
    rows = list(_rows(explanation.root, DEPTH if depth is None else depth))
    made = [
        *_verdict(explanation, width),
        Text(),
        *_methods(explanation),
        Text(),
        *_table(rows, width),
        Text(),
        *_totals(explanation),
        *_legend(rows, width),
    ]
    for line in made:
        line.rstrip()
        yield _in_ascii(line) if ascii_only else line


def _in_ascii(line):
    made = Text()
    for place, character in enumerate(line.plain):
        shown = ASCII.get(character, character)
        made.append(shown if shown.isascii() else "?", line.get_style_at_offset(_console(), place))
    return made


_consoles = []


def _console():
    if not _consoles:
        _consoles.append(Console(file=io.StringIO()))
    return _consoles[0]


# -- above and below the tree --------------------------------------------------------------------


def _verdict(explanation, width):
    name, method = explanation.name, explanation.method
    if explanation.travels:
        child = "any child" if method is None else f"a child started by {method}"
        yield Text.assemble(("✓ ", "bold green"), (name, "bold"), f" travels to {child}")
        return
    yield Text.assemble(("✗ ", "bold red"), (name, "bold"), " cannot travel:")
    for problem in explanation.problems[:PROBLEMS]:
        yield from _wrapped("  ", f"{problem.path}: {problem.why}", width, "red")
        if problem.hint:
            yield from _wrapped("    ", problem.hint, width, "")
    more = len(explanation.problems) - PROBLEMS
    if more > 0:
        place = explanation.problems[PROBLEMS].path
        yield Text(f"  … and {more:,} more, the first of them at {place}")


def _wrapped(indent, text, width, style):
    for line in Text(text, style).wrap(_console(), width - len(indent)):
        line.rstrip()
        yield Text.assemble(indent, line)


def _methods(explanation):
    """What each way of starting a child makes of it, as an argument of Process and in a message."""
    yield Text.assemble(" " * 12, (f"{'as an argument':<26}in a message", "dim"))
    for method in _explain.METHODS:
        if explanation.method not in (None, method):
            continue
        works = not explanation.problems_of(method)
        marked = explanation.method is None and method == "fork" and explanation.has_inherited
        message = _outcome(works, "pickled, by name where marked *" if marked else "pickled")
        argument = _outcome(True, "inherited as it is") if method == "fork" else message
        line = Text.assemble((f"{method:<12}", "bold"), argument)
        line.pad_right(12 + 26 - cell_len(line.plain))
        yield line.append_text(message)


def _outcome(works, words):
    return Text.assemble(("✓ ", "green"), words) if works else Text("✗ cannot", "bold red")


def _totals(explanation):
    if explanation.size is None:
        return
    text = Text.assemble("pickle: ", (_explain._length(explanation.size), "bold"))
    if explanation.buffers:
        many = "buffer" if explanation.buffers == 1 else "buffers"
        text.append(f", and {explanation.buffers} {many} beside it: ")
        text.append(_explain._length(explanation.out_of_band), "bold")
    yield text


def _legend(rows, width):
    used = {row.node.how for row in rows if row.node is not None}
    line, length = Text(), 0
    for how, words in LEGEND.items():
        if how not in used:
            continue
        entry = Text.assemble((f"{SIGNS[how]} {how}", STYLES[how]), (f": {words}", "dim"))
        if length and length + cell_len(entry.plain) + 3 > width:
            yield line
            line, length = Text(), 0
        if length:
            line.append(" · ", "dim")
            length += 3
        line.append_text(entry)
        length += cell_len(entry.plain)
    if length:
        yield line


# -- the tree ------------------------------------------------------------------------------------


class _Row:
    """A line of the tree; `node` is None for one that says how many more there are."""

    def __init__(self, guides, rest, label, node):
        self.guides = guides  # before the label
        self.rest = rest  # the same on the lines that follow, if the words are wrapped
        self.label = label
        self.node = node


def _rows(node, depth, guides="", rest=""):
    yield _Row(guides, rest + ("│  " if node.parts else ""), node.label, node)
    parts, more = node.parts, _more(node)
    if depth <= 0 and parts:  # what keeps it from travelling is shown, however deep
        parts = [part for part in parts if part.trouble and depth > -DEEPEST]
        hidden = len(node.parts) + node.more[0] - len(parts)
        more = f"… {hidden:,} part{'s' if hidden > 1 else ''} within" if hidden else ""
    for place, part in enumerate(parts):
        is_last = place == len(parts) - 1 and not more
        turn, onward = ("└─ ", "   ") if is_last else ("├─ ", "│  ")
        yield from _rows(part, depth - 1, rest + turn, rest + onward)
    if more:
        yield _Row(rest, rest, f"└─ {more}", None)


def _more(node):
    count, alike = node.more
    return f"… {count:,} more{' like these' if alike else ''}" if count else ""


def _table(rows, width):
    trees = [cell_len(row.guides + row.label) for row in rows if row.node is not None]
    tree = min(max(trees), max(20, width * 2 // 5))
    kinds = [cell_len(row.node.kind) for row in rows if row.node is not None]
    kind = min(max(kinds), 16) if width >= 72 else 0
    size = max(len(_size(row.node)) for row in rows if row.node is not None)
    how = max(len(row.node.how) for row in rows if row.node is not None) + 2
    words = width - tree - how - (kind + 2 if kind else 0) - (size + 2 if size else 0) - 4
    for row in rows:
        if row.node is None:
            yield Text(_cut_guides(row.guides, tree - 4) + row.label, "dim")
            continue
        yield from _lines_of(row, tree, kind, size, how, max(words, 12))


def _lines_of(row, tree, kind, size, how, words):
    node = row.node
    style = STYLES[node.how]
    said = _said(node, words)
    guides = _cut_guides(row.guides, tree - min(10, cell_len(row.label)))
    line = Text.assemble((guides, "dim"))
    label = _cut(row.label, tree - len(guides))
    line.append(label, "bold red" if node.how == CANNOT else "red" if node.trouble else "bold")
    line.append("  ")
    if kind:
        line.append(_cut(node.kind, kind), "italic")
        line.append("  ")
    if size:
        line.append(f"{_size(node):>{size}}  ", "dim")
    line.append(set_cell_size(f"{SIGNS[node.how]} {node.how}", how), style)
    line.append("  ")
    if said:
        line.append_text(said[0])
    yield line
    before = tree + 2 + (kind + 2 if kind else 0) + (size + 2 if size else 0) + how + 2
    for more in said[1:]:
        yield Text.assemble((set_cell_size(row.rest, before), "dim"), more)


def _cut_guides(guides, room):
    """Of very many, the last: there must be room for the label."""
    return guides if len(guides) <= room else f"…{guides[1 - room :]}"


def _said(node, width):
    if node.how in (BY_NAME, ABOVE) or " " not in node.what:  # a name, or a path
        return [Text(_cut(node.what, width).rstrip())]
    text = Text(f"{node.what} *" if node.inherited else node.what)
    text.stylize("red" if node.how == CANNOT else "")
    return text.wrap(_console(), width)


def _cut(text, width):
    """`text` in exactly `width` columns."""
    if cell_len(text) <= width:
        return set_cell_size(text, width)
    if width < 8:
        return set_cell_size(text, width)
    # The end of a label tells more than its middle.
    tail = width // 3
    return set_cell_size(set_cell_size(text, width - tail - 1) + "…" + text[-tail:], width)


def _size(node):
    return "" if node.size is None else _explain._length(node.size)
