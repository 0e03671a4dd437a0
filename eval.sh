#!/usr/bin/env bash
# Generate answers or reports, and score them.  bash eval.sh [ENV FILE] [KEY=VALUE ...]   (default: env/test_qa_ptbxl.env)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment && run_stage run_eval.py eval env/test_qa_ptbxl.env "$@"
