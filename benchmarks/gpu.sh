#!/usr/bin/env bash
# Everything that needs a GPU, measured in one command of less than ten minutes:
#     bash benchmarks/gpu.sh [--device cpu --small]
# Writes benchmarks/results/<card>.json with versions and commit; `python -m benchmarks.results` prints the docs' table.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python}" benchmarks/gpu.py "$@"
