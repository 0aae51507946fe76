"""The character tokenizer of the demo model: one token for each character of the corpus."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.demo.corpus import CHARACTERS

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"


def build_tokenizer(max_length: int) -> PreTrainedTokenizerFast:
    """Build the tokenizer; characters outside the corpus become `<unk>`, nothing is added to a prompt.

    Args:
        max_length: Longest sequence of the model, in tokens.
    """
    vocabulary = {token: index for index, token in enumerate([PAD, EOS, UNK, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()  # without a decoder the characters would be joined by spaces
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
