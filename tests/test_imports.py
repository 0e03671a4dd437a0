"""Which part may import which: a reader who knows the arrows can read any part without what lies above it."""

import ast
import importlib
import subprocess
from graphlib import TopologicalSorter

from utils.tools import REPOSITORY

LAYERS = ("utils", "data_provider", "ecg_tokenizer", "model", "app", "run")
ROOMS = ("data_provider.read", "data_provider.prepare", "data_provider.simulate")
COMMANDS = ("data_provider.records",)  # it also tells what the ECG tokenizer loses of a file
ROOMS += ("ecg_tokenizer.quality", "utils.scores")


def module_name(path):
    return path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


def modules():
    """Name -> syntax tree of every module outside tests and benchmarks."""
    listed = subprocess.run(["git", "ls-files", "*.py"], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    paths = [path for path in listed.stdout.split() if not path.startswith(("tests/", "benchmarks/"))]
    return {module_name(path): ast.parse((REPOSITORY / path).read_text()) for path in paths}


def imports(tree, known):
    """Each import of our own, wherever it stands in the module: (the module meant, the name taken from it or None)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the whole path"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known:
                    yield inner, None
                elif node.module in known:
                    yield node.module, alias.name


def layer(name):
    if name in COMMANDS:
        return LAYERS.index("run")
    top = name.split(".")[0]
    return LAYERS.index("run" if top.startswith("run_") else top)


def room_of(name):
    return next((room for room in ROOMS if (name + ".").startswith(room + ".")), None)


def graph(known):
    return {name: {target for target, _ in imports(tree, known)} - {name} for name, tree in known.items()}


def wrong_arrows(edges):
    return sorted(f"{a} -> {b}" for a, targets in edges.items() for b in targets if layer(b) > layer(a))


def through_the_wall(known):
    """Imports from outside a room of something that the room's ``__init__`` does not name in ``__all__``."""
    found = []
    for name, tree in known.items():
        for target, taken in imports(tree, known):
            room = room_of(target)
            if room is None or room == room_of(name):
                continue
            public = importlib.import_module(room).__all__
            if taken is None and target.removeprefix(f"{room}.") in public:  # a function named as its module
                continue
            if target != room or (taken and taken not in public):
                found.append(f"{name} -> {target}{f'.{taken}' if taken else ''}")
    return sorted(found)


def test_no_module_imports_itself_by_way_of_others():
    TopologicalSorter(graph(modules())).prepare()  # raises CycleError, which names the circle


def test_imports_point_one_way():
    assert not wrong_arrows(graph(modules()))


def test_only_public_names_cross_a_rooms_door():
    assert not through_the_wall(modules())


def test_what_breaks_the_rules_is_found():
    known = {name: ast.parse("") for name in ("utils.a", "data_provider.read", "data_provider.read.leads", "model.b")}
    known["utils.a"] = ast.parse("def f():\n    from model import b\n")
    known["model.b"] = ast.parse("from data_provider.read import no_such_name, leads\n")
    assert wrong_arrows(graph(known)) == ["utils.a -> model.b"]
    room = "model.b -> data_provider.read"
    assert through_the_wall(known) == [f"{room}.leads", f"{room}.no_such_name"]
