"""Shared memory, with a name or without.

A `SharedMemory` that is given a name is a POSIX shared memory object (a file in /dev/shm): the same
names, sizes and bytes as the standard library's, so a segment made by either
can be attached by name from the other.  The name outlives the process that made it, until someone
says unlink().  The resource tracker is told of each segment that this family owns, and unlinks,
with a warning, those that are left when the family has gone.  Who owns one:

* whoever creates it, unless by `track=False`;
* from Python 3.13 on also whoever attaches it, unless by `track=False`: that
  is what `track` is documented to mean.  Before, a reader owns nothing, and so
  its exit never takes the segment away from others.

What the tracker did not live to unlink is found by the next run: see `reclaim` and _ledger.py.

One that is created without a name lives in the family's arena.  Its `name` is one that the processes of
the family can attach, and nobody else.  It goes with its last user, however that one ends; once its
name was asked for it stays until unlink(), as others would, or until the family is gone.

`ShareableList` lays a list of fixed length over either, in the standard library's layout.
docs/shared-memory.md says more.
"""

import mmap
import os
import re
import secrets
import struct
import sys
import types
import warnings
from functools import partial

from . import _kin, _ledger, process, resource_tracker

__all__ = ["SharedMemory", "ShareableList"]  # as in multiprocessing; and reclaim()

_USE_POSIX = True
_O_CREX = os.O_CREAT | os.O_EXCL

_SHM_NAME_PREFIX = "/psm_"

_ATTACHING_OWNS = sys.version_info >= (3, 13)


def _make_filename():
    """A random name for a segment.

    A program that wants those that it makes without a name to have one, in /dev/shm, puts a function
    of its own in this one's place; otherwise they live in the arena.
    """
    return _SHM_NAME_PREFIX + secrets.token_hex(4)


_makes_no_names = _make_filename


# -- Memory of the arena, and the names that it goes by in the family ---------------------


_ARENA_NAME = re.compile(r"psm_([0-9a-f]{8})_([0-9a-f]+)_([0-9a-f]+)")


def _name_of(memory):
    """The family, where in the arena, and a number that is never used again."""
    ref = memory.ref
    offset, serial = struct.unpack_from("<QQ", ref, 20)
    return f"psm_{ref[:4].hex()}_{offset:x}_{serial:x}"


def is_arena_name(name):
    """Whether `name` is one of memory in an arena, of this family or another."""
    return _ARENA_NAME.fullmatch(name) is not None


def _memory_named(name):
    """The memory that goes by `name` in this family.  FileNotFoundError if there is none."""
    family, offset, serial = _ARENA_NAME.fullmatch(name).groups()
    own = _kin.family_id()
    if own is None or own[:4].hex() != family:
        raise _no_such(
            name,
            f"{name!r} is memory of another family of processes; what is to be attached from "
            "elsewhere is created with a name",
        )
    try:
        memory = _kin.Memory.at(int(offset, 16), int(serial, 16))
    except (_kin.StaleReference, ValueError, OverflowError):
        raise _no_such(name) from None
    if memory.unlinked:
        raise _no_such(name)
    return memory


def _no_such(name, why=None):
    return FileNotFoundError(2, why or "No such file or directory", name)


