"""The self-test's change of the weights: strong everywhere, repeatable, and taken back bit for bit."""

import pytest
import torch
from torch import Tensor

from actors.perturbation import STRENGTH, Perturbation


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(40, 50, generator=generator).to(dtype),
        "b.weight": (1e-3 * torch.randn(2000, generator=generator)).to(dtype),
        "norm": torch.ones(2000, dtype=dtype),
        "empty shard": torch.empty(0, 50, dtype=dtype),
    }


def copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_undoing_restores_every_bit(dtype: torch.dtype) -> None:
    before = weights(dtype)
    changed = copied(before)
    Perturbation.apply(changed, seed=1).undo(changed)
    assert all(torch.equal(changed[name], before[name]) for name in before)


def test_every_tensor_moves_by_its_share_of_its_own_size() -> None:
    before = weights()
    changed = copied(before)
    Perturbation.apply(changed, seed=1)
    for name in ("a.weight", "b.weight", "norm"):
        moved = (changed[name] - before[name]).norm() / before[name].norm()
        assert moved.item() == pytest.approx(STRENGTH, rel=0.1)


def test_the_noise_depends_on_seed_and_name_only() -> None:
    one, again, other = weights(), weights(), weights()
    for changed, seed in ((one, 1), (again, 1), (other, 2)):
        Perturbation.apply(changed, seed)
    assert torch.equal(one["norm"], again["norm"])
    assert not torch.equal(one["norm"], other["norm"])
    renamed = {"another name": weights()["norm"]}
    Perturbation.apply(renamed, seed=1)
    assert not torch.equal(renamed["another name"], one["norm"])


def test_chosen_tensors_are_their_old_selves_inside_the_block_and_perturbed_after_it() -> None:
    before = weights()
    changed = copied(before)
    perturbation = Perturbation.apply(changed, seed=1)
    perturbed = copied(changed)
    with perturbation.undone(changed, ["norm", "no such tensor"]):
        assert torch.equal(changed["norm"], before["norm"])
        assert torch.equal(changed["a.weight"], perturbed["a.weight"])
    assert all(torch.equal(changed[name], perturbed[name]) for name in before)


def test_the_perturbation_is_back_even_when_the_block_fails() -> None:
    changed = weights()
    perturbation = Perturbation.apply(changed, seed=1)
    perturbed = copied(changed)
    with pytest.raises(RuntimeError, match="out of memory"), perturbation.undone(changed, list(changed)):
        raise RuntimeError("out of memory")
    assert all(torch.equal(changed[name], perturbed[name]) for name in perturbed)
