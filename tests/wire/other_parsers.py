"""Report parsers that other people wrote, as packages that the tests install."""

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def tinfoil_reports() -> ModuleType:
    """tinfoil's report parser alone: the package around it imports a whole API client."""
    package = importlib.util.find_spec("tinfoil")
    assert package is not None
    assert package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "attestation" / "abi_sev.py"
    spec = importlib.util.spec_from_file_location("tinfoil_reports", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
