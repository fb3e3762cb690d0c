"""What a child that starts with nothing needs, and how it gets it: for spawn and forkserver.

The parent packs two things into the family's arena: the preparation data, which say how to get
ready (paths, arguments, the main module), and the process object.  They go apart, because the
second may only be loaded when the first has been acted upon.  The child is told where they lie: on
its command line, or in the request to the fork server.  It takes both over, prepares itself, loads
the process object and runs it.

The command line is the standard library's form, which programs look for: the interpreter, its
options, `-c` and a call of `spawn_main`, and the word `--multiprocessing-fork`; a frozen program is
given the word and `name=value` arguments, and answers when it imports this package.

The main module is run anew under the name `__mp_main__`, so that what it defines outside of its
guard is found; `sys.modules` has it as `__main__` too.  Not so where that would run the program
itself (see _mainsource): what is sent to such children has all that it needs with it.

Invariant: while the child has `_inheriting` set it is not ready, and may not start processes.  A
main module without a guard runs into that, rather than into endless children.
"""

import _signal
import gc
import os
import sys

from . import context, process, util

__all__ = [
    "_main",
    "freeze_support",
    "get_command_line",
    "get_executable",
    "get_preparation_data",
    "import_main_path",
    "set_executable",
]

_MARK = "--multiprocessing-fork"

# The interpreter that children run


def set_executable(exe):
    """Set the interpreter that children run; a path, or None."""
    global _python_exe
    _python_exe = None if exe is None else os.fsencode(exe)


def get_executable():
    """Return the interpreter that children run, as bytes; None if there is none."""
    return _python_exe


set_executable(sys.executable or None)


# The command line, from both sides


def is_forking(argv):
    """Return whether the command line is that of a child."""
    return len(argv) >= 2 and argv[1] == _MARK


def get_command_line(**kwds):
    """Return the command line of a child that calls `spawn_main(**kwds)`."""
    arguments = [f"{name}={value!r}" for name, value in kwds.items()]
    if getattr(sys, "frozen", False):
        return [sys.executable, _MARK, *arguments]
    program = f"from {__name__} import spawn_main; spawn_main({', '.join(arguments)})"
    return [*interpreter_for(program), _MARK]


#: The modules of this package that are run as processes of their own: helper=name in a frozen program.
_HELPERS = ("forkserver", "resource_tracker")


def helper_command_line(helper, **kwds):
    """Return the command line of a process that calls `main(**kwds)` of one of the helpers."""
    arguments = [f"{name}={value!r}" for name, value in kwds.items()]
    if getattr(sys, "frozen", False):
        return [sys.executable, _MARK, f"helper={helper}", *arguments]
    return interpreter_for(f"from {__package__}.{helper} import main; main({', '.join(arguments)})")


def interpreter_for(program):
    """Return the command line of an interpreter set like this one that runs `program`."""
    exe = get_executable()
    if exe is None:
        raise ValueError(
            "cannot start a Python interpreter: sys.executable is not set; "
            "say which with set_executable()"
        )
    # This package may not lie where a fresh interpreter looks: the program may have changed
    # sys.path, or been told by an environment that a flag has it ignore.  At the end of the path
    # it hides nothing, and the path is replaced as soon as the child is prepared.
    program = f"import sys; sys.path.append({_HOME!r}); {program}"
    return [exe, *util._args_from_interpreter_flags(), "-c", program]


_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def freeze_support():
    """Be the child, and do not return, if the command line is that of one."""
    if is_forking(sys.argv):
        arguments = dict(word.split("=", 1) for word in sys.argv[2:])
        helper = arguments.pop("helper", None)
        kwds = {name: None if value == "None" else int(value) for name, value in arguments.items()}
        if helper is None:
            spawn_main(**kwds)
        elif helper in _HELPERS:
            getattr(sys.modules[__package__], helper).main(**kwds)
        sys.exit()


def answer_if_frozen(package):
    """The same for a frozen program, as soon as it imports this package, which is `package`.

    Before the program has had a chance to start children in turn.  The command line is looked at
    closely: the standard library's children have one much like it.
    """
    ours = "arena_fd=", "helper="
    if is_forking(sys.argv) and any(word.startswith(ours) for word in sys.argv[2:]):
        # Other threads may import from the package, which would else wait until its import is over.
        package.__spec__._initializing = False
        freeze_support()


