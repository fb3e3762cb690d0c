"""numpy arrays in the family's arena: shared_array() and share().

A shared array is a numpy.ndarray over a piece of shared memory (kinfolk._kin.Memory), which numpy
keeps as its base.  Whether an array is shared is not written down anywhere: it is, if there is such
a piece at the end of the chain of its bases.  So slices, transposes and other views are shared
without more ado, and pickled they are the place in that piece where they lie:

    the memory's ref, offset, shape, strides, dtype, and whether it may be written to

by any pickler and at any time, and what is loaded is the same memory.

Everything that is new memory is ordinary: what operators, functions and most methods return is a
numpy.ndarray, and so is a copy.  Of an index by a list or a mask numpy makes a new array of the type
of the old one without asking: that looks like an ordinary one, too, and is pickled by value, as
numpy.ndarray.
"""

import math
import operator
import sys

from .. import _kin

try:
    import numpy
except ModuleNotFoundError as error:
    if error.name != "numpy":
        raise
    raise ModuleNotFoundError("kinfolk's shared arrays need numpy", name="numpy") from None

__all__ = ["SharedArray", "share", "shared_array"]


class SharedArray(numpy.ndarray):
    """A numpy array in shared memory: made by kinfolk.shared_array() and kinfolk.share()."""

    __slots__ = ()

    # What numpy makes of several arrays is of the type of the one that insists most.
    __array_priority__ = -1.0

    def __array_wrap__(self, array, context=None, return_scalar=None):
        """What a function of numpy's returns: the array that it was told to fill, or a plain one."""
        if isinstance(array, SharedArray):
            if _memory_of(array) is not None:
                return array
            array = _plain(array)
        # numpy 1 does not say whether it would return a scalar: it does if there are no dimensions.
        if return_scalar or (return_scalar is None and array.ndim == 0):
            return array[()]
        return array

    def __array_function__(self, func, types, args, kwargs):
        """What a function of numpy's returns that asks for the type of its arguments."""
        result = super().__array_function__(func, types, args, kwargs)
        if isinstance(result, SharedArray) and _memory_of(result) is None:
            return _plain(result)
        return result

    def __reduce_ex__(self, protocol):
        memory = _memory_of(self)
        if memory is None:
            return _plain(self).__reduce_ex__(protocol)
        place = (
            memory,
            _address(self) - memory.address,
            self.shape,
            None if self.flags.c_contiguous else self.strides,
            _spelled(self.dtype),
            self.flags.writeable,
        )
        return _open, (place if type(self) is SharedArray else (*place, type(self)))

    def __reduce__(self):
        return self.__reduce_ex__(2)

    def __copy__(self):
        return _plain(self).copy(order="K")

    def __deepcopy__(self, memo):
        return _plain(self).copy(order="K")

    def __repr__(self):
        return super().__repr__() if _memory_of(self) is not None else repr(_plain(self))


def _returning_plain(name):
    method = getattr(numpy.ndarray, name)

    def call(self, *args, **kwds):
        plain = _plain(self)
        result = method(plain, *args, **kwds)
        return self if result is plain else result

    call.__name__, call.__qualname__ = name, f"SharedArray.{name}"
    call.__doc__ = method.__doc__
    return call


# The methods that make a new array of the type of the old one.
for _name in (
    "argmax",
    "argmin",
    "argpartition",
    "argsort",
    "astype",
    "byteswap",
    "choose",
    "compress",
    "copy",
    "dot",
    "flatten",
    "repeat",
    "take",
):
    setattr(SharedArray, _name, _returning_plain(_name))
del _name


def shared_array(shape, dtype=float, *, order="C"):
    """A numpy array of zeros in the memory that all processes of the family share.

    shape   an int or a sequence of ints
    dtype   anything that numpy.dtype() takes, without Python objects in it
    order   "C": the last index moves fastest; "F": the first

    Pickled by any pickler and at any time, alone or as a part of something, the array and each view
    of it stay the same memory for whoever loads the pickle in this family of processes; a child that
    is forked has the same memory, too.  Nothing guards it: where processes write to the same place,
    take a kinfolk.Lock.  It is freed when nobody has a view of it any more.

    ImportError: there is no numpy.  TypeError: `dtype` holds Python objects.  MemoryError: the
    arena is full.
    """
    dtype = _checked(numpy.dtype(dtype))
    if dtype.itemsize == 0 and dtype.kind in "SU":
        dtype = numpy.dtype(f"{dtype.kind}1")  # as numpy.zeros() has it
    return _new(SharedArray, _shape_of(shape), dtype, order=_order_of(order))


def share(array):
    """`array` in shared memory, as shared_array() makes it: copied, once, unless it is there already.

    array   a numpy array, or what numpy.asarray() makes one of.  The order of its axes in memory is
            kept; gaps between its items are not.

    What is shared already is returned as it is; a plain view of it, as numpy.asarray() makes, as a
    SharedArray on the same memory.  Errors as in shared_array(); TypeError also for a masked array,
    which is two arrays.
    """
    if isinstance(array, numpy.ma.MaskedArray):
        raise TypeError("a masked array cannot be shared: share its .data and its .mask")
    array = numpy.asanyarray(array)
    if _memory_of(array) is not None:
        return array if isinstance(array, SharedArray) else array.view(SharedArray)
    shared = _new_like(array)
    numpy.copyto(shared, array)
    return shared


def _new(cls, shape, dtype, strides=None, order="C"):
    size = math.prod(shape) * dtype.itemsize
    if size > sys.maxsize:
        raise ValueError(f"an array of {size} bytes is larger than any can be")
    memory = _kin.Memory(max(size, 1))
    return numpy.ndarray.__new__(cls, shape, dtype, memory, 0, strides, order)


def _new_like(array):
    dtype = _checked(array.dtype)
    if array.flags.forc:
        return _new(SharedArray, array.shape, dtype, order="C" if array.flags.c_contiguous else "F")
    # Only its strides are asked for: its memory is not touched.
    strides = numpy.empty_like(array, subok=False).strides
    return _new(SharedArray, array.shape, dtype, strides)


def _checked(dtype):
    if dtype.hasobject:
        raise TypeError(
            f"an array of {dtype} cannot be shared: its items are addresses of Python objects, "
            "which mean nothing to another process"
        )
    return dtype


def _shape_of(shape):
    try:
        shape = (operator.index(shape),)
    except TypeError:
        shape = tuple(map(operator.index, shape))
    if any(length < 0 for length in shape):
        raise ValueError("negative dimensions are not allowed")
    return shape


def _order_of(order):
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    return order


def _memory_of(array):
    """The shared memory that `array` is a view of, or None."""
    base = array.base
    while base is not None and type(base) is not _kin.Memory:
        base = getattr(base, "base", None)
    return base


def _plain(array):
    return array.view(numpy.ndarray)


def _address(array):
    return array.__array_interface__["data"][0]


def _spelled(dtype):
    # Shorter, and quicker to load, than numpy's pickle of it, where that says no more.
    spelled = dtype.str
    is_simple = dtype.isbuiltin == 1 or dtype.kind in "SU" or dtype.kind in "mM"
    return spelled if is_simple and not dtype.metadata and numpy.dtype(spelled) == dtype else dtype


def _open(memory, offset, shape, strides, dtype, writeable, cls=SharedArray):
    """What a pickled shared array is made of.  ValueError if it does not lie in the memory."""
    if offset < 0:  # numpy looks at the end of it only, unless there are strides
        raise ValueError("offset must be non-negative")
    array = numpy.ndarray.__new__(cls, shape, dtype, memory, offset, strides)
    if not writeable:
        array.flags.writeable = False
    return array