class SharedMemory:
    """A segment of shared memory, mapped into this process.

    create: make a new one of at least `size` bytes, called `name`, or without a name in the
    family's arena; FileExistsError if there is one by that name.  Otherwise
    attach the one called `name`, whose size is what it is; FileNotFoundError
    if there is none.
    track: see above.  Unpickling attaches; a message that it is in keeps memory of the arena alive.

    close() when this process is done with it, and unlink() once when all are.
    """

    _name = None
    _fd = -1
    _mmap = None
    _memory = None  # if it lives in the arena
    _linked = False  # its name was asked for
    _buf = None
    _flags = os.O_RDWR
    _mode = 0o600
    _prepend_leading_slash = True
    _track = True

    def __init__(self, name=None, create=False, size=0, *, track=True):
        if size < 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _O_CREX | os.O_RDWR
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        self._owned = False
        if name is not None and not create and is_arena_name(name):
            self._lie_over(_memory_named(name))
            self._linked = True  # whoever has told us of it has asked
            return
        if name is None and _make_filename is _makes_no_names:
            self._lie_over(_kin.Memory(size))
            return
        made_up = _make_filename() if name is None else None
        self._open(name, made_up)
        self._owned = track and (create or _ATTACHING_OWNS)
        try:
            self._map(size if create else None)
            if self._owned:
                resource_tracker.register(self._name, "shared_memory")
            if self._owned and create:
                _ledger.note(self._bare_name(), self._fd, resource_tracker._resource_tracker._pid)
        except BaseException:
            if create:
                _unlink(self._name)
            raise

    def _lie_over(self, memory):
        self._memory = memory
        self._name = "/" + _name_of(memory)
        self._buf = memoryview(memory)
        self._size = len(memory)

    def _open(self, name, made_up):
        _report_what_was_left()
        while made_up is not None and self._name is None:
            try:
                self._open_name(made_up)
            except FileExistsError:
                made_up = _make_filename()
        if self._name is None:
            try:
                self._open_name("/" + name if self._prepend_leading_slash else name)
            except FileExistsError as error:
                _tell_whose(error, name)
                raise

    def _open_name(self, name):
        import _posixshmem

        self._fd = _posixshmem.shm_open(_checked(name), self._flags, mode=self._mode)
        self._name = name

    def _map(self, new_size):
        if new_size is not None:
            os.ftruncate(self._fd, new_size)
        self._size = os.fstat(self._fd).st_size
        self._mmap = mmap.mmap(self._fd, self._size)
        self._buf = memoryview(self._mmap)

    def __del__(self):
        try:
            self.close()
        except (OSError, BufferError):
            # Somebody still has a view: the mapping goes with the last one.
            self._close_descriptor()

    def __reduce__(self):
        if self._memory is not None:
            return _attach, (type(self), self._memory, self._track)
        attach = type(self) if self._track else partial(type(self), track=False)
        return attach, (self.name, False, self.size)

    def __repr__(self):
        return f"{type(self).__name__}({self._bare_name()!r}, size={self.size})"

    @property
    def buf(self):
        """The bytes, as a memoryview; None after close()."""
        return self._buf

    @property
    def name(self):
        """The name by which any process, or if it was made without one any of the family, can
        attach it."""
        if self._memory is not None and not self._linked:
            self._link()
        return self._bare_name()

    def _bare_name(self):
        if self._prepend_leading_slash and self._name and self._name.startswith("/"):
            return self._name[1:]
        return self._name

    def _link(self):
        """From now on it stays until unlink(), as somebody may know its name."""
        self._linked = True
        if self._memory.link() and self._track:
            resource_tracker.register(self._name, "shared_memory")
            self._owned = True

    @property
    def size(self):
        """Size in bytes; a system may round it up to whole pages."""
        return self._size

    def close(self):
        """Let go of the memory in this process.  BufferError while a view of `buf` is in use."""
        if self._buf is not None:
            self._buf.release()
            self._buf = None
        if self._memory is not None and self._memory.views:
            raise BufferError("cannot close exported pointers exist")
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None
        self._close_descriptor()

    # The default stands for a global that is gone when the interpreter is nearly so.
    def _close_descriptor(self, _close=os.close):
        if self._fd >= 0:
            _close(self._fd)
            self._fd = -1

    def unlink(self):
        """Take the name away; the memory goes when the last process has closed it.

        FileNotFoundError if that was done before.
        """
        if not self._name:
            return
        if self._memory is not None:
            self._unlink_memory()
            return
        _unlink(_checked(self._name))
        if not self._track:
            return
        if not self._owned:
            # Perhaps another process of the family owns it, perhaps none:
            # named twice is no harm, forgotten unnamed would be an error.
            resource_tracker.register(self._name, "shared_memory")
        self._owned = False
        resource_tracker.unregister(self._name, "shared_memory")

    def _unlink_memory(self):
        if not self._memory.unlink():
            raise _no_such(self._bare_name())
        if self._linked and self._track:
            if not self._owned:
                resource_tracker.register(self._name, "shared_memory")
            self._owned = False
            resource_tracker.unregister(self._name, "shared_memory")


