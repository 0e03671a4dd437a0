"""The networks and quantisers: what a code means, how many there are, what the published architecture is."""

import pytest
import torch

from ecg_tokenizer.network import Attention, NetworkConfig, build_network
from ecg_tokenizer.quantizers import FSQ, VQ, code_use
from ecg_tokenizer.tokenizer import check_codes_per_ecg
from tests.tokenizer_maker import SMALL
from utils.tools import UserError


def test_a_code_is_its_levels_as_one_number():
    quantizer = FSQ((6, 6, 6, 6))
    levels = torch.tensor([[[1.0, 2, 3, 5]]])
    z = torch.logit((levels / 5).clamp(0.01, 0.99))
    values, codes, _ = quantizer(z)
    assert codes.item() == 1 + 6 * 2 + 36 * 3 + 216 * 5
    torch.testing.assert_close(values, levels / 5)


@pytest.mark.parametrize("levels", [(6, 6, 6, 6), (8, 5, 5, 6), (3, 2)])
def test_every_code_comes_back_from_its_values(levels):
    quantizer = FSQ(levels)
    codes = torch.arange(quantizer.n_codes)
    values = quantizer.from_codes(codes)
    again = torch.logit(values.clamp(1e-4, 1 - 1e-4))
    assert torch.equal(quantizer(again)[1], codes)
    assert torch.equal(quantizer(again)[0], values)


def test_fsq_lets_the_gradient_through():
    z = torch.zeros(2, 3, 4, requires_grad=True)
    FSQ((6, 6, 6, 6))(z)[0].sum().backward()
    torch.testing.assert_close(z.grad, torch.full_like(z, 0.25))  # the sigmoid's slope at 0


def test_each_residual_code_refines_the_one_before():
    z = torch.linspace(-4, 4, 2000)[None, :, None].repeat(1, 1, 2)
    errors = []
    for depth in (1, 2, 3):
        quantizer = FSQ((6, 4), depth)
        values, codes, _ = quantizer(z)
        assert codes.shape == (1, 2000 * depth)
        stage = codes.unflatten(-1, (2000, depth)) // 24
        assert torch.equal(stage, torch.arange(depth).expand_as(stage))  # each stage in an alphabet of its own
        torch.testing.assert_close(quantizer.from_codes(codes), values)
        errors.append((values - torch.sigmoid(z)).abs().amax((0, 1)))
    torch.testing.assert_close(errors[0], torch.tensor([0.5 / 5, 0.5 / 3]), rtol=0.05, atol=0)
    torch.testing.assert_close(errors[1], torch.tensor([0.5 / 25, 0.5 / 9]), rtol=0.05, atol=0)
    torch.testing.assert_close(errors[2], torch.tensor([0.5 / 125, 0.5 / 27]), rtol=0.1, atol=0)


def test_vq_gives_vectors_of_its_codebook():
    torch.manual_seed(0)
    quantizer = VQ(32, dim=4).train()
    for _ in range(5):
        quantizer(torch.randn(4, 50, 4))
    quantizer.eval()
    values, codes, _ = quantizer(torch.randn(4, 50, 4))
    assert codes.shape == (4, 50) and codes.max() < 32
    torch.testing.assert_close(quantizer.from_codes(codes), values)
    assert code_use(torch.bincount(codes.flatten(), minlength=32))[0] > 0.5


def test_use_and_perplexity_count_all_codes():
    usage, perplexity = code_use(torch.tensor([5, 5, 0, 0]))
    assert usage == 0.5 and perplexity == pytest.approx(2)


@pytest.mark.parametrize(
    "positions, fit", [(626, "625 or 715"), (2000, "1667 or 2500"), (312, "295 or 313"), (9, None), (313, None)]
)
def test_codes_behind_the_signals_end_are_refused(positions, fit):
    """2,000 codes were taken, of which the last 333 described nothing."""
    if fit is None:
        return check_codes_per_ecg(positions)
    with pytest.raises(UserError, match=f"CODES_PER_ECG={positions}.*{fit} fit"):
        check_codes_per_ecg(positions)


@pytest.mark.parametrize("codes_per_ecg", [40, 157, 313, 626])
def test_any_number_of_codes(codes_per_ecg):
    network = build_network(NetworkConfig(codes_per_ecg=codes_per_ecg, width=16, encoder_depth=2, decoder_depth=2))
    z = network.encode(torch.randn(2, 12, 5000))
    assert z.shape == (2, codes_per_ecg, 4)
    assert network.decode(network.quantizer(z)[0]).shape == (2, 12, 5000)


def test_attention_looks_at_the_whole_ecg_and_knows_distances():
    torch.manual_seed(0)
    attention = Attention(16, 2, 50)
    h = torch.randn(1, 50, 16)
    elsewhere = h.clone()
    elsewhere[:, 49] *= -1
    assert (attention(h)[:, 0] - attention(elsewhere)[:, 0]).abs().max() > 1e-5
    # All positions alike: what one finds is the same everywhere, since only distances count.
    same = attention(h[:, :1].expand(1, 50, 16))
    torch.testing.assert_close(same, same[:, :1].expand(1, 50, 16))


def test_a_position_writes_where_it_read():
    """Patches are put back where they were cut: far from a position, nothing of it arrives at either end."""
    network = build_network(SMALL)
    network.encoder = network.decoder = torch.nn.Identity()
    x = torch.zeros(1, 12, 5000)
    x[..., 2500] = 100
    moved = (network.encode(x) - network.encode(0 * x)).abs().sum(-1)[0].nonzero().flatten()
    assert len(moved) == 2
    values = torch.zeros(1, 50, 4)
    values[:, moved[0]] = 1
    drawn = (network.decode(values) - network.decode(0 * values)).abs().sum((0, 1)).nonzero().flatten()
    assert drawn.min() <= 2500 <= drawn.max() and len(drawn) == 200


def test_the_published_network_has_its_published_size():
    network = build_network(NetworkConfig(architecture="published"))
    sizes = [sum(p.numel() for p in part.parameters()) for part in (network.enc, network.dec)]
    assert sizes == [30_692, 4_139_916]
