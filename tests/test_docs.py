"""What README and docs/ say must be true: their commands run, their links lead somewhere, what they name is there.

A block of commands below ``<!-- run -->`` is run in a copy of the repository, on small data under the names that the
pages use; the blocks of a page in their order, in one folder. ``<!-- run slow -->`` is left to the slow tests. Settings
behind a colon (``<!-- run slow: MAX_STEPS=2 -->``) are added to the launchers' lines, which stand as users type them.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.settings import FIELDS
from utils.tools import REPOSITORY

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
OTHERS = [
    REPOSITORY / name
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "ecg_tokenizer/pretrained/README.md", "model/pretrained/README.md")
]
BLOCK = re.compile(r"<!-- run( slow)?(?:: ([^>]*?))? -->\n```(bash|python)\n(.*?)```", re.S)
MADE_BY_RUNS = ("ecg_tokenizer/result_tokenzier", "benchmarks/results/")
TABLE = """file,patient_id,report,split
one,1,sinus rhythm.,train
two,2,sinus rhythm.,train
three,3,normal ecg.,valid
four,4,normal ecg.,test
"""


def blocks(page, slow):
    """The runnable blocks of a page: (language, commands), with the settings that they are run with."""
    found = []
    for is_slow, added, language, text in BLOCK.findall(page.read_text()):
        if slow or not is_slow:
            text = re.sub(r"\\\n\s*", "", text)
            found.append((language, re.sub(r"^(bash .*)$", rf"\1 {added}", text, flags=re.M) if added else text))
    return found


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The repository's files in a folder of their own, with small data under the names that the pages use."""
    from data_provider.read import read_record, write_record
    from data_provider.simulate import simulate

    folder = tmp_path_factory.mktemp("clone") / "heartllm"
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout.splitlines()
    for name in filter(lambda name: (REPOSITORY / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, folder / name)
    simulate(folder / "data/ptbxl", 60, seed=0, progress=False)
    signals = [read_record(path).signal for path in sorted((folder / "data/ptbxl").rglob("*.hea"))[:4]]
    for name, signal in zip(("one", "two", "three", "four"), signals, strict=True):
        (folder / "my_ecgs").mkdir(exist_ok=True)
        write_record(folder / "my_ecgs" / name, np.rint(signal * 1000).astype(np.int16), 500)
        (folder / "arrays").mkdir(exist_ok=True)
        np.save(folder / f"arrays/{name}.npy", signal)
    write_record(folder / "my_ecg", np.rint(signals[0] * 1000).astype(np.int16), 500)
    np.savetxt(folder / "my_array.csv", 1000 * signals[0][:, ::2].T, "%.1f", ",")
    (folder / "my.csv").write_text(TABLE)
    return folder


def run_page(page, folder, slow=False):
    """Run a page's blocks in ``folder``; what a command prints is shown when it fails."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "PATH": path, "PYTHONPATH": str(folder)}
    for language, group in itertools.groupby(blocks(page, slow), lambda block: block[0]):
        text = "".join(text for _, text in group)  # what a reader types in one session
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
        assert done.returncode == 0, f"{page.name}:\n{text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, slow=False)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(page, clone):
    """Else a newcomer's first command fails."""
    run_page(page, clone)


@pytest.mark.slow
def test_the_three_stages_of_the_readme_run_and_every_field_is_described(clone):
    """The README's way from records to scores, then the other pages; then docs/files.md against what was written."""
    for page in PAGES:
        run_page(page, clone, slow=True)
    described = set(re.findall(r"`([\w-]+)`", (REPOSITORY / "docs/files.md").read_text()))
    missing = {}
    for path, keys in written_fields(clone):
        unknown = sorted(key for key in keys if key not in described)
        if unknown:
            missing[str(path.relative_to(clone))] = unknown
    assert not missing


def written_fields(folder):
    """(file, names of its fields) of every JSON file that the README's commands have left."""
    runs = folder / "results"
    for pattern in ("*/started.json", "*/finished.json", "*/metrics.json", "*/checkpoint/*/heartllm.json"):
        assert list(runs.glob(pattern)), pattern
        for path in runs.glob(pattern):
            yield path, json.loads(path.read_text()).keys()
    stores = [path.parent for path in runs.glob("codes/ptbxl_*/codes.npy")]
    assert stores
    for store in stores:
        yield store / "meta.json", json.loads((store / "meta.json").read_text()).keys()
    lines = [store / "index.jsonl" for store in stores]
    lines += [*runs.glob("*/log.jsonl"), *runs.glob("*/predictions.jsonl")]
    for path in [*lines, folder / "ecg_tokenizer/result_tokenzier/log.jsonl"]:
        yield path, {key for line in path.read_text().splitlines() for key in json.loads(line)}
    for path in (folder / "dataset").glob("*/ptbxl/dataset_card.json"):
        card = json.loads(path.read_text())
        yield path, {*card, *card["records"], *card["reports"], *card["leak_check"]}
    for path in (folder / "dataset").glob("*/ptbxl/t*.json"):
        yield path, {key for item in json.loads(path.read_text()) for key in item}
    yield runs / "quality/quality.json", json.loads((runs / "quality/quality.json").read_text()).keys()
    quality = folder / "dataset/mine/quality.csv"
    yield quality, quality.read_text().split("\n")[0].split(",")


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere(page):
    """Relative links name a file that is there, and a heading that it has."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), flags=re.M)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, link


@pytest.mark.parametrize("page", [*PAGES, OTHERS[0]], ids=lambda page: page.name)
def test_files_modules_and_settings_that_a_page_names_are_there(page):
    """A renamed file or setting must not live on in the documentation."""
    text = page.read_text()
    rooms = {path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith(".")}
    rooms -= {"results", "dataset", "data", "runs"}
    named = {name.rstrip(".") for name in re.findall(rf"(?<![\w/.-])(?:{'|'.join(sorted(rooms))})/[\w/.-]*", text)}
    named |= set(re.findall(r"(?<![\w/.*-])(?:\w+\.sh|run_\w+\.py|ds_config\w*\.json|requirements[\w-]*\.txt)", text))
    assert not [name for name in named if not (REPOSITORY / name).exists() and not name.startswith(MADE_BY_RUNS)]
    modules = {name.replace(".", "/") for name in re.findall(r"python -m ([a-z_]+(?:\.[a-z_]+)+)", text)}
    places = {name: [REPOSITORY / f"{name}.py", REPOSITORY / name / "__main__.py"] for name in modules}
    assert not [name for name, paths in places.items() if not any(path.is_file() for path in paths)]
    settings = set(re.findall(r"(?<![\w$-])([A-Z][A-Z_]{2,})=", text)) - {"KEY"}
    assert settings <= set(FIELDS), settings - set(FIELDS)


def test_the_index_lists_every_page():
    """Else a page is written that nobody finds."""
    index = (REPOSITORY / "docs/README.md").read_text()
    assert not [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index]
