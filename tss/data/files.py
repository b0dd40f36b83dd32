"""Files that appear whole or not at all; locks, JSON, hashes.

In:  a path and a function that writes it.
Out: the file, complete, under its name; or an InputError that says what is wrong, where, and what to do.
Paper: none (our choice: an interrupted cluster job must never leave half a file that looks complete).
See: tests/data/test_files.py
"""

import csv
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tss.data.shapes import why_not
from tss.errors import InputError, advice

try:
    import fcntl
except ImportError:  # Windows: nothing is locked
    pass

LOCK = ".lock"
FOLDER = ".folder"  # after the name of the file whose lock tells that it is in use
MUCH = 65536  # bytes: more than a full disk takes
REMEDY = "Delete it and run the step that makes it, with --overwrite where it asks for that."


def write_whole(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Let `write(temporary path)` write a file beside `path`, then rename it into place.

    The temporary name keeps the suffixes of `path`, since nibabel and matplotlib choose the format by them. What a run
    that was killed here has left half-written is removed.

    Raises InputError: the folder is not writable, the disk is full, or another error of the file system.
    """
    path = Path(path)
    # Not the process's number: on two nodes, or in two containers, it may be the same.
    beside = path.with_name(f".{secrets.randbits(64)}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        with open(beside, "ab") as half:
            _lock(half)  # so that no sweep takes it for one that was left
            try:
                write(beside)
            except OSError as error:
                if error.errno is None:  # a library's own says no more than "problem writing": is the disk full?
                    half.write(bytes(MUCH))
                    half.flush()
                raise
            with open(beside, "rb") as written:  # a rename that outlives its data would be half a file after a crash
                os.fsync(written.fileno())
            os.replace(beside, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}. {advice(error)}") from error
    finally:
        with suppress(OSError):  # where the folder itself was refused there is nothing to remove either
            beside.unlink(missing_ok=True)


@contextmanager
def folder_beside(path: str | os.PathLike) -> Iterator[Path]:
    """Make an empty folder to work in, beside `path`, and remove it at the end with what is left in it.

    That of a run that was killed is removed by the next that comes here, or by `sweep`.

    Raises InputError: it cannot be made.
    """
    path = Path(path)
    mark = path.with_name(f".{secrets.randbits(64)}.{path.name}")
    folder = mark.with_name(mark.name + FOLDER)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        lock_file = open(mark, "ab")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{mark} cannot be written: {error.strerror or error}. {advice(error)}") from error
    with lock_file as half:
        _lock(half)  # no folder can be locked everywhere
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                mark.unlink(missing_ok=True)


def sweep(folder: str | os.PathLike, *names: str) -> None:
    """Remove what `write_whole` and `folder_beside` left in a folder, in a run that was killed; not what is in use.

    names: of the files whose halves are meant; none = all. Where the file system has no locks, nothing is removed.
    """
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        half = re.fullmatch(r"\.\d+\.(.+)", name) if name.startswith(".") else None
        if half and (not names or half[1] in names):
            with suppress(OSError), open(Path(folder, name), "r+b") as left:
                if _lock(left):
                    shutil.rmtree(f"{left.name}{FOLDER}", ignore_errors=True)
                    os.unlink(left.name)


def _lock(file: IO) -> bool:
    """Lock a file until it is closed, or its process ends; False: another holds it, or the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, NameError):  # Windows has no fcntl
        return False
    return True


@contextmanager
def alone_in(folder: str | os.PathLike) -> Iterator[None]:
    """Keep other processes, on this machine or another node, from writing to a folder in the meantime.

    The system holds the lock and releases it when the process ends, however it ends. Where the file system has none
    (ENOSYS on some clusters), nothing is locked.

    Raises InputError: another process is writing there, which is named.
    """
    folder = Path(folder)
    path, new = folder / LOCK, not os.path.lexists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock_file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}. {advice(error)}") from error
    with lock_file as lock:
        try:
            if os.name == "posix":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"{folder} is being written by another run: {lock.read().strip()}. Wait until it ends, or "
                "give each run its own --out."
            ) from error
        except OSError:
            pass
        job = os.environ.get("SLURM_JOB_ID")
        who = f"process {os.getpid()} on {socket.gethostname()}{f', Slurm job {job}' if job else ''}\n"
        with suppress(OSError):  # a full disk holds the lock all the same
            os.ftruncate(lock.fileno(), 0)
            os.write(lock.fileno(), who.encode())
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if new:
                with suppress(OSError):  # not empty: the results are there
                    folder.rmdir()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a UTF-8 text file, whole."""
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8", newline="\n"))


def as_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as the text of a CSV table; the columns are the first row's, and None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_json(path: str | os.PathLike, content: object) -> None:
    """Write plain Python values as indented JSON, whole. NaN, which JSON lacks, is refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def why_unreadable(path: str | os.PathLike) -> str:
    """Return why a path is no file that can be read to its end, "" where it is one.

    Pipes and devices are none: they would be waited for, or read, without end.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return error.strerror or str(error)
    except ValueError:  # a NUL
        return "no file can have such a name"
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    if stat.S_ISREG(mode):
        return ""
    return f"it is {next((words for is_it, words in kinds.items() if is_it(mode)), 'a socket')}, not a file"


def read_bytes(path: str | os.PathLike, remedy: str) -> bytes:
    """Read a file's bytes. Raises InputError, which ends with the remedy: there is none, or it cannot be read."""
    why = why_unreadable(path)
    try:
        if not why:
            return Path(path).read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
    shown = os.fspath(path)
    raise InputError(f"{shown[:200]}{'...' if len(shown) > 200 else ''} cannot be read: {why}. {remedy}")


def read_json(path: str | os.PathLike, shape: object = dict, remedy: str = REMEDY) -> dict:
    """Read a JSON object, of this suite or beside a table; editors on Windows put a byte-order mark before it.

    shape: what it must hold, as tss.data.shapes declares it. remedy: what to do where it does not.

    Raises InputError: missing, unreadable, not a JSON object, or of another shape.
    """
    content = read_bytes(path, remedy)
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not complete JSON ({error}). {remedy}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds {type(value).__name__}, not a JSON object. {remedy}")
    if why := why_not(value, shape):
        raise InputError(f"{path}: {why}. {remedy}")
    return value


def sha256(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    why = why_unreadable(path)
    try:
        if not why:
            with open(path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        why = error.strerror or str(error)
    raise InputError(f"{path} cannot be read: {why}. Check the path, and who may read the file.")
