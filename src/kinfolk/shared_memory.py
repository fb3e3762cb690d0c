"""Shared memory with a name, that any process of the machine can attach.

A `SharedMemory` is a POSIX shared memory object (a file in /dev/shm): the same
names, sizes and bytes as the standard library's, so a segment made by either
can be attached by name from the other.  `ShareableList` lays a list of fixed
length over one, in the standard library's layout too.

A name outlives the process that made it, until someone says unlink().  The
resource tracker is told of each segment that this family owns, and unlinks,
with a warning, those that are left when the family has gone.  Who owns one:

* whoever creates it, unless by `track=False`;
* from Python 3.13 on also whoever attaches it, unless by `track=False`: that
  is what `track` is documented to mean.  Before, a reader owns nothing, and so
  its exit never takes the segment away from others.

Memory that needs no name is better had from the arena: see sharedctypes.
"""

import _posixshmem
import mmap
import os
import secrets
import struct
import sys
import types
from functools import partial

from . import resource_tracker

__all__ = ["SharedMemory", "ShareableList"]

_USE_POSIX = True
_O_CREX = os.O_CREAT | os.O_EXCL

# What the most restrictive systems (the BSDs) allow, in characters.
_SHM_SAFE_NAME_LENGTH = 14
_SHM_NAME_PREFIX = "/psm_"

_ATTACHING_OWNS = sys.version_info >= (3, 13)


def _make_filename():
    """A random name for a segment."""
    random_bytes = (_SHM_SAFE_NAME_LENGTH - len(_SHM_NAME_PREFIX)) // 2
    return _SHM_NAME_PREFIX + secrets.token_hex(random_bytes)


class SharedMemory:
    """A segment of shared memory, mapped into this process.

    create: make a new one of at least `size` bytes, by `name` or by a name of
    its own choice; FileExistsError if there is one by that name.  Otherwise
    attach the one called `name`, whose size is what it is; FileNotFoundError
    if there is none.
    track: see above.  Pickled, it is its name: unpickling attaches.

    close() when this process is done with it, and unlink() once when all are.
    """

    _name = None
    _fd = -1
    _mmap = None
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
        self._owned = track and (create or _ATTACHING_OWNS)
        self._open(name)
        try:
            self._map(size if create else None)
            if self._owned:
                resource_tracker.register(self._name, "shared_memory")
        except BaseException:
            if create:
                _posixshmem.shm_unlink(self._name)
            raise

    def _open(self, name):
        if name is not None:
            self._open_name("/" + name if self._prepend_leading_slash else name)
            return
        while self._name is None:
            try:
                self._open_name(_make_filename())
            except FileExistsError:
                continue

    def _open_name(self, name):
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
        attach = type(self) if self._track else partial(type(self), track=False)
        return attach, (self.name, False, self.size)

    def __repr__(self):
        return f"{type(self).__name__}({self.name!r}, size={self.size})"

    @property
    def buf(self):
        """The bytes, as a memoryview; None after close()."""
        return self._buf

    @property
    def name(self):
        """The name by which any process can attach it."""
        if self._prepend_leading_slash and self._name.startswith("/"):
            return self._name[1:]
        return self._name

    @property
    def size(self):
        """Size in bytes; a system may round it up to whole pages."""
        return self._size

    def close(self):
        """Let go of the memory in this process.  BufferError while a view of `buf` is in use."""
        if self._buf is not None:
            self._buf.release()
            self._buf = None
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
        _posixshmem.shm_unlink(_checked(self._name))
        if not self._track:
            return
        if not self._owned:
            # Perhaps another process of the family owns it, perhaps none:
            # named twice is no harm, forgotten unnamed would be an error.
            resource_tracker.register(self._name, "shared_memory")
        self._owned = False
        resource_tracker.unregister(self._name, "shared_memory")


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
        self.shm = SharedMemory(name)
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
        return partial(type(self), name=self.shm.name), ()

    def __len__(self):
        return struct.unpack_from("q", self.shm.buf, 0)[0]

    def __repr__(self):
        return f"{type(self).__name__}({list(self)}, name={self.shm.name!r})"

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
