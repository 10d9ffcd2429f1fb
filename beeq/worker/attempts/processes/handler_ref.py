"""How a child process finds the handler: by its name in a module, or else pickled.

Job data never goes this way. The worker's side is ``HandlerRef.of``, the child's is ``load``.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import runpy
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAIN = "__main__"
#: The name under which a script is run where it is not the main one; ``multiprocessing`` chose it.
_MAIN_ELSEWHERE = "__mp_main__"


@dataclass(frozen=True, slots=True)
class HandlerRef:
    """Where a handler is.

    Attributes:
        module, name: it is this in that module; both empty where ``pickled`` has it.
        main_module, main_path: the main program, by either, if the handler needs it.
        pickled: the handler itself.
    """

    module: str = ""
    name: str = ""
    main_module: str = ""
    main_path: str = ""
    pickled: bytes = b""

    @classmethod
    def of(cls, handler: Callable[[Any], Any]) -> HandlerRef:
        """Return where ``handler`` is, or raise TypeError if a child process could not find it.

        Its name need not be bound yet: a decorator is called before that. See ``check``.
        """
        if isinstance(handler, types.FunctionType):
            module, name = handler.__module__, handler.__qualname__
            if "<" in name or not module:
                raise TypeError(
                    f"a handler for child processes must be importable by name, which {module}.{name} is not:"
                    " define it at the top level of a module"
                )
            main_module, main_path = _main_program() if module == _MAIN else ("", "")
            return cls(module, name, main_module, main_path)
        try:
            pickled = pickle.dumps(handler)
        except Exception as error:
            raise TypeError(
                f"a handler for child processes must be importable by name, or picklable: {error}"
            ) from error
        main_module, main_path = _main_program() if _MAIN.encode() in pickled else ("", "")
        return cls("", "", main_module, main_path, pickled)

    def check(self, handler: Callable[[Any], Any]) -> None:
        """Raise TypeError if the name means something else than the handler, once everything is imported."""
        if not self.module:
            return
        try:
            found = _member(sys.modules.get(self.module), self.name)
        except AttributeError:
            found = None
        if found is not handler:
            raise TypeError(
                f"a child process cannot find the handler: {self.module}.{self.name} is"
                f" {'something else' if found is not None else 'not there'}"
            )


def _main_program() -> tuple[str, str]:
    """Return the main program's module name, or else its path."""
    main = sys.modules[_MAIN]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != _MAIN:
        return str(spec.name), ""
    path = Path(str(getattr(main, "__file__", "")))
    if spec is not None:
        return "", str(path.parent)  # a folder or archive, with the program in it
    if not path.is_file():
        raise TypeError(
            "a handler for child processes must be defined in a file, not in an interactive session"
        )
    return "", str(path)


def _member(module: Any, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), module)


_is_loading = False


def refuse_while_loading() -> None:
    """Let no worker begin in a child process that only imports its handler's module.

    Raises:
        SystemExit: this is one. Nothing less ends the program that the import has started.
    """
    if _is_loading:
        raise SystemExit(
            "a child process imported its handler's module, and that began to work:"
            ' put what starts it below if __name__ == "__main__":'
        )


def load(handler_ref: HandlerRef) -> Callable[[Any], Any]:
    """Return the handler, importing what it takes; raise what its modules raise."""
    global _is_loading  # noqa: PLW0603 - a process loads once, and what is loaded may ask
    _is_loading = True
    try:
        _run_main(handler_ref)
        if handler_ref.pickled:
            handler = pickle.loads(handler_ref.pickled)  # noqa: S301 - the worker's own handler
        else:
            handler = _member(importlib.import_module(handler_ref.module), handler_ref.name)
    finally:
        _is_loading = False
    if not callable(handler):
        raise TypeError(f"the handler is not a function here, but {type(handler).__name__}")
    found: Callable[[Any], Any] = handler
    return found


def _run_main(handler_ref: HandlerRef) -> None:
    """Run the main program under another name, so that its ``if __name__ == "__main__"`` is not entered."""
    if handler_ref.main_module:
        members = runpy.run_module(handler_ref.main_module, run_name=_MAIN_ELSEWHERE, alter_sys=True)
    elif handler_ref.main_path:
        members = runpy.run_path(handler_ref.main_path, run_name=_MAIN_ELSEWHERE)
    else:
        return
    main = types.ModuleType(_MAIN_ELSEWHERE)
    main.__dict__.update(members)
    sys.modules[_MAIN] = sys.modules[_MAIN_ELSEWHERE] = main
