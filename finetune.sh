#!/usr/bin/env bash
# Stage 3: the LLM learns to answer questions about ECGs, or to report.  bash finetune.sh [ENV FILE] [KEY=VALUE ...]   (default: env/ft_qa_ptbxl.env)
source "$(dirname "${BASH_SOURCE[0]}")/utils/launch.sh"
prepare_environment && run_stage run_main.py finetune env/ft_qa_ptbxl.env "$@"
