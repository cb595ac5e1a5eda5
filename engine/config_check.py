"""Checks a configuration as the engine would, and tells all there is to set: `python -m engine.config_check`.

The TOML text comes on standard input, with `--lake-file` if the dashboard wrote it; JSON goes to standard output:
{"error": text} or {"sections": {name: {about, keys: [{name, value, default, live}]}}, "rules": [...]}, secrets masked.
A process of its own, since the rules need the compiled kernels, which the dashboard does not load.
"""

from __future__ import annotations

import inspect
import json
import sys
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from engine.config import EngineConfig
from engine.errors import ConfigError
from engine.settings import EDITABLE, check_editable, is_live
from engine.toml_values import masked


def main() -> None:
    """Read, check, tell."""
    text = sys.stdin.read()
    try:
        told = describe(text, "--lake-file" in sys.argv[1:])
    except ConfigError as error:
        told = {"error": str(error)}
    json.dump(told, sys.stdout)


def describe(text: str, lake_file: bool = False) -> dict[str, Any]:
    """See above. Raises ConfigError."""
    from engine.capture.bpf import compile_filter
    from engine.config import parse_config
    from engine.detect.rules import RULES, parameters_of
    from engine.detect.rules.python_files import load

    config = check_editable(text, "engine.toml") if lake_file else parse_config(text, "configuration")
    if config.capture.bpf_filter:
        compile_filter(config.capture.bpf_filter, 1, config.capture.snaplen).close()  # for Ethernet
    own = [rule for path in config.rules.files.python for rule in load(path)]
    parameters, usual = parameters_of(config.rules.given, own), EngineConfig()
    rules = [
        {"name": rule.name, "about": _about(rule.parameters), "own": rule in own,
         "keys": [
             {"name": f.name, "value": getattr(parameters[rule.name], f.name),
              "default": getattr(rule.parameters(), f.name)}
             for f in fields(rule.parameters)
         ]}
        for rule in (*RULES, *own)
    ]  # fmt: skip
    sections = {
        name: {
            "about": _about(type(getattr(config, name))),
            "keys": [
                {"name": key, "value": _plain(getattr(getattr(config, name), key)),
                 "default": _plain(getattr(getattr(usual, name), key)), "live": is_live(name, key)}
                for key in keys
            ],
        }
        for name, keys in EDITABLE.items()
    }  # fmt: skip
    files = {
        "signatures": [*config.signatures.files, *config.signatures.patterns], "intel": list(config.intel.lists),
        "sigma": list(config.sigma.files), "rules": list(config.rules.files.python),
        "sql": [rule.file for rule in config.rules.files.sql],
    }  # fmt: skip
    return {"sections": sections, "rules": rules, "files": files, "lake": config.lake.path}


def _about(kind: type) -> str:
    text = inspect.getdoc(kind) or ""
    return "" if text.startswith(f"{kind.__name__}(") else text  # what dataclasses say of themselves


def _plain(value: Any) -> Any:
    """As JSON, secrets masked."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        hidden = {f.name for f in fields(value) if "secret" in f.metadata}
        return {k: masked(v) if k in hidden else _plain(v) for k, v in asdict(value).items()}
    return value


if __name__ == "__main__":
    main()
