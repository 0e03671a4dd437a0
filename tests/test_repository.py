"""What a newcomer reads must be true: the tree, the table of settings, the examples.

``python -m tests.test_repository`` writes the tree and the table again where they stand.
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
    "benchmarks": "what measures every speed named here, and what the amplitude codes give",
    "corpora/wordnet.zip": "METEOR's WordNet, so that scoring needs no download",
    "ds_config_zero2.json": "DeepSpeed's settings",
    "ecg_tokenizer/EXPERIMENTS.md": "what was tried for the network, the failures too",
    "ecg_tokenizer/config.env": "stage 1's settings on PTB-XL",
    "ecg_tokenizer/pretrained": "a trained tokenizer, with its model card",
    "ecg_tokenizer/run_tokenizer.sh": "stage 1's launcher",
    "env": "one file a run; env/demo/ for the simulated data",
    "eval.sh": "the exam",
    "finetune.sh": "stage 3",
    "pretrain.sh": "stage 2",
    "pyproject.toml": "settings of ruff and pytest",
    "quickstart.sh": "everything on simulated ECGs",
    "requirements.txt": "versions that work together",
    "requirements-optional.txt": "readers of other ECG formats, and a generator of ECGs",
    "test.sh": "all checks",
    "tests": "one file a part",
    "utils/launch.sh": "what the launchers share",
}
FOLDED = ("tests/", "env/", "benchmarks/", "ecg_tokenizer/pretrained/")
UNSAID = ("README.md", "LICENSE", "CONTRIBUTING.md", "PROJECT_TREE.txt", "CITATION.cff", ".gitignore")


def tree():
    """The repository as a tree, with a line a file: the first of its docstring."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=REPOSITORY, check=True).stdout
    lines, folder = [], None
    names = {next((f.rstrip("/") for f in FOLDED if name.startswith(f)), name) for name in listed.split()}
    for name in sorted(names, key=lambda n: (str(Path(n).parent) != ".", n)):
        if name.endswith("__init__.py") or name in UNSAID:
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


def between(text, marker, block):
    """``text`` with what follows ``<!-- marker -->`` (up to the next heading) replaced by the block."""
    return re.sub(rf"(<!-- {marker} -->\n).*?(?=\n## |\n`LLM`)", lambda m: m.group(1) + "\n" + block, text, flags=re.S)


def written(readme):
    """The README with the tree and the table as they are now."""
    return between(between(readme, "tree", f"```\n{tree()}```\n"), "settings", table() + "\n")


def test_the_readme_and_the_tree_are_true():
    assert (REPOSITORY / "PROJECT_TREE.txt").read_text() == tree(), "python -m tests.test_repository writes it"
    readme = (REPOSITORY / "README.md").read_text()
    assert readme == written(readme), "python -m tests.test_repository writes it"


def test_every_file_that_the_readme_names_is_there():
    readme = (REPOSITORY / "README.md").read_text()
    named = set(re.findall(r"(?:env|ecg_tokenizer|corpora|benchmarks)/[\w/]+\.(?:env|sh|py|md|zip|json)", readme))
    assert named and not [name for name in named if not (REPOSITORY / name).exists()]


def test_no_file_of_code_has_outgrown_a_reader():
    long, command = {}, ["git", "ls-files", "*.py"]
    for path in subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY).stdout.split():
        lines = len((REPOSITORY / path).read_text().splitlines())
        if lines > 360 and not path.startswith("tests/"):
            long[path] = lines
    assert not long


if __name__ == "__main__":
    (REPOSITORY / "PROJECT_TREE.txt").write_text(tree())
    text = (REPOSITORY / "README.md").read_text()
    (REPOSITORY / "README.md").write_text(written(text))
