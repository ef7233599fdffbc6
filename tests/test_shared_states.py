"""Layers that share keys and values store them once, and whoever shares reads the store of the layer it shares with."""

from pathlib import Path

import pytest
import torch

from checkpoints import random_model, save
from windlass.engine.opened_model import OpenedModel, open_model, read_files
from windlass.model.shared_states import SharedStates, store_index
from windlass.model.streams import in_front, put_behind, put_in_front


class Attention(torch.nn.Module):
    def __init__(self, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx


def connected(shared: SharedStates, index: int) -> Attention:
    module = Attention(index)
    shared.connect(module)
    return module


@pytest.fixture(params=["gemma3n_text", "gemma4_text"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> OpenedModel:
    return open_model(read_files(save(random_model(request.param), tmp_path)), request.param, "float32", None)


def test_layers_that_share_take_no_room_in_the_cache(opened: OpenedModel) -> None:
    assert opened.facts.num_layers == 5
    assert [layer for layer, _ in opened.facts.cache_shapes] == [0, 1, 2]


def test_a_layer_that_shares_reads_the_last_store_of_its_kind(opened: OpenedModel) -> None:
    layers = [part.module.self_attn for part in opened.lifted.layers]
    assert [store_index(layer) for layer in layers] == [0, 1, 2, 2, 1]


def test_what_is_handed_out_has_the_shape_that_was_shared_and_no_tokens() -> None:
    shared = SharedStates()
    storing, sharing = connected(shared, 4), connected(shared, 7)
    shared.layer = 4
    shared["full_attention"] = torch.ones(1, 2, 9, 16), torch.ones(1, 2, 9, 8)
    shared.layer = 7
    key, value = shared["full_attention"]
    assert (key.shape, value.shape) == ((1, 2, 0, 16), (1, 2, 0, 8))
    assert (store_index(storing), store_index(sharing)) == (4, 4)


def test_a_layer_that_shares_with_nobody_before_it_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(KeyError):
        SharedStates()["sliding_attention"]


def test_streams_lie_behind_the_tokens_for_the_runner_and_in_front_for_the_layer() -> None:
    stacked = torch.arange(4 * 5 * 3).view(4, 1, 5, 3)
    assert in_front(stacked)
    assert not in_front(torch.zeros(1, 5, 3)) and not in_front(torch.zeros(1, 5, 4, 3))
    row = put_behind(stacked)
    assert row.shape == (1, 5, 4, 3)
    assert torch.equal(row[0, 2, 3], stacked[3, 0, 2])
    assert torch.equal(put_in_front(row), stacked)
    assert row.data_ptr() == stacked.data_ptr(), "what a layer writes must reach the decoder's own stack"
