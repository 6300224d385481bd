"""Checks of what a plugin promises: its spec, its start-up, and what its factory returns."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scdrugmap.errors import PluginError
from scdrugmap.registry import get_registry
from scdrugmap.specs import Capability
from scdrugmap.testing.checks import CheckFailed, check
from scdrugmap.testing.subject import Subject

HEAVY_MODULES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "anndata",
    "scipy",
    "sklearn",
    "pandas",
    "h5py",
    "matplotlib",
)
"""What must not be imported before a model is used: each costs 0.3 to 10 seconds."""

_IMPORT_TIMEOUT_S = 120
_IMPORT_SCRIPT = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


@check("the plugin's package is imported without torch or another heavy package")
def check_light_import(subject: Subject) -> None:
    """Import the plugin in a process of its own, as every start of scdrugmap does."""
    spec = subject.spec
    modules = {spec.options.__module__}
    package, dot, _ = spec.factory.partition(":")[0].partition(".")
    if dot:
        modules.add(package)
    try:
        provided = get_registry().provided("model", spec.name)
        if provided.spec == spec:
            modules.add(provided.plugin.module.partition(":")[0])
    except PluginError:  # a spec under development, not installed
        pass
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_SCRIPT, *sorted(modules)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_IMPORT_TIMEOUT_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CheckFailed(f"importing {', '.join(sorted(modules))} fails: {last}")
    loaded = set(json.loads(done.stdout.strip().splitlines()[-1])) & set(HEAVY_MODULES)
    if loaded:
        raise CheckFailed(
            f"importing {', '.join(sorted(modules))} imports {', '.join(sorted(loaded))}: move "
            "these imports into the module that `factory` names"
        )


@check("spec and options come back unchanged from JSON")
def check_spec_survives_json(subject: Subject) -> None:
    """Write spec and options as JSON and read them again."""
    spec = subject.spec
    again = type(spec).model_validate_json(spec.model_dump_json())
    if again != spec:
        changed = [name for name in type(spec).model_fields if _differ(again, spec, name)]
        raise CheckFailed(f"the spec changes on its way through JSON: {', '.join(changed)}")
    options = subject.options
    assert options is not None
    back = type(options).model_validate_json(options.model_dump_json())
    if back != options:
        changed = [name for name in type(options).model_fields if _differ(back, options, name)]
        raise CheckFailed(f"the options change on their way through JSON: {', '.join(changed)}")
    if not isinstance(options, spec.options):
        raise CheckFailed(
            f"the options are a {type(options).__name__}, not the spec's {spec.options.__name__}"
        )


def _differ(left: Any, right: Any, name: str) -> bool:
    return bool(getattr(left, name) != getattr(right, name))


@check("the factory builds the model without weights, the same one for the same seed")
def check_builds_without_weights(subject: Subject) -> None:
    """Build with random tensors and look at the parts the contract names."""
    import torch
    from torch import nn

    from scdrugmap.modelkit.contract import Traits

    model = subject.build()
    if not isinstance(model.module, nn.Module):
        raise CheckFailed(f"module is a {type(model.module).__name__}, not a torch.nn.Module")
    if not isinstance(model.traits, Traits):
        raise CheckFailed(f"traits is a {type(model.traits).__name__}, not a Traits")
    for owner, name in [
        (model.tokenizer, "bind"),
        (model.tokenizer, "encode"),
        (model, "collate"),
        (model, "cost"),
    ]:
        if not callable(getattr(owner, name, None)):
            raise CheckFailed(f"{type(owner).__name__} has no method {name}")
    parts = dict(model.module.named_modules())
    if model.input_module not in parts or not model.input_module:
        raise CheckFailed(f"input_module {model.input_module!r} is no submodule of the network")
    if Capability.FINETUNE in subject.spec.capabilities and "layers" not in parts:
        raise CheckFailed("the network has no submodule `layers` (its trunk of repeated blocks)")
    wrong = [n for n, p in model.module.named_parameters() if p.dtype != torch.float32]
    if wrong:
        raise CheckFailed(f"parameters are not float32: {', '.join(wrong[:5])}")
    again, other = subject.build().module.state_dict(), subject.build(subject.seed + 1)
    for name, tensor in model.module.state_dict().items():
        if not torch.equal(tensor, again[name]):
            raise CheckFailed(f"two builds with one seed differ in {name}")
    parameters = dict(model.module.named_parameters())
    if (
        subject.weights is None
        and parameters
        and all(torch.equal(parameters[n], p) for n, p in other.module.named_parameters())
    ):
        raise CheckFailed("the seed does not change the random tensors")


@check("the global random generators are left as they were")
def check_global_rng_untouched(subject: Subject) -> None:
    """Build, tokenise and embed, and compare the states of numpy, torch and random."""
    subject.sample  # noqa: B018  making the cells is not the model's work
    before = _rng_states()
    model = subject.build()
    subject.encode(subject.sample, model)
    subject.embed(subject.sample, model)
    changed = [name for name, state in _rng_states().items() if state != before[name]]
    if changed:
        raise CheckFailed(
            f"the global generator of {', '.join(changed)} was used or seeded; draw from "
            "modelkit.generator or modelkit.token_keys, build inside modelkit.seeded"
        )


def _rng_states() -> dict[str, Any]:
    import torch

    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {
        "numpy": (name, np.asarray(keys).tobytes(), tuple(rest)),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "random": random.getstate(),
    }


@check("building, tokenising and embedding open no network connection")
def check_no_network(subject: Subject) -> None:
    """Run the model with the network blocked; even a try that is forgiven counts."""
    subject.sample  # noqa: B018
    with _network_blocked() as attempts:
        try:
            subject.embed(subject.sample, subject.build())
        except OSError as err:
            if not attempts:
                raise
            raise CheckFailed(f"the model uses the network: {attempts[0]}") from err
    if attempts:
        raise CheckFailed(f"the model tries to use the network: {attempts[0]}")


@contextmanager
def _network_blocked() -> Iterator[list[str]]:
    """Make every connection and name look-up fail inside the block; give what was tried."""
    attempts: list[str] = []

    def refuse(kind: str, place: int) -> Any:
        def refused(*arguments: Any, **named: Any) -> Any:
            attempts.append(f"{kind} {arguments[place] if len(arguments) > place else ''}".strip())
            raise OSError("the network is blocked by the conformance kit")

        return refused

    blocked: list[tuple[Any, str, Any]] = [
        (socket.socket, "connect", refuse("connect to", 1)),
        (socket.socket, "connect_ex", refuse("connect to", 1)),
        (socket.socket, "sendto", refuse("send to", 2)),
        (socket, "create_connection", refuse("connect to", 0)),
        (socket, "getaddrinfo", refuse("look up", 0)),
        (socket, "gethostbyname", refuse("look up", 0)),
    ]
    saved = [(owner, name, vars(owner).get(name)) for owner, name, _ in blocked]
    for owner, name, function in blocked:
        setattr(owner, name, function)
    try:
        yield attempts
    finally:
        for owner, name, original in saved:
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
