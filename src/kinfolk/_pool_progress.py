"""Progress bars of maps: tqdm's, where it is installed.

A bar is moved by the pool's collector, as outcomes come, whoever waits for them.
"""

import operator
import warnings

__all__ = ["NO_BAR", "bar_for"]


class _NoBar:
    def update(self, count):
        pass

    def close(self):
        pass


class _Bar:
    def __init__(self, total, arguments):
        try:
            from tqdm import tqdm
        except ImportError as exc:
            message = "progress= shows a bar of tqdm, which is not installed (pip install tqdm)"
            raise ImportError(message, name="tqdm") from exc
        self._total = total
        self._bar = tqdm(**{"total": total, **arguments})

    def update(self, count):
        if self._total is not None:
            count = min(count, self._total - self._bar.n)  # the last chunk may be a short one
        self._try(self._bar.update, count)

    def close(self):
        self._try(self._bar.close)

    def _try(self, move, *args):
        """No outcome is to be lost because of a bar."""
        try:
            move(*args)
        except Exception as exc:
            warnings.warn(f"the progress bar could not be moved: {exc!r}", RuntimeWarning, 2)


NO_BAR = _NoBar()


def bar_for(progress, iterable):
    """The bar that the argument `progress` asks for: bool, or a dict of arguments of tqdm."""
    if progress is False or progress is None:
        return NO_BAR
    if progress is not True and not isinstance(progress, dict):
        raise TypeError(f"progress must be a bool or a dict, not {type(progress).__name__}")
    total = operator.length_hint(iterable, -1)
    return _Bar(None if total < 0 else total, {} if progress is True else progress)
