"""Answers by vLLM, where it is installed (`ENGINE=vllm`): in batches of its own, an ECG's beginning read once.

vLLM reads folders, and no adapter with rows of its own, so the merged LLM is written to one. It pins PyTorch and
transformers itself, so it isn't among our requirements.
"""

import importlib.util
import tempfile
from dataclasses import replace

from data_provider.manifests import item_paths
from model.prompts import prompt_ids
from utils.tools import UserError


def choose_engine(wanted, answers, processes):
    """("own" or "vllm", why, as a line): vLLM where it is wanted and installed.

    Raises
    ------
    UserError
        vLLM is wanted for what it isn't used for here.
    """
    if wanted == "own":
        return "own", ""
    if answers == "likelihood":
        raise UserError("ENGINE=vllm writes answers; ANSWERS=likelihood needs ENGINE=own")
    if processes > 1:
        raise UserError(f"ENGINE=vllm: one process, not {processes}; set NUM_PROCESSES=1")
    if importlib.util.find_spec("vllm") is None:
        return "own", "answers by our own loop, since vLLM isn't installed"
    return "vllm", "answers by vLLM"


class VllmEngine:
    """A merged LLM in vLLM.

    Parameters
    ----------
    answer_model : AnswerModel
        Its model with the adapter merged, on the CPU: the GPU's memory is vLLM's.
    exam : Exam
    longest : int
        Most tokens of a prompt with its answer.
    device : torch.device
    folder : path
        Where the LLM may be written while it is loaded.
    """

    def __init__(self, answer_model, exam, longest, device, folder):
        from vllm import LLM, SamplingParams

        self.answer_model, self.exam = replace(answer_model, model=None), exam
        eos = answer_model.vocabulary.eos
        self.greedy = SamplingParams(
            temperature=0, max_tokens=exam.max_new_tokens, stop_token_ids=[eos], ignore_eos=True, detokenize=False
        )
        model = answer_model.model
        with tempfile.TemporaryDirectory(dir=folder, prefix="vllm") as written:
            model.save_pretrained(written)
            self.llm = LLM(
                model=written,
                skip_tokenizer_init=True,
                dtype=str(model.dtype).split(".")[-1],
                max_model_len=longest,
                enable_prefix_caching=True,
                generation_config="vllm",
                enforce_eager=device.type == "cpu",
            )

    def answer_batches(self, batches, ecg_of):
        """Answer the batches one by one; as `answering.answer_batches`, for texts."""
        words, exam = self.answer_model, self.exam
        for batch in batches:
            indices = [index for group in batch for index in group]
            prompts = []
            for index in indices:
                item = exam.items[index]
                codes = list(map(ecg_of, item_paths(item)))
                ids = prompt_ids(words.tokenizer, words.vocabulary, words.prompts, item, exam.task, codes)
                prompts.append({"prompt_token_ids": list(map(int, ids))})
            outputs = self.llm.generate(prompts, self.greedy, use_tqdm=False)
            eos = words.vocabulary.eos
            ids = [[token for token in output.outputs[0].token_ids if token != eos] for output in outputs]
            texts = words.tokenizer.batch_decode(ids, skip_special_tokens=True)
            yield list(zip(indices, texts, strict=True))
