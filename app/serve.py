"""An exported model behind an OpenAI-compatible endpoint: ``python -m app.serve DIR``, by ``transformers serve``."""

import argparse
import os
import tempfile
from pathlib import Path

from utils.tools import UserError, entry_point, read_json

CARD, LOOPBACK = "heartllm.json", ("127.0.0.1", "localhost", "::1")


def build_parser():
    parser = argparse.ArgumentParser(prog="python -m app.serve", description="Serve an exported model.")
    add = parser.add_argument
    add("folder", metavar="DIR", help="what heartllm export made")
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=int, default=8000)
    add("--device", default="auto", help="cpu, cuda:0, ... (default: auto)")
    return parser


@entry_point
def main(argv):
    """Serve until stopped."""
    options = build_parser().parse_args(argv)
    folder, card = read_export(options.folder)
    if not card["text_prompts"]:
        raise UserError(
            f"{folder}: its prompts must be sent as token ids; transformers serve takes none, vllm serve does"
        )
    if options.host not in LOOPBACK:
        print(f"whoever reaches {options.host}:{options.port} may ask: there is no password", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        # Before transformers is imported: nothing is looked up on a hub, and /v1/models wants its cache's folder.
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": cache}
        serve(folder, options.host, options.port, options.device)


def read_export(folder):
    """An exported folder and its card; a `UserError` where it is none."""
    folder = Path(folder).resolve()
    card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
    if "text_prompts" not in card:
        raise UserError(f"{folder}: no exported model; heartllm export makes one of a checkpoint")
    return folder, card


def serve(folder, host, port, device="auto"):
    """Run the server; it answers for this folder only. Comes back when it is stopped."""
    from transformers.utils.import_utils import is_serve_available

    if not is_serve_available():
        raise UserError("serving needs fastapi, uvicorn and openai: pip install -r requirements-optional.txt")
    from transformers.cli.serve import Serve

    print(f"serving {folder} at http://{host}:{port}/v1", flush=True)
    Serve(force_model=str(folder), host=host, port=port, device=device)


if __name__ == "__main__":
    main()
