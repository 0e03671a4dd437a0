"""The console command ``heartllm``: each sub-command is the ``python -m`` form of the same work.

``pip install -e .`` from a checkout brings it; the launchers don't need it.
"""

import importlib

from utils.tools import UserError, entry_point

COMMANDS = {  # name -> (module whose main it is, what it does)
    "ask": ("app.__main__", "ask a reader about an ECG file"),
    "read": ("data_provider.records", "say what is in an ECG file, draw it, save it"),
    "download": ("data_provider.download", "fetch PTB-XL, MIMIC-IV-ECG or ECG-QA"),
    "prepare": ("data_provider.prepare.__main__", "turn a download, or a folder of ECG files, into manifests"),
    "simulate": ("data_provider.simulate.__main__", "make simulated ECGs with known findings"),
    "generate": ("data_provider.generate", "draw ECGs from a published generator"),
    "encode": ("ecg_tokenizer.encode", "write the codes of ECGs"),
    "quality": ("ecg_tokenizer.quality.__main__", "report what a tokenizer keeps of ECGs"),
    "export": ("app.export", "write a checkpoint as one merged model that others load"),
    "serve": ("app.serve", "put an exported model behind an OpenAI-compatible endpoint"),
    "client": ("app.client", "ask a server about an ECG file"),
    "bundle": ("app.bundle", "pack everything of a run into one archive"),
    "verify": ("app.verify", "check an archive's hashes, items and scores"),
    "score": ("utils.evaluation", "compute the scores of predictions again"),
}


def command(name):
    """The function of a sub-command, imported when it is asked for; another name is a `UserError`."""
    if name not in COMMANDS:
        raise UserError(f"heartllm has no command {name}; it has {', '.join(COMMANDS)}")
    return importlib.import_module(COMMANDS[name][0]).main


@entry_point
def main(argv):
    """Run a sub-command with the rest of the arguments, or list them all."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: heartllm COMMAND [ARGUMENTS]     (heartllm COMMAND --help says more)\n")
        for name, (module, text) in COMMANDS.items():
            print(f"  {name:<10} {text} (python -m {module.removesuffix('.__main__')})")
        return
    command(argv[0])(argv[1:])


if __name__ == "__main__":
    main()
