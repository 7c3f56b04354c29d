"""Calls something when a package has been imported: transformers has no place where a library announces itself."""

import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def call_once_loaded(package: str, within: str, call: Callable[[], object]) -> None:
    """Call a function as soon as a package is imported, by whomever, and none of our own modules is half imported.

    Args:
        package: Which may be imported already.
        within: Our own package.
        call: Called once.
    """
    if package in sys.modules:
        call()
    else:
        sys.meta_path.insert(0, _Watch(package, within, call))


class _Watch(MetaPathFinder):
    """Finds nothing by itself, but sees which modules begin and end."""

    def __init__(self, package: str, within: str, call: Callable[[], object]):
        self.package, self.within, self.call = package, within, call
        self.depth = 0  # of our own modules that are being imported, one because of the other

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        is_own = name.startswith(f"{self.within}.")
        if not is_own and name != self.package:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _WatchedLoader(spec.loader, self, is_own)
                return spec
        return None

    def done(self) -> None:
        """A module has been imported."""
        if self.depth == 0 and self.package in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            self.call()


class _WatchedLoader(Loader):
    """The loader of a module, and a note before and after."""

    def __init__(self, loader: Loader, watch: _Watch, is_own: bool):
        self.loader, self.watch, self.is_own = loader, watch, is_own

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # what runs a module by its name asks for its code

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        self.watch.depth += self.is_own
        try:
            self.loader.exec_module(module)
        finally:
            self.watch.depth -= self.is_own
        self.watch.done()


__all__ = ["call_once_loaded"]
