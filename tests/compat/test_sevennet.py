"""SevenNet's shipped checkpoints: networks built from them with our products give the energies, forces and stresses of their own.

The wheel carries its weights: ``pip install --no-deps sevenn``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from structops import Graph
from structops.compat import e3nn as ours

NEEDS = "{} is not installed: pip install --no-deps sevenn; it needs e3nn, ase and torch_geometric"
for module in ("e3nn.o3", "torch_geometric", "sevenn"):
    pytest.importorskip(module, reason=NEEDS.format(module))
build, neighbors = (pytest.importorskip(f"ase.{name}", reason=NEEDS.format("ase")) for name in ("build", "neighborlist"))
load = lambda name: pytest.importorskip(f"sevenn.{name}", reason=f"sevenn.{name} cannot be imported here")
KEY, defaults, model_build, scale, compatibility = map(
    load, ("_keys", "_const", "model_build", "nn.scale", "scripts.backward_compatibility")
)
convolution, edge_embedding, self_connection = map(load, ("nn.convolution", "nn.edge_embedding", "nn.self_connection"))

POTENTIALS = Path(KEY.__file__).parent / "pretrained_potentials"
CHECKPOINTS = {
    "SevenNet-0": "SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
    "SevenNet-l3i5": "SevenNet_l3i5/checkpoint_l3i5.pth",
}

pytestmark = pytest.mark.usefixtures("double")


def network(name: str):
    """The network of a checkpoint, in float64, with the tensor products that sevenn's modules name at this moment."""
    file = POTENTIALS / CHECKPOINTS[name]
    if not file.exists():
        pytest.skip(f"this sevenn does not carry {name}")
    saved = torch.load(file, map_location="cpu", weights_only=False)
    config = {**defaults.model_defaults(saved["config"]), **compatibility.patch_old_config(saved["config"])}
    scaler = model_build.init_shift_scale(config)
    found = scale.get_resolved_shift_scale(scaler, config[KEY.TYPE_MAP], config.get(KEY.MODAL_MAP))
    config["shift"], config["scale"] = found
    model = model_build.build_E3_equivariant_model(config)
    state = {k: v.double() if v.is_floating_point() else v for k, v in saved["model_state_dict"].items()}
    state = compatibility.patch_state_dict_if_old(state, config, model)
    # The coupling coefficients that e3nn saves are rounded to float32; the new modules have their own.
    missing, unexpected = model.load_state_dict({k: v for k, v in state.items() if "_w3j" not in k}, strict=False)
    assert not unexpected and all("_w3j" in k for k in missing)
    wide = lambda module, args, data: data.update({key: data[key].double() for key in (KEY.NODE_FEATURE, KEY.NODE_ATTR)})
    model.onehot_idx_to_onehot.register_forward_hook(wide)  # one-hot rows are float32 always
    return model.double().eval()


def fused(self, data):
    """IrrepsConvolution.forward with the gather and the sum inside the product."""
    receivers, senders = data[self.key_edge_idx]
    x = data[self.key_x]
    graph = Graph(torch.stack([senders, receivers]), num_nodes=len(x))
    weight = self.weight_nn(data[self.key_weight_input])
    data[self.key_x] = self.convolution.conv(graph, x, data[self.key_filter], weight) / self.denominator
    return data


def evaluate(model, atoms) -> list[torch.Tensor]:
    i, j, vectors = neighbors.neighbor_list("ijD", atoms, model.cutoff)
    numbers = torch.from_numpy(atoms.numbers).long()
    data = {
        KEY.NODE_FEATURE: numbers,
        KEY.ATOMIC_NUMBERS: numbers,
        KEY.EDGE_IDX: torch.from_numpy(np.stack([i, j])),
        KEY.EDGE_VEC: torch.from_numpy(vectors).requires_grad_(),
        KEY.CELL_VOLUME: torch.tensor(atoms.cell.volume),
        KEY.NUM_ATOMS: torch.tensor(len(atoms)),
        KEY.POS: torch.from_numpy(atoms.positions),
    }
    model.set_is_batch_data(False)
    out = model(data)
    return [out[key].detach() for key in (KEY.PRED_TOTAL_ENERGY, KEY.PRED_FORCE, KEY.PRED_STRESS)]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoint(name: str, monkeypatch) -> None:
    theirs = network(name)
    monkeypatch.setattr(convolution, "TensorProduct", ours.TensorProduct)
    monkeypatch.setattr(self_connection, "FullyConnectedTensorProduct", ours.FullyConnectedTensorProduct)
    monkeypatch.setattr(edge_embedding, "SphericalHarmonics", ours.SphericalHarmonics)
    mine = network(name)
    products = [m for m in mine.modules() if isinstance(m, ours.TensorProduct)]
    convolutions = [m for m in mine.modules() if isinstance(m, convolution.IrrepsConvolution)]
    assert len(convolutions) == 5 and all(m.convolution in products for m in convolutions)
    salt = build.bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    salt.rattle(0.1, seed=0)
    copper = build.bulk("Cu", "fcc", a=3.6, cubic=True)  # edges exactly along +-y; forces vanish by symmetry
    slab = build.fcc111("Pt", (2, 2, 2), vacuum=5.0)
    build.add_adsorbate(slab, "O", 1.2, "fcc")
    results = [evaluate(theirs, atoms) for atoms in (salt, copper, slab)]
    again = [evaluate(mine, atoms) for atoms in (salt, copper, slab)]
    monkeypatch.setattr(convolution.IrrepsConvolution, "forward", fused)
    fully = [evaluate(mine, atoms) for atoms in (salt, copper, slab)]
    assert results[0][1].abs().max() > 0.1
    for found in (again, fully):
        for got, want in zip(found, results, strict=True):
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
