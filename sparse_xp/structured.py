"""Load a model from which heads, neurons or layers were removed: ``sparse_xp.structured.load(directory)``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparse_xp.errors import UserError
from sparse_xp.models import reduced
from sparse_xp.models.sentence_configs import read_modules
from sparse_xp.models.sentence_modules import read_sentence_head, sentence_directory
from sparse_xp.recipe.inherit import removed_layers

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel


def load(directory: str | Path) -> PreTrainedModel:
    """Return the saved model of ``directory`` in eval mode, also if structured pruning made it smaller.

    Stock ``from_pretrained`` loads models of full shape only. The outputs of an embedding model, which has a
    ``modules.json``, have ``sentence_embedding`` [rows, size]. Raises UserError for a directory without a model, or
    with a damaged one.
    """
    return reduced.load_reduced_model(directory, removed_layers(str(directory)))


def sentence_transformer(directory: str | Path) -> SentenceTransformer:
    """Return the embedding model of ``directory`` as one of sentence-transformers, also if pruning made it smaller.

    ``SentenceTransformer(directory)`` opens models of full shape only. This is the same object around a smaller
    encoder. Raises UserError without sentence-transformers, and for a directory without an embedding model.
    """
    try:
        from sentence_transformers import SentenceTransformer, SimilarityFunction
        from sentence_transformers.base.modules import Dense, Normalize, Transformer
        from sentence_transformers.sentence_transformer.modules import Pooling
    except ImportError as error:
        raise UserError(
            "sparse_xp.structured.sentence_transformer needs sentence-transformers of version 6: "
            "pip install 'sparse-xp[sentence-transformers]'."
        ) from error
    head, path = read_sentence_head(str(directory), None), sentence_directory(str(directory))
    if head is None or path is None:
        raise UserError(f"{directory} is no embedding model: it has no modules.json. Name one that has.")
    encoder = reduced.load_reduced_model(directory, removed_layers(str(directory)), embeds=False)

    class ReducedTransformer(Transformer):
        def _load_model(self, *args: object, **kwargs: object) -> PreTrainedModel:
            return encoder

    folders = read_modules(path / "modules.json")
    modules = [ReducedTransformer.load(str(directory), local_files_only=True)]
    for kind in (Pooling, Dense, Normalize):
        modules += [kind.load(str(path), subfolder=folder) for folder in folders[kind.__name__]]
    return SentenceTransformer(
        modules=modules,
        prompts=head.prompts,
        default_prompt_name=head.default_prompt,
        similarity_fn_name=SimilarityFunction(head.similarity),
    )
