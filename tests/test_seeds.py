from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from textune.seeds import derive_seed, generators_given_back

SEEDS = st.integers(0, 2**63 - 1)


def test_seeds_are_the_same_in_every_release() -> None:
    """A change here changes the result of every run with a given seed."""
    assert {purpose: derive_seed(42, purpose) for purpose in ("head", "order", "dropout")} == {
        "head": 8106682061702706383,
        "order": 125555682310782406,
        "dropout": 7147228029337685194,
    }


@given(seed=SEEDS, purpose=st.text())
def test_a_seed_fits_every_generator(seed: int, purpose: str) -> None:
    assert 0 <= derive_seed(seed, purpose) < 2**63


@given(seed=SEEDS)
def test_purposes_have_streams_of_their_own(seed: int) -> None:
    assert len({derive_seed(seed, purpose) for purpose in ("head", "order", "dropout")}) == 3


@given(seeds=st.lists(SEEDS, min_size=2, max_size=2, unique=True))
def test_other_seeds_give_other_streams(seeds: list[int]) -> None:
    assert derive_seed(seeds[0], "head") != derive_seed(seeds[1], "head")


def test_generators_of_all_gpus_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.manual_seed` seeds every one of them. Stands in for two GPUs, each with a number for its state."""
    states = {0: torch.tensor(5), 1: torch.tensor(6)}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[device])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: states.update({device: state}))
    before = torch.get_rng_state()
    with generators_given_back(torch.device("cuda", 1)):
        torch.default_generator.manual_seed(7)
        states |= {0: torch.tensor(7), 1: torch.tensor(7)}
    assert torch.equal(torch.get_rng_state(), before) and [int(state) for state in states.values()] == [5, 6]


def test_the_generator_of_apple_s_gpu_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back = []
    monkeypatch.setattr(torch.mps, "get_rng_state", lambda device: torch.tensor(5))
    monkeypatch.setattr(torch.mps, "set_rng_state", lambda state, device: given_back.append(int(state)))
    with generators_given_back(torch.device("mps")):
        assert not given_back
    with generators_given_back(torch.device("cpu")):
        pass
    assert given_back == [5]
