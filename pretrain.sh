#!/usr/bin/env bash
# Stage 2: the LLM learns the codes of ECGs as words.  bash pretrain.sh [ENV FILE] [KEY=VALUE ...]   (default: env/pretrain.env)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment && run_stage run_main.py pretrain env/pretrain.env "$@"
