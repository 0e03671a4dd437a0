"""The embedded LLM: a small Llama with its own tokenizer, built on the spot, so that every stage runs anywhere.

It has read nothing: its weights are random, and what it knows after a run it learned there (`TUNING=full`). It shows
that the pipeline works and what it does; it is no substitute for a pretrained LLM.
"""

import os
from pathlib import Path

from utils.tools import make_folder_once

VERSION = 1
VOCABULARY = 1024
# What the byte-pair tokenizer learns its merges from: the words of ECG reading.
TEXT = """
Read the 12-lead ECG and answer the question. Question: Answer: yes no none. Read the 12-lead ECG and write its report.
Report: Patient Information: Patient ID: Age: Sex: Height: Weight: nan.
Does this ECG show? Is there? Which of these does this ECG show, or? What does this ECG show? Name all that apply.
sinus rhythm normal ECG sinus bradycardia sinus tachycardia sinus arrhythmia atrial fibrillation atrial flutter
supraventricular arrhythmia tachycardia ventricular premature complex complexes premature atrial contraction
ventricular extrasystoles supraventricular extrasystoles extra systoles extra beats pacemaker paced rhythm
first degree AV block second degree AV block third degree AV block left bundle branch block right bundle branch block
complete incomplete left anterior fascicular block left posterior fascicular block intraventricular conduction
disturbance Wolff-Parkinson-White syndrome left ventricular hypertrophy right ventricular hypertrophy septal hypertrophy
left atrial overload enlargement right atrial overload enlargement
myocardial infarction inferior anterior anteroseptal anterolateral inferolateral lateral posterior septal
early middle late old acute unknown stage of myocardial infarction ischemic ischemia injury in leads
non-specific ST changes ST elevation ST depression T-wave abnormality inverted T-waves low amplitude T-waves
abnormal QRS Q waves present low QRS voltages in the frontal and horizontal leads high QRS voltage long QT interval
prolonged QT prolonged PR interval digitalis effect electrolyte disturbance
heart axis normal axis left axis deviation right axis deviation extreme axis deviation
baseline drift static noise burst noise electrodes problems signal quality good poor
rate per minute beats heart rate bpm wide QRS complexes irregular rhythm without P waves
recording criteria suggestive consistent with probable possible borderline otherwise compared first second
symptoms diagnostic form features numeric lead I II III aVR aVL aVF V1 V2 V3 V4 V5 V6
above below within the normal range
"""


def tiny_llm(folder):
    """Path of the embedded LLM below ``folder``; built there in a second or two if it isn't yet."""
    return make_folder_once(Path(folder) / f"tiny_llm_v{VERSION}", _build)


def _build(folder):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from model.checkpoint_files import share_weights

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    # A fork, so that building it leaves the run's own random numbers as they were.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    os.makedirs(folder)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_weights(folder)


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    begin, end = "<|begin_of_text|>", "<|end_of_text|>"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[begin, end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT.strip().split("\n"), trainer)
    ids = [(begin, bpe.token_to_id(begin))]
    bpe.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=begin, eos_token=end)