def _attach(cls, memory, track):
    """What a pickle of memory in the arena calls."""
    if memory.unlinked:
        raise _no_such(_name_of(memory))
    self = cls.__new__(cls)
    self._track, self._owned = track, False
    self._lie_over(memory)
    return self


def _unlink(name):
    import _posixshmem

    _posixshmem.shm_unlink(name)
    _ledger.forget(name.lstrip("/"))


# -- What a run that was killed has left ----------------------------------------------------

_reported = False


def _report_what_was_left():
    """Once in a program, when it first comes to named segments."""
    global _reported
    if _reported or process.parent_process() is not None:
        return
    _reported = True
    left = _ledger.left_behind()
    if left:
        told = "; ".join(
            f"{name!r} ({size:,} bytes, made by process {pid}{program and ', '}{program})"
            for name, (size, pid, program) in left.items()
        )
        warnings.warn(
            f"shared memory that was left behind by a run that was killed: {told}.  "
            "kinfolk.shared_memory.reclaim() removes it",
            RuntimeWarning,
            stacklevel=4,
        )


def _tell_whose(error, name):
    left = _ledger.left_behind().get(name.lstrip("/"))
    if left is not None:
        error.strerror += (
            f" (left behind by process {left[1]}, which was killed: "
            "kinfolk.shared_memory.reclaim() removes it)"
        )


def reclaim():
    """Unlink the named segments that were left behind by runs that were killed; return their names.

    Those are the ones whose maker and whose resource tracker are gone, and which nobody has mapped.
    What was created with track=False is never among them.
    """
    names = list(_ledger.left_behind())
    for name in names:
        _unlink("/" + name)
    return names


def _checked(name):
    # Before Python 3.13 shm_open() would stop reading at the zero.
    if "\0" in name:
        raise ValueError("embedded null character")
    return name


_encoding = "utf8"

# What an item was before it was packed: one byte for each.
_AS_IS, _STR, _BYTES, _NONE = range(4)