def spawn_main(
    arena_fd, locker_fd, data, obj, parent_pid, lifeline=None, daemon=0, tracker_fd=None, held=0
):
    """Be a child that was started afresh; does not return.

    `arena_fd` and `locker_fd` are the family's; `data` and `obj` say where in its arena the
    preparation data and the process object lie (see number_of); with the next three
    look_after_parent() is called.  held: the parent's thread had blocked SIGINT.
    """
    from . import _kin
    from ._watch import look_after_parent

    assert is_forking(sys.argv), "Not forking"
    # What is here stays until the end: no collection need look at it, those at the end least of all.
    gc.freeze()
    _kin.join_family(arena_fd, locker_fd)
    _share_tracker(tracker_fd)
    sys.exit(_main((data, obj), look_after_parent(parent_pid, lifeline, daemon), held))


def tracker_fd():
    """The descriptor by which a child shares the resource tracker, if there is one yet."""
    module = sys.modules.get(f"{__package__}.resource_tracker")
    return None if module is None else module._resource_tracker._fd


def _share_tracker(fd):
    if fd is not None:
        from . import resource_tracker

        os.set_inheritable(fd, False)
        resource_tracker._resource_tracker._fd = fd


def _main(numbers, parent_sentinel, held):
    """Take over what the parent has packed, and run it; return the exit code."""
    data, obj = map(claim, numbers)

    def get_ready():
        given = unpack(data)
        current = process.current_process()
        current.name = given.get("name", current.name)
        if not held:
            # ^C was held since before there was an interpreter, which would make much of it.
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
        prepare(given)

    return _run(obj, get_ready, parent_sentinel)


def _run(blob, get_ready, parent_sentinel):
    """Load the process object in `blob` once all is ready, run it, and return the exit code."""
    current = process.current_process()
    current._inheriting = True
    doing = "importing the main module of its program"
    try:
        get_ready()
        doing = "unpacking what it was started with"
        self = unpack(blob)
    except KeyboardInterrupt:
        current._say_interrupted()
        return 1
    except Exception as error:
        _report(error, doing)
        return 1
    finally:
        del current._inheriting
    return self._bootstrap(parent_sentinel)


def _report(error, doing):
    """Say why this process never began; the cause first, for a traceback may be long."""
    import traceback

    if sys.stderr is None:
        return
    name = process.current_process().name
    cause = "".join(traceback.format_exception_only(type(error), error)).strip()
    words = [f"{name} could not be started: {cause}\nThis happened while {doing}.\n"]
    shown = util._without_own_frames(error.__traceback__)
    if error.__cause__ or error.__context__:
        words += traceback.format_exception(type(error), error, shown)
    elif shown is not None:
        words += ["Traceback (most recent call last):\n", *traceback.format_tb(shown)]
    sys.stderr.write("".join(words))
    util._flush_std_streams()


