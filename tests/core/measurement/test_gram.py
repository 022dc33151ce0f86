"""A Gram matrix of which only the upper column blocks are summed, against the whole product."""

import pytest
import torch

from replaceme_core.measurement.gram import add_gram, mirror


@pytest.mark.parametrize("width", [1, 2, 3, 5, 8, 13])
def test_it_is_the_whole_product_also_if_more_is_added_after_it_was_read(width):
    rows = torch.randn(2, 7, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)
    gram = torch.zeros(width, width, dtype=torch.float64)
    whole = torch.zeros_like(gram)
    for part in rows:
        add_gram(gram, 2 * part, part)
        mirror(gram)
        whole += 2 * part.T @ part
        assert torch.allclose(gram, whole, rtol=0, atol=1e-13)
        assert torch.equal(gram, gram.T)