class ShareableList:
    """A list of fixed length in a SharedMemory, its `shm`.

    Items are int (64 bits), float, bool, None, str and bytes.  One can be
    replaced by any of these that fits where it lies: a str or bytes has room for
    as much as it had when the list was made, at least, in multiples of 8 bytes;
    anything else has 8.  Zero bytes at the end of a str or bytes are lost.

    sequence: make a new one of these items.  name: of the segment to make, or
    without `sequence` to attach.
    """

    # Native byte order; N items, of which item i occupies offset[i]..offset[i+1]:
    #   int64            N
    #   int64 x (N + 1)  offset, from the start of the data
    #   bytes            the data
    #   8 bytes x N      the struct format of each item
    #   int8 x N         what each item was: _AS_IS, _STR, _BYTES, _NONE

    _types_mapping = {
        int: "q",
        float: "d",
        bool: "xxxxxxx?",
        str: "%ds",
        bytes: "%ds",
        type(None): "xxxxxx?x",
    }
    _alignment = 8

    def __init__(self, sequence=None, *, name=None):
        if sequence is None and name is not None:
            self._attach(name)
        else:
            self._create(list(sequence or ()), name)

    def _attach(self, name):
        self._lie_over(SharedMemory(name))

    def _lie_over(self, memory):
        self.shm = memory
        self._list_len = len(self)
        self._allocated_offsets = list(
            struct.unpack_from(self._format_size_metainfo, self.shm.buf, 8)
        )

    def _create(self, items, name):
        values = [item.encode(_encoding) if isinstance(item, str) else item for item in items]
        formats = [self._format_of(item, value) for item, value in zip(items, values, strict=True)]
        self._list_len = len(items)
        self._allocated_offsets = [0]
        for fmt in formats:
            self._allocated_offsets.append(self._allocated_offsets[-1] + struct.calcsize(fmt))
        size = self._offset_back_transform_codes + self._list_len
        self.shm = SharedMemory(name, create=True, size=size)
        try:
            buf = self.shm.buf
            struct.pack_into(
                "q" + self._format_size_metainfo, buf, 0, self._list_len, *self._allocated_offsets
            )
            for position in range(self._list_len):
                self._put(position, formats[position], items[position], values[position])
        except BaseException:
            # An int of more than 64 bits, say.
            self.shm.unlink()
            raise

    def _format_of(self, item, value):
        fmt = self._types_mapping[type(item)]
        if not isinstance(value, bytes):
            return fmt
        # By its characters, as everybody does, but never less than its bytes.
        words = max(len(item) // self._alignment + 1, -(-len(value) // self._alignment))
        return fmt % (self._alignment * words)

    def _put(self, position, fmt, item, value):
        buf = self.shm.buf
        struct.pack_into(fmt, buf, self._offset_of(position), value)
        struct.pack_into("8s", buf, self._offset_packing_formats + position * 8, fmt.encode())
        struct.pack_into("b", buf, self._offset_back_transform_codes + position, _kind_of(item))

    def __getitem__(self, position):
        position = self._checked_position(position, "index out of range")
        (value,) = struct.unpack_from(
            self._get_packing_format(position), self.shm.buf, self._offset_of(position)
        )
        kind = self.shm.buf[self._offset_back_transform_codes + position]
        return _unpacked(kind, value)

    def __setitem__(self, position, value):
        position = self._checked_position(position, "assignment index out of range")
        if not isinstance(value, (str, bytes)):
            self._put(position, self._types_mapping[type(value)], value, value)
            return
        encoded = value.encode(_encoding) if isinstance(value, str) else value
        room = self._allocated_offsets[position + 1] - self._allocated_offsets[position]
        if len(encoded) > room:
            raise ValueError("bytes/str item exceeds available storage")
        self._put(position, f"{room}s", value, encoded)

    def _checked_position(self, position, complaint):
        index = position + self._list_len if position < 0 else position
        if not 0 <= index < self._list_len:
            raise IndexError(complaint)
        return index

    def _get_packing_format(self, position):
        """The struct format of one item."""
        position = self._checked_position(position, "Requested position out of range.")
        start = self._offset_packing_formats + position * 8
        return bytes(self.shm.buf[start : start + 8]).rstrip(b"\0").decode()

    def __reduce__(self):
        if self.shm._memory is not None:
            return _list_over, (type(self), self.shm)
        return partial(type(self), name=self.shm.name), ()

    def __len__(self):
        return struct.unpack_from("q", self.shm.buf, 0)[0]

    def __repr__(self):
        return f"{type(self).__name__}({list(self)}, name={self.shm._bare_name()!r})"

    @property
    def format(self):
        """The struct format of all the items as they are now."""
        return "".join(map(self._get_packing_format, range(self._list_len)))

    @property
    def _format_size_metainfo(self):
        return "q" * (self._list_len + 1)

    @property
    def _offset_data_start(self):
        return (self._list_len + 2) * 8

    def _offset_of(self, position):
        return self._offset_data_start + self._allocated_offsets[position]

    @property
    def _offset_packing_formats(self):
        return self._offset_of(self._list_len)

    @property
    def _offset_back_transform_codes(self):
        return self._offset_packing_formats + self._list_len * 8

    def count(self, value):
        """How many items equal `value`."""
        return sum(value == item for item in self)

    def index(self, value):
        """Where the first item is that equals `value`.  ValueError if none does."""
        for position, item in enumerate(self):
            if value == item:
                return position
        raise ValueError(f"{value!r} not in this container")

    __class_getitem__ = classmethod(types.GenericAlias)


def _list_over(cls, memory):
    """What a pickle of a list in the arena calls."""
    self = cls.__new__(cls)
    self._lie_over(memory)
    return self


def _kind_of(item):
    if isinstance(item, str):
        return _STR
    if isinstance(item, bytes):
        return _BYTES
    return _NONE if item is None else _AS_IS


def _unpacked(kind, value):
    if kind == _STR:
        return value.rstrip(b"\0").decode(_encoding)
    if kind == _BYTES:
        return value.rstrip(b"\0")
    return None if kind == _NONE else value
