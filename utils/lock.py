"""Pin what the requirements pull in, all the way down: ``python -m utils.lock`` writes constraints.txt.

pip resolves the three requirements files together, without installing anything, and says what it would install. Run it
on Linux with the Python that is to be supported; it takes pip 22.2 or newer and about as long as a download.
"""

import json
import subprocess
import sys

from utils.tools import REPOSITORY, UserError, entry_point, write_atomically

REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "requirements-optional.txt")
LOCK = "constraints.txt"
HEAD = """\
# What the three requirements files come to, all the way down: pip install -r requirements.txt -c constraints.txt
# python -m utils.lock makes it. Packages that only other platforms need (CUDA's, pinned by torch itself) are not in it.
"""


@entry_point
def main(argv):
    """Resolve, and write the file."""
    if argv:
        raise UserError("usage: python -m utils.lock")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    for name in REQUIREMENTS:
        command += ["-r", str(REPOSITORY / name)]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        raise UserError("pip cannot resolve the requirements (its lines above say why)")
    pins = pinned(json.loads(answer.stdout))
    write_atomically(REPOSITORY / LOCK, lambda path: path.write_text(HEAD + "\n".join(pins) + "\n", encoding="utf-8"))
    print(f"{LOCK}: {len(pins)} packages")


def pinned(report):
    """The lines ``name==version`` of pip's installation report, sorted.

    A local part of a version (``2.13.0+cpu``) names a build, not a version, and goes.
    """
    parts = [part["metadata"] for part in report["install"]]
    found = {part["name"].lower().replace("_", "-"): part["version"] for part in parts}
    return [f"{name}=={version.split('+')[0]}" for name, version in sorted(found.items())]


if __name__ == "__main__":
    main()
