"""Parts of tiny pipelines: tokenizers without files, text encoders and autoencoders."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> Any:
    """Bytes as symbols, each also at the end of a word, and no merges."""
    from transformers import CLIPTokenizer

    shown = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    shown += [chr(256 + i) for i in range(256 - len(shown))]
    symbols = [*shown, *(c + "</w>" for c in shown), START, END]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        Path(folder, "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def t5_tokenizer() -> Any:
    """Printable characters, one a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = ["<pad>", "</s>", "<unk>", *(chr(c) for c in range(32, 127))]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=77,
    )


def clip_text(projected: bool = False, width: int = 32) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=514,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=1,
        hidden_size=width,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        projection_dim=32,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5_text(kind: str = "T5", width: int = 32) -> Any:
    """An encoder: "T5", or "UMT5"."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=128,
        d_model=width,
        d_ff=37,
        d_kv=8,
        num_layers=2,
        num_heads=4,
        is_encoder_decoder=False,
        use_cache=False,
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def vae(scaling: float = 0.18215, shift: float | None = None, quant: bool = True) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=32,
        sample_size=16,
        scaling_factor=scaling,
        shift_factor=shift,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )


def flow_vae() -> Any:
    return vae(1.5305, 0.0609, quant=False)
