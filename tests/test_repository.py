"""What a newcomer reads must be true: PROJECT_TREE.txt, and the table in docs/settings.md.

``python -m tests.test_repository`` writes both again. Commands, links and file names are tests/test_docs.py's.
"""

import ast
import re
import subprocess
from pathlib import Path

from utils.settings import table
from utils.tools import REPOSITORY

OTHER = {  # what files that hold no docstring are for
    ".ci/run": "what continuous integration calls",
    ".pre-commit-config.yaml": "hooks that check before a commit",
    "benchmarks": "scripts that measure every speed named in README and docs, and what the amplitude codes are worth",
    "docs": "settings, files, LLMs and hardware, your own data, clusters, Python",
    "corpora/wordnet.zip": "METEOR's WordNet, so that scoring needs no download",
    "ds_config_zero2.json": "DeepSpeed's settings",
    "ecg_tokenizer/EXPERIMENTS.md": "what was tried for the network, the failures too",
    "ecg_tokenizer/config.env": "stage 1's settings on PTB-XL",
    "ecg_tokenizer/pretrained": "a trained tokenizer, with its model card",
    "ecg_tokenizer/run_tokenizer.sh": "stage 1's launcher",
    "env": "one file a run; env/demo/ for the simulated data, env/reader/ for the reader in model/pretrained",
    "eval.sh": "the exam",
    "model/EXPERIMENTS.md": "what was tried for the small reader, the failures too",
    "model/pretrained": "a trained small LLM that answers and reports, with its model card",
    "finetune.sh": "stage 3",
    "pretrain.sh": "stage 2",
    "pyproject.toml": "settings of ruff and pytest",
    "quickstart.sh": "everything on simulated ECGs",
    ".github/workflows/test.yml": "the same on GitHub",
    "constraints.txt": "every package that the requirements pull in, pinned; python -m utils.lock makes it",
    "requirements-dev.txt": "what the tests need",
    "utils/scores/findings.toml": "rules that read findings from reports",
    "utils/scores/report_page.html": "the exam's page, as jinja2 fills it",
    "requirements.txt": "versions that work together",
    "requirements-readers.txt": "readers of other ECG formats",
    "requirements-optional.txt": "these readers, a generator of ECGs, and what smollm2 is read with",
    "ask.sh": "one's own ECG: ask about it",
    "test.sh": "all checks",
    "tests": "in the same folders as what they test",
    "utils/launch.sh": "what the launchers share",
}
FOLDED = ("tests/", "env/", "benchmarks/", "docs/", "ecg_tokenizer/pretrained/", "model/pretrained/")
NOT_LISTED = "README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff LICENSE PROJECT_TREE.txt .gitignore".split()
TREE, SETTINGS = REPOSITORY / "PROJECT_TREE.txt", REPOSITORY / "docs/settings.md"


def tree():
    """The repository as a tree, with a line a file: the first of its docstring."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout
    lines, folder = [], None
    names = {next((f.rstrip("/") for f in FOLDED if name.startswith(f)), name) for name in listed.split()}
    for name in sorted(names, key=lambda n: (str(Path(n).parent) != ".", n)):
        if name.endswith("__init__.py") or name in NOT_LISTED:
            continue
        path, parent = REPOSITORY / name, str(Path(name).parent)
        if parent not in (folder, "."):
            lines.append(f"{parent}/")
        folder = parent
        if name in OTHER:
            text = OTHER[name]
        elif name.endswith(".py"):
            first = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0]
            text = re.split(r"(?<=[a-z`'])\. |: ``", first)[0]
        else:
            continue
        shown = name if parent == "." else f"  {Path(name).name}"
        lines.append(f"{shown + ('/' if path.is_dir() else ''):<28}{text.rstrip('.')}")
    return "\n".join(lines) + "\n"


def with_table(page):
    """The page with the table of settings as it is now, from ``<!-- settings -->`` to the next heading."""
    return re.sub(r"(<!-- settings -->\n).*?(?=\n## )", lambda m: f"{m[1]}\n{table()}\n", page, flags=re.S)


def test_the_tree_and_the_table_of_settings_are_true():
    assert TREE.read_text() == tree(), "python -m tests.test_repository writes it"
    assert SETTINGS.read_text() == with_table(SETTINGS.read_text()), "python -m tests.test_repository writes it"


def test_no_file_of_code_has_outgrown_a_reader():
    long, command = {}, ["git", "ls-files", "*.py"]
    for path in subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.split():
        lines = len((REPOSITORY / path).read_text().splitlines())
        if lines > 360 and not path.startswith("tests/"):
            long[path] = lines
    assert not long


if __name__ == "__main__":
    TREE.write_text(tree())
    SETTINGS.write_text(with_table(SETTINGS.read_text()))