def claim(number):
    """Take over the blob that a number from the parent means."""
    from . import _kin

    return _kin.claim(number.to_bytes((number.bit_length() + 7) // 8, "big")[1:])


def unpack(blob):
    """Return the object in `blob`, and give the blob back."""
    try:
        return blob.load()
    finally:
        blob.close()


# What the parent sends


def pack(process_obj, popen):
    """Return a blob, the process object, packed for a child that starts with nothing.

    Raises what keeps it from being sent.  `popen` is asked to pass on bare descriptors.
    """
    from . import _kin, _mainsource, pickle, reduction

    _check_not_importing_main()
    has_main = pickle.expect_fresh_member()
    context.set_spawning_popen(popen)
    try:
        return _kin.pack(process_obj)
    except Exception as error:
        parts = {name: getattr(process_obj, f"_{name}") for name in ("target", "args", "kwargs")}
        error = reduction.ForkingPickler.explain(error, parts)
        if not has_main and _mainsource.is_unguarded(sys.modules["__main__"]):
            error.args = (f"{error}\n\n{_NO_GUARD}",)
        raise error
    finally:
        context.set_spawning_popen(None)


def pack_data(data):
    """Return a blob: preparation data, packed for a child that is being started."""
    from . import _kin

    context.set_spawning_popen(True)  # the family's key may travel now
    try:
        return _kin.pack(data)
    finally:
        context.set_spawning_popen(None)


def number_of(blob):
    """What `blob` is called on a command line, where digits are safest: see claim()."""
    return int.from_bytes(b"\1" + blob.ref, "big")


_HOW_TO_GUARD = """\
put what the program is to do, and not only to define, under

    if __name__ == '__main__':
        freeze_support()  # only for frozen programs
        ...
"""
_NO_GUARD = (
    "The main module starts a process while it is being run, and so no child can import it: all "
    "that a child needs of it is sent along, and here that failed.  To have it imported, "
    f"{_HOW_TO_GUARD}"
)


def _check_not_importing_main():
    if getattr(process.current_process(), "_inheriting", False):
        raise RuntimeError(
            "An attempt has been made to start a new process before the current process has "
            "finished its bootstrapping phase.\n\n"
            "A child process imports the main module of its program, to find what is defined "
            f"there.  The module starts a process while it is imported: {_HOW_TO_GUARD}"
        )


def get_preparation_data(name):
    """Return, as a dict, what the child called `name` must know to load its process object."""
    _check_not_importing_main()
    start = process.ORIGINAL_DIR
    data = {
        "name": name,
        "log_to_stderr": util._log_to_stderr,
        "authkey": process.current_process().authkey,
        "sys_path": [start if entry == "" and start is not None else entry for entry in sys.path],
        "sys_argv": sys.argv,
        "orig_dir": start,
        "start_method": context._default_context.get_start_method(),
    }
    if util._logger is not None:
        data["log_level"] = util._logger.getEffectiveLevel()
    try:
        data["dir"] = os.getcwd()
    except FileNotFoundError:
        pass  # nobody can be there: the child stays where it starts
    if _is_aliased():
        data["alias"] = True
    data.update(_main_module())
    return data


def _is_aliased():
    alias = sys.modules.get(f"{__package__}._alias")
    return alias is not None and alias.is_installed()


def _main_module():
    """How the child can import the main module, if it can: by name, or by path."""
    from . import _mainsource

    main = sys.modules.get("__main__")
    if main is None:
        return {}
    if main.__name__ == "__main__":
        # Its names come back under the other one.  A debugger may have put it there since.
        sys.modules["__mp_main__"] = main
    if not _mainsource.is_run_again(main):
        return {}
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {"init_main_from_name": name}
    path = main.__file__
    if not os.path.isabs(path) and process.ORIGINAL_DIR is not None:
        path = os.path.join(process.ORIGINAL_DIR, path)
    return {"init_main_from_path": os.path.normpath(path)}


# What the child does with it

#: The main modules that were replaced, and must live on: they may be running.
old_main_modules = []


def prepare(data):
    """Act upon preparation data: make this process ready to load its process object."""
    current = process.current_process()
    if "name" in data:
        current.name = data["name"]
    if "authkey" in data:
        current.authkey = data["authkey"]
    if data.get("log_to_stderr"):
        util.log_to_stderr()
    if "log_level" in data:
        util.get_logger().setLevel(data["log_level"])
    if "sys_path" in data:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if "dir" in data:
        os.chdir(data["dir"])
    if "orig_dir" in data:
        process.ORIGINAL_DIR = data["orig_dir"]
    if "start_method" in data:
        context._default_context.set_start_method(data["start_method"], force=True)
    if data.get("alias"):
        from . import _alias

        _alias.install()
    if "init_main_from_name" in data:
        _import_main_named(data["init_main_from_name"])
    elif "init_main_from_path" in data:
        import_main_path(data["init_main_from_path"])


def import_main_path(main_path):
    """Have `__main__` and `__mp_main__` be the script at `main_path`, run under the second name.

    Nothing is done if that is what `__main__` is, as in the child of a prepared fork server, or for
    ipython, whose start script may have no guard.
    """
    if os.path.splitext(os.path.basename(main_path))[0] == "ipython":
        return
    if getattr(sys.modules["__main__"], "__file__", None) == main_path:
        return
    from . import _program

    _become_main(_program.at_path(main_path, "__mp_main__"))


def _import_main_named(name):
    if name == "__main__" or name.endswith(".__main__"):
        return  # a package's, a folder's or an archive's: meant to be run, not to be imported
    if getattr(getattr(sys.modules["__main__"], "__spec__", None), "name", None) == name:
        return
    from . import _program

    _become_main(_program.named(name))


def _become_main(program):
    """Run `program` as the main module, under both its names."""
    before = {name: sys.modules.get(name) for name in ("__main__", "__mp_main__")}
    old_main_modules.append(before["__main__"])
    module = type(sys)("__mp_main__")
    program.fill(module)
    sys.modules["__main__"] = sys.modules["__mp_main__"] = module
    try:
        program.run_in(module)
    except BaseException:
        sys.modules.update(before)
        raise
