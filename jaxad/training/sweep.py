"""Many runs below one folder, one after the other here, and as many at once as processes are started on it.

Every process goes through all runs: it takes those that nobody is at, leaves out those that are done, and looks at the
others once more at its end, since whoever was at them may have died. What keeps a run for one process is the lock on
its folder that every run has, so processes may be started on other devices, or on other hosts that share the folder.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from jaxad import parallel
from jaxad.config import to_json
from jaxad.errors import ConfigError, InUseError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text, read_object
from jaxad.io.locks import LOCK, is_free
from jaxad.io.progress import Reporter
from jaxad.io.text import visible
from jaxad.io.untrusted import nested_names, path_fault
from jaxad.training.run_folder import in_use

S = TypeVar("S")
R = TypeVar("R")


@dataclass(frozen=True)
class Sweep(Generic[R]):
    """What came of the runs, by name.

    Attributes:
        done: what the work of each returned; of `sweep` None for those that had their result before.
        elsewhere: those that another process is at, and what is known of it.
        failed: those whose work raised an error.
    """

    done: dict[str, R] = field(default_factory=dict)
    elsewhere: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)


def sweep(
    root: Path | str,
    settings: Mapping[str, S],
    work: Callable[[Path, S], R],
    *,
    result: str = "",
    reporter: Reporter | None = None,
) -> Sweep[R | None]:
    """Does the same work under each of some settings, in a folder of its own: `root`/NAME.

    The setting of each is kept beside its folder, in NAME.json, without what changes no result, and another one under
    the same name is refused. An error in one run does not keep the others from being done.

    Args:
        root: folder of all.
        settings: by name, which may have slashes, e.g. "depth-2/seed-0"; config dataclasses, dictionaries, lists,
            tuples and plain values, which may hold each other.
        work: called with the folder and the setting, and resumes what it finds there, as `jaxad.fit` does.
        result: file below the run's folder that its work writes last, e.g. "report/report.json"; a run that has it is
            done. "" calls the work of all.
        reporter: says what happens; None is silent.

    Raises:
        ConfigError: names that are no folders, or settings that differ from those kept; all are listed.
    """
    root, reporter = Path(root), reporter or Reporter(quiet=True)
    texts = {name: json_text(_plain(setting), indent=2) + "\n" for name, setting in settings.items()}
    problems = [f"{name!r}: {fault}" for name in settings if (fault := path_fault(name) or (not name and "no name"))]
    problems += [f"{name!r}: lies in the folder of another one" for name in nested_names(settings)]
    if not problems:
        problems = [line for name, text in texts.items() for line in _changed(root / f"{name}.json", text)]
    if problems:
        raise ConfigError("\n  ".join([f"{root}: these settings cannot be run:", *problems]))

    def one(name: str) -> R | None:
        folder = root / name
        if result and parallel.from_main((folder / result).is_file()):
            reporter.say(f"{visible(folder)}: done before")
            return None
        if parallel.is_main_process():
            write_whole(root / f"{name}.json", texts[name])
        return work(folder, settings[name])

    return spread(root, tuple(settings), one, reporter)


def spread(root: Path, names: Sequence[str], work: Callable[[str], R], reporter: Reporter) -> Sweep[R]:
    """Does the work of every name whose folder below `root` no other process is at, holding the folder meanwhile.

    Args:
        root: folder of all.
        names: of the runs.
        work: called with a name.
        reporter: says which runs are left out.
    """
    swept: Sweep[R] = Sweep()
    for again in (False, True):
        for name in list(swept.elsewhere) if again else names:
            folder = root / name
            # The main process looks, so that those of a run on several hosts stay together.
            if again and not parallel.from_main(is_free(folder / LOCK)):
                continue
            swept.elsewhere.pop(name, None)
            try:
                with in_use(folder):
                    swept.done[name] = work(name)
            except InUseError as error:
                swept.elsewhere[name] = str(error)
                if not again:
                    reporter.say(f"{visible(folder)}: left to the process that is at it")
            except Exception as error:
                # A process of several that is alone now can do nothing more.
                if getattr(error, "abrupt", False):
                    raise
                swept.failed[name] = error
                reporter.warn([f"{visible(folder)}: {error}"])
    return swept


def _changed(file: Path, text: str) -> list[str]:
    """What differs from the setting that is kept in a file, a line for each value."""
    if not file.is_file():
        return []
    old, new = read_object(file, error=ConfigError), json.loads(text)
    names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
    return [f"{file}: {name}: {old.get(name)!r} there, {new.get(name)!r} now; give it another name" for name in names]


def _plain(value: Any) -> Any:
    """A setting as JSON values; those that are no object are that of the name "setting"."""
    plain = _json(value)
    return plain if isinstance(plain, dict) else {"setting": plain}


def _json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        resources = getattr(value, "RESOURCES", ())
        return {name: inner for name, inner in to_json(value).items() if name not in resources}
    if isinstance(value, Mapping):
        return {str(name): _json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
