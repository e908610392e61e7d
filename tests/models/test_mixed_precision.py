"""Training and inference in bfloat16 mixed precision (`trainer=bf16`) are close to float32."""

import pytest
import torch

from sapnet.training.assemble import build_module
from tests.models.test_configurations import compose

OURS = ["network.stem=4", "network.channels=[4,4,6]"]
PEERS = ["network.channels=[4,4,6]"]
CASES = {
    "U": ["network=small", "sampling=uniform_network", *OURS],
    "NU": ["network=small", "sampling=nu", *OURS],
    "fusion=add": ["network=small", "network.options.fusion=add", *OURS],
    "fusion=concat": ["network=small", "sampling=nu", "network.options.fusion=concat", *OURS],
    "full_attention": ["network=small", "sampling=nu", "network.options.full_attention=true", *OURS],
    "DMPHN": ["network=dmphn_1_2_4_8", *PEERS],
    "DMPHN_NU": ["network=dmphn_nu", "sampling=nu", *PEERS],
    "SRN": ["network=srn", *PEERS],
    "SRN_NU": ["network=srn_nu", "sampling=nu", *PEERS],
}


@pytest.mark.parametrize("case", CASES)
def test_mixed_precision(case):
    torch.manual_seed(0)
    module = build_module(
        compose(*CASES[case], "steps=10", *(["policy.pretrain=0"] if "sampling=nu" in CASES[case] else []))
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # the initial networks are the identity
    batch = {key: torch.rand(2, 3, 64, 64) for key in ("blurred", "sharp")}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = module.losses(batch)
    loss.backward()
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    assert loss.isfinite() and gradients and all(g.isfinite().all() for g in gradients)
    assert any(g.any() for g in gradients)
    module.eval()
    with torch.no_grad():
        whole = module.evaluation_outputs(batch)[""]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = module.evaluation_outputs(batch)[""]
    for a, b in zip(whole, mixed, strict=True):
        # bfloat16 has 8 significant bits, and the networks about thirty layers.
        assert (a - b).abs().mean() < 0.04
