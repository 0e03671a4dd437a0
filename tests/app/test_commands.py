"""``heartllm COMMAND`` is the ``python -m`` form, or somebody who installed the project would get other results."""

import runpy
import sys
import tomllib
from pathlib import Path

import pytest

from app.commands import COMMANDS, command, main
from utils.tools import REPOSITORY


def test_help_lists_every_command_and_an_unknown_one_is_one_line(capsys):
    main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    with pytest.raises(SystemExit) as stop:
        main(["raed"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_the_main_of_its_module(name, capsys, monkeypatch):
    module = COMMANDS[name][0].removesuffix(".__main__")
    texts = []
    for start in (lambda: main([name, "--help"]), lambda: runpy.run_module(module, run_name="__main__")):
        monkeypatch.setattr(sys, "argv", [module, "--help"])
        with pytest.raises(SystemExit) as stop:
            start()
        assert stop.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and f"python -m {module}" in texts[0]
    assert command(name) is sys.modules[COMMANDS[name][0]].main


def test_every_package_is_named_so_that_an_install_has_it():
    said = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    top = ("app", "data_provider", "ecg_tokenizer", "model", "utils")
    folders = [path.parent for name in top for path in (REPOSITORY / name).rglob("__init__.py")]
    assert sorted(said) == sorted(".".join(folder.relative_to(REPOSITORY).parts) for folder in folders)


def test_every_requirement_is_pinned_as_the_lock_says():
    def pins(path):
        return {
            line.strip() for line in Path(REPOSITORY / path).read_text().splitlines() if line[:1] not in ("#", "-", "")
        }

    wanted = set().union(*(pins(f"requirements{part}.txt") for part in ("", "-dev", "-readers", "-optional")))
    assert wanted and wanted <= pins("constraints.txt"), "python -m utils.lock makes it"


def test_an_install_follows_every_line_of_its_requirements():
    """setuptools refuses files that include others (-r): ``pip install -e .`` would end in a traceback."""
    said = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    files = [name for part in (said["dependencies"], *said["optional-dependencies"].values()) for name in part["file"]]
    lines = [line for name in files for line in (REPOSITORY / name).read_text().splitlines()]
    assert "requirements.txt" in files and not [line for line in lines if line.startswith("-")]
