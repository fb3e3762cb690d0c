"""Barrier: the one of ext/barrier.c, as a threading.Barrier."""

import threading

from . import _kin

__all__ = ["Barrier"]


class Barrier(_kin.Barrier, threading.Barrier):
    __doc__ = _kin.Barrier.__doc__


Barrier.__module__ = "kinfolk.synchronize"
