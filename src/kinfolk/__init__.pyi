from typing import Literal

from . import (
    connection as connection,
)
from . import (
    context as context,
)
from . import (
    dummy as dummy,
)
from . import (
    forkserver as forkserver,
)
from . import (
    heap as heap,
)
from . import (
    managers as managers,
)
from . import (
    pickle as pickle,
)
from . import (
    pool as pool,
)
from . import (
    process as process,
)
from . import (
    queues as queues,
)
from . import reduction as reducer
from . import (
    reduction as reduction,
)
from . import (
    resource_sharer as resource_sharer,
)
from . import (
    resource_tracker as resource_tracker,
)
from . import (
    shared_memory as shared_memory,
)
from . import (
    sharedctypes as sharedctypes,
)
from . import (
    spawn as spawn,
)
from . import (
    synchronize as synchronize,
)
from . import (
    util as util,
)
from ._explain import Explanation as _Explanation
from ._shared_array import share as share
from ._shared_array import shared_array as shared_array
from .context import AuthenticationError as AuthenticationError
from .context import BufferTooShort as BufferTooShort
from .context import Process as Process
from .context import ProcessError as ProcessError
from .context import TimeoutError as TimeoutError
from .process import active_children as active_children
from .process import current_process as current_process
from .process import parent_process as parent_process

# Called, they make one; in an annotation, Queue[int] says what is in it.
from .queues import JoinableQueue as JoinableQueue
from .queues import Queue as Queue
from .queues import ShutDown as ShutDown
from .queues import SimpleQueue as SimpleQueue
from .shared_dict import SharedDict as SharedDict
from .shared_list import SharedList as SharedList

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

SUBDEBUG: int
SUBWARNING: int

Array = context._default_context.Array
Barrier = context._default_context.Barrier
BoundedSemaphore = context._default_context.BoundedSemaphore
Condition = context._default_context.Condition
Event = context._default_context.Event
Lock = context._default_context.Lock
Manager = context._default_context.Manager
Pipe = context._default_context.Pipe
Pool = context._default_context.Pool
RLock = context._default_context.RLock
RawArray = context._default_context.RawArray
RawValue = context._default_context.RawValue
Semaphore = context._default_context.Semaphore
Value = context._default_context.Value
allow_connection_pickling = context._default_context.allow_connection_pickling
cpu_count = context._default_context.cpu_count
freeze_support = context._default_context.freeze_support
get_all_start_methods = context._default_context.get_all_start_methods
get_context = context._default_context.get_context
get_logger = context._default_context.get_logger
get_start_method = context._default_context.get_start_method
log_to_stderr = context._default_context.log_to_stderr
set_executable = context._default_context.set_executable
set_forkserver_preload = context._default_context.set_forkserver_preload
set_start_method = context._default_context.set_start_method

def explain(
    obj: object,
    *,
    method: Literal["fork", "spawn", "forkserver"] | None = None,
    name: str = "obj",
) -> _Explanation: ...
