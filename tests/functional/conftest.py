"""A tiny model for the tests of selection and sparsity."""

from __future__ import annotations

import pytest
from transformers import BertForQuestionAnswering

from tests.encoders import tiny_bert


@pytest.fixture
def qa_model() -> BertForQuestionAnswering:
    """A BERT of two layers of 8192 prunable weights, with a head of 66 parameters."""
    return BertForQuestionAnswering(tiny_bert())
