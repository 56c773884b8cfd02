"""Fine-tuning: rates by depth, frozen bits, BatchNorm's statistics, on every family."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from potstill.config import build
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.freeze import bits, frozen_bits, hold_statistics, unfreeze
from potstill.models.hooks import as_vector
from potstill.models.inspect.layer_table import freeze_below
from potstill.models.inspect.taps import resolve
from potstill.models.truncated import cut
from potstill.stages.finetune.backbone import backbone, side_of
from potstill.stages.finetune.head import with_head
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.logistic import Linear
from potstill.stages.finetune.settings import FinetuneConfig
from potstill.stages.finetune.tune import depths, rates, tune
from potstill.stages.test_split import clean_logits
from potstill.training import predict
from potstill.training.settings import TrainConfig
from tests.finetune.world import settings
from tests.models.families import SMALL, small

NORMALISED = [family for family in SMALL if family not in ("vit", "swin", "torchvision")]


@pytest.mark.slow
@pytest.mark.parametrize("family", NORMALISED)
def test_held_statistics_stay_while_scales_learn(family: str) -> None:
    classifier = small(family)
    norms = [m for m in classifier.network.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(bits(m), m.running_mean.clone(), m.running_var.clone()) for m in norms]
    assert norms
    hold_statistics(classifier.network)
    still = frozen_bits(classifier.network)
    optimizer = torch.optim.SGD(classifier.parameters(), 0.01)
    classifier.train()
    image = torch.rand(2, 3, *classifier.card.size, generator=torch.Generator().manual_seed(0))
    F.cross_entropy(classifier(image).logits, torch.tensor([0, 1])).backward()
    optimizer.step()
    assert frozen_bits(classifier.network) == still
    for module, (_, mean, var) in zip(norms, before, strict=True):
        assert torch.equal(module.running_mean, mean) and torch.equal(module.running_var, var)
    assert any(bits(module) != digest for module, (digest, _, _) in zip(norms, before, strict=True))
    unfreeze(classifier.network)
    assert all(module.training for module in norms)


def test_frozen_bits_see_weights_and_statistics_of_what_is_frozen_only() -> None:
    network = small("resnet").network
    classifier = small("resnet")
    network = classifier.network
    freeze_below(classifier, 1)
    before = frozen_bits(network)
    with torch.no_grad():
        network.layer4[0].conv1.weight += 1
    assert frozen_bits(network) == before
    with torch.no_grad():
        network.layer1[0].bn1.running_mean += 1
    assert frozen_bits(network) != before


@pytest.mark.parametrize("family", [family for family in SMALL if family != "torchvision"])
def test_rates_fall_from_the_head_to_the_first_layer(family: str) -> None:
    classifier = small(family)
    found = depths(classifier)
    assert set(found) == {name for name, _ in classifier.network.named_parameters()}
    names = list(found)
    assert found[names[-1]] == 0 and found[names[0]] == max(found.values())
    config = settings(Path("x"), None, layer_decay=0.5)
    groups = rates(classifier, config)
    assert sum(len(group["params"]) for group in groups) == len(names)
    scale = {id(p): group["scale"] for group in groups for p in group["params"]}
    assert all(scale[id(p)] == 0.5 ** found[name] for name, p in classifier.network.named_parameters())
    assert all(group["weight_decay"] == 0 for group in groups if group["params"][0].ndim <= 1)


@pytest.fixture
def transfer(tree: Path, weights: Path):
    def start(**changes):
        config = settings(tree, weights, **changes)
        images = Images(config.data, side_of(config))
        return config, images, backbone(config, images)

    return start


@pytest.mark.parametrize("batchnorm", ["fixed", "adapted"])
def test_what_is_frozen_stays_and_the_rest_learns(transfer, tmp_path: Path, batchnorm: str) -> None:
    config, images, classifier = transfer(unfreeze=1, batchnorm=batchnorm, train={"lr": 0.01})
    network = classifier.network
    before = {name: bits(module) for name, module in network.named_children()}
    mean = network.layer4[0].bn1.running_mean.clone()
    tune(config, images, classifier, tmp_path, title="x")
    after = {name: bits(module) for name, module in network.named_children()}
    assert {name for name in after if after[name] != before[name]} == {"layer4", "fc"}
    assert torch.equal(network.layer4[0].bn1.running_mean, mean) == (batchnorm == "fixed")


def test_groups_have_their_share_of_the_learning_rate(transfer, tmp_path: Path, monkeypatch) -> None:
    config, images, classifier = transfer(layer_decay=0.5, train={"schedule": "constant", "warmup": 0.0, "epochs": 1})
    seen = {}
    step = torch.optim.AdamW.step

    def watch(self, *args, **options):
        seen.update({id(p): group["lr"] for group in self.param_groups for p in group["params"]})
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    tune(config, images, classifier, tmp_path, title="x")
    found = depths(classifier)
    for name, parameter in classifier.network.named_parameters():
        assert seen[id(parameter)] == pytest.approx(config.train.lr * 0.5 ** found[name])


@pytest.mark.parametrize("batchnorm", ["fixed", "adapted"])
def test_the_average_is_what_is_validated_and_kept(transfer, tmp_path: Path, monkeypatch, batchnorm: str) -> None:
    """One step at a large rate: the average of its start and its end is kept, in the way that Average weighs them."""
    from potstill.training.loop import TrainingLoop

    config, images, classifier = transfer(batchnorm=batchnorm, train={"epochs": 1, "lr": 0.1, "warmup": 0.0})
    states = [{k: v.clone() for k, v in classifier.network.state_dict().items()}]
    step = TrainingLoop.train_step

    def watch(self) -> None:
        step(self)
        states.append({k: v.clone() for k, v in self.classifier.network.state_dict().items()})

    monkeypatch.setattr(TrainingLoop, "train_step", watch)
    record = tune(config, images, classifier, tmp_path, title="x")
    average = states[0]
    for number, state in enumerate(states[1:]):
        stays = (1 + number) / (10 + number)
        average = {k: stays * average[k] + (1 - stays) * v for k, v in state.items()}
    kept = classifier.network.state_dict()
    assert config.train.ema == 0.999 and len(states) == 1 + record["steps"]
    for name in ("layer4.0.conv1.weight", "layer4.0.bn1.running_mean", "fc.bias"):
        torch.testing.assert_close(kept[name], average[name], atol=1e-6, rtol=1e-5)
    assert not torch.allclose(kept["fc.bias"], states[-1]["fc.bias"])
    rows = images.manifest.rows("validation")
    right = clean_logits(load_model(tmp_path), images.data, rows).argmax(1) == images.manifest.label[rows]
    assert record["validation_accuracy"]["best"] == pytest.approx(100 * right.mean(), abs=1e-3)


def test_a_training_from_scratch_keeps_the_last_of_all_epochs() -> None:
    def settings(**train: object) -> TrainConfig:
        given = {"data": {"path": "x"}, "model": "builtin:cnn", "from_scratch": True, "train": train}
        return build(FinetuneConfig, given).train

    assert (settings().select, settings().patience, settings().lr) == ("last", None, 0.002)
    assert (settings(patience=3, select="best").patience, settings(lr=0.1).lr) == (3, 0.1)


@pytest.mark.parametrize(("warmup", "epochs"), [(0.0, 3), (0.1, 5)])
def test_training_ends_when_validation_is_patient_no_more(transfer, tmp_path: Path, warmup: float, epochs: int) -> None:
    """The epochs of the warm-up, here the first three of 30, are not counted."""
    config, images, classifier = transfer(train={"epochs": 30, "lr": 1e-9, "patience": 2, "warmup": warmup})
    record = tune(config, images, classifier, tmp_path, title="x")
    assert record["kept_epoch"] == 1
    assert record["steps"] == epochs * (len(images.manifest.rows("train")) // 18)
    assert isinstance(config.train, TrainConfig) and predict.EVALUATION_BATCH


@pytest.mark.slow
@pytest.mark.parametrize("family", ["resnet", "vgg", "xception", "mobilenet", "vit", "swin", "builtin"])
@pytest.mark.parametrize("layer", ["pooled", "stage:1"])
def test_a_probe_becomes_a_model_that_can_be_saved(family: str, layer: str, tmp_path: Path) -> None:
    classifier = small(family)
    (tap,) = resolve(classifier, [layer])
    width = tap.shape[-1] if tap.kind == "tokens" else tap.shape[0]
    random = torch.Generator().manual_seed(1)
    head = Linear(torch.randn(3, width, generator=random), torch.randn(3, generator=random))
    untouched = bits(classifier)
    made = with_head(classifier, layer, head)
    image = torch.rand(2, 3, *classifier.card.size, generator=random)
    with torch.no_grad():
        vector = as_vector(classifier.replace(taps=(tap,)).eval()(image).features[layer])
        torch.testing.assert_close(made(image).logits, head(vector), atol=1e-3, rtol=1e-3)
        save_model(made, tmp_path)
        assert torch.equal(load_model(tmp_path)(image).logits, made(image).logits)
    assert bits(classifier) == untouched
    if layer != "pooled":
        assert zoo.count_parameters(made) < zoo.count_parameters(classifier)


def test_a_convolution_that_ends_in_a_relu_is_replaced_by_a_linear_head() -> None:
    classifier = zoo.create("torchvision:squeezenet1_1", classes=("a", "b"), size=(64, 64)).eval()
    head = Linear(torch.randn(2, 512), torch.randn(2))
    made = with_head(classifier, "pooled", head)
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (tap,) = resolve(classifier, ["pooled"])
        vector = as_vector(classifier.replace(taps=(tap,)).eval()(image).features["pooled"])
        torch.testing.assert_close(made(image).logits, head(vector), atol=1e-3, rtol=1e-3)


def test_a_cut_network_learns_on(transfer) -> None:
    _, _, classifier = transfer()
    (tap,) = resolve(classifier, ["stage:2"])
    made = cut(classifier, tap)
    assert max(depths(made).values()) >= 1
    made.train()(torch.rand(2, 3, 32, 32)).logits.sum().backward()
    assert all(p.grad is not None for p in made.network.parameters())
