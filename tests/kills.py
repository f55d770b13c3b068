"""A disk that fails at the n-th change of a folder, as after a kill or on a full disk."""

import builtins
import contextlib
import errno
import io
import os
from unittest import mock

_CHANGES = ("replace", "rename", "mkdir", "unlink", "remove", "rmdir", "chmod", "link", "symlink", "truncate")


class Killed(BaseException):
    """Stands for the end of the process."""


class Disk:
    """Counts the changes of files in a folder, and fails at one of them.

    Attributes:
        count: the number of changes so far. Changes are files that are made, opened for writing, synced (their content
            is then on the disk), moved or removed.
        fail_at: the number of the first change that does not happen, from 0; None if all happen.
        full: whether this change raises OSError, and later changes succeed (a full disk). Else it and all later changes
            raise `Killed`.
    """

    def __init__(self, folder, fail_at=None, full=False):
        self.folder, self.fail_at, self.full, self.count = os.path.abspath(folder), fail_at, full, 0
        self._handles = set()

    def _change(self, undo=None):
        number, self.count = self.count, self.count + 1
        if self.fail_at is None or number < self.fail_at or (self.full and number > self.fail_at):
            return
        if undo is not None and number == self.fail_at:
            undo()
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise Killed

    def _is_in(self, path):
        return isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.folder)

    @contextlib.contextmanager
    def watched(self):
        """Counts the changes while it is open."""
        patches = [mock.patch.object(os, name, self._watch(getattr(os, name))) for name in _CHANGES]
        patches += [mock.patch.object(os, "open", self._watch_open(os.open))]
        patches += [mock.patch.object(os, "fsync", self._watch_sync(os.fsync))]
        patches += [mock.patch.object(module, "open", self._watch_file(io.open)) for module in (io, builtins)]
        with contextlib.ExitStack() as stack:
            for patch in patches:
                stack.enter_context(patch)
            yield self

    def _watch(self, function):
        def watched(path, *args, **kwargs):
            if self._is_in(path):
                self._change()
            return function(path, *args, **kwargs)

        return watched

    def _watch_open(self, function):
        def watched(path, flags, *args, **kwargs):
            writes = self._is_in(path) and flags & (os.O_WRONLY | os.O_RDWR)
            if writes:
                self._change()
            handle = function(path, flags, *args, **kwargs)
            if writes:
                self._handles.add(handle)
            return handle

        return watched

    def _watch_file(self, function):
        def watched(path, mode="r", *args, **kwargs):
            if self._is_in(path) and set(mode) & set("wax+"):
                self._change()
            return function(path, mode, *args, **kwargs)

        return watched

    def _watch_sync(self, function):
        def watched(handle):
            # Data that was not synced may be lost in part.
            if handle in self._handles:
                self._change(lambda: os.ftruncate(handle, os.fstat(handle).st_size // 2))
            return function(handle)

        return watched


def changes_of(folder, action):
    """The number of changes of `folder` that an action makes."""
    with Disk(folder).watched() as disk:
        action()
    return disk.count


class StopAfter:
    """Stops a run, as Ctrl-C would, after it has asked `asked` times whether to stop."""

    def __init__(self, asked):
        self.left = asked

    def __call__(self):
        self.left -= 1
        return self.left < 0

    def listening(self):
        return contextlib.nullcontext()
