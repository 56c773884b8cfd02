"""Names, cards, seeds, files of weights good and bad, save and load."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from potstill import progress
from potstill.errors import ModelError
from potstill.exporters.footprint import footprint
from potstill.model_files.folder import load_model, save_model
from potstill.models import catalogue, hub, zoo
from potstill.models.freeze import bits

AB = ("a", "b")
TEN = tuple("0123456789")


class Evil:
    """Pickled code: opening it would create a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def student(**changes) -> zoo.Classifier:
    return zoo.create("builtin:resnet20-cifar", **{"classes": TEN, **changes})


def refused(file: Path, **changes) -> str:
    with pytest.raises(ModelError) as caught:
        student(weights=file, **changes)
    (problem,) = caught.value.problems
    return problem


def state_file(tmp_path: Path, name: str = "builtin:resnet20-cifar", **changes) -> Path:
    file = tmp_path / "weights.safetensors"
    save_file(zoo.create(name, **{"classes": TEN, **changes}).network.state_dict(), file)
    return file


# Names and cards


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (student(seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert bits(first) == bits(second) != bits(other)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("builtin:resnet20", "builtin:resnet20-cifar"),
        ("mobilenet_v2", "torchvision:mobilenet_v2"),
        ("resnet5o", "resnet50"),
        ("resnet50.a1_in2k", "potstill models"),
        ("keras:vgg16", "builtin:NAME, torchvision:NAME"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match="There is no model|There are no models with the prefix") as caught:
        zoo.create(name, classes=AB)
    assert hint in str(caught.value)


def test_an_unknown_option_is_told() -> None:
    with pytest.raises(ModelError, match=r"does not accept these options \(hiden\)"):
        zoo.create("builtin:mlp", classes=AB, options={"hiden": 3})


def test_options_reach_the_architecture() -> None:
    classifier = zoo.create("builtin:mlp", classes=TEN, size=(8, 8), channels=1, options={"hidden": 32})
    assert zoo.count_parameters(classifier) == 64 * 32 + 32 + 32 * 10 + 10
    assert classifier.card.options == {"hidden": 32}


def test_timm_cards_tell_the_published_preprocessing() -> None:
    card = zoo.create("mobilenetv2_050", classes=AB).card
    assert (card.size, card.resize, card.interpolation) == ((224, 224), 256, "bilinear")
    assert card.mean == (0.485, 0.456, 0.406)
    assert card.licence == "apache-2.0"
    # Inception comes from TensorFlow: -1..1 and 299 pixels.
    with torch.device("meta"):
        card = zoo.create("legacy_xception", classes=AB).card
    assert (card.size, card.mean, card.std) == ((299, 299), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_an_explicit_size_is_not_cropped() -> None:
    card = zoo.create("torchvision:mobilenet_v2", classes=AB, size=(64, 64)).card
    assert (card.size, card.crop, card.resize) == ((64, 64), (64, 64), 64)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "torchvision:vit_b_32"])
def test_transformers_take_another_size(name: str) -> None:
    with torch.device("meta"):
        assert zoo.create(name, classes=AB, size=(64, 64)).card.size == (64, 64)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvisions_own_side_heads_stay_away(name: str) -> None:
    classifier = zoo.create(f"torchvision:{name}", classes=AB, size=(96, 96), options={"init_weights": False})
    assert classifier.train()(torch.rand(2, 3, 96, 96)).logits.shape == (2, 2)


def test_grey_for_a_timm_model() -> None:
    classifier = zoo.create("mobilenetv2_050", classes=AB, size=(32, 32), channels=1).eval()
    assert classifier.card.channels == 1
    assert classifier(torch.rand(1, 1, 32, 32)).logits.shape == (1, 2)


# Files of weights


def test_given_weights_are_named_on_the_card_and_a_note_tells_the_normalisation(tmp_path: Path) -> None:
    file = state_file(tmp_path, seed=3)
    loaded = student(weights=file)
    assert bits(loaded) == bits(student(seed=3))
    assert loaded.card.weights_sha256 == zoo.sha256(file)
    assert "has no card" in progress.display().notes[0]
    assert loaded.card.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_torch_files_are_unwrapped(tmp_path: Path, wrap) -> None:
    state = {f"module.{k}": v.half() if v.is_floating_point() else v for k, v in student().network.state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    loaded = student(weights=tmp_path / "w.pth", seed=9)
    weight = loaded.network.conv1.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, student().network.conv1.weight.half().float())


def test_no_such_file(tmp_path: Path) -> None:
    assert "no file" in refused(tmp_path / "absent.pth")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 10, 50_000])
def test_a_truncated_file(tmp_path: Path, suffix: str, keep: int) -> None:
    whole = state_file(tmp_path)
    if suffix == ".pth":
        torch.save(load_file(whole), whole := tmp_path / "whole.pth")
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(whole.read_bytes()[:keep])
    assert "truncated or damaged" in refused(cut)


def test_a_page_saved_as_weights(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_text("<html>404</html>")
    assert "is a web page" in refused(file)


@pytest.mark.parametrize("saved", ["torch", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, saved: str) -> None:
    touched, file = tmp_path / "touched", tmp_path / "w.pth"
    if saved == "torch":
        torch.save({"state_dict": Evil(touched)}, file)
    else:
        file.write_bytes(pickle.dumps(Evil(touched)))
    assert ("does not hold named tensors" if saved == "torch" else "contains code") in refused(file)
    assert not touched.exists()


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    assert "does not hold named tensors" in refused(tmp_path / "w.pth")


def test_another_number_of_classes(tmp_path: Path) -> None:
    problem = refused(state_file(tmp_path), classes=AB)
    assert "trained for 10 classes, but 2 are required (a, b)" in problem
    assert "potstill finetune" in problem


def test_a_new_head_keeps_the_rest(tmp_path: Path) -> None:
    file = state_file(tmp_path, seed=4)
    fresh, loaded = student(classes=AB), student(classes=AB, weights=file, new_head=True)
    assert torch.equal(loaded.network.linear.weight, fresh.network.linear.weight)
    assert torch.equal(loaded.network.layer3[2].conv2.weight, student(seed=4).network.layer3[2].conv2.weight)


def test_a_new_head_forgives_nothing_else(tmp_path: Path) -> None:
    problem = refused(state_file(tmp_path, "builtin:resnet32-cifar"), classes=AB, new_head=True)
    assert "does not hold the weights" in problem


def test_weights_for_grey_images_say_which_tensor_differs(tmp_path: Path) -> None:
    grey = zoo.create("resnet18", classes=AB, size=(32, 32), channels=1, seed=0)
    save_file(grey.network.state_dict(), tmp_path / "grey.safetensors")
    with pytest.raises(ModelError, match=r"'conv1.weight' is 64x1x7x7 there and 64x3x7x7 here: .* set them\.$"):
        zoo.load_weights(zoo.create("resnet18", classes=AB, size=(32, 32)), tmp_path / "grey.safetensors")


def test_weights_without_statistics_of_batchnorm_say_what_to_save(tmp_path: Path) -> None:
    file = tmp_path / "parameters.safetensors"
    save_file(dict(student(seed=4).network.named_parameters()), file)
    problem = refused(file)
    assert "without the means and variances of BatchNorm (first 'bn1.running_mean')" in problem
    assert "network.state_dict()" in problem and "nearest" not in problem


@pytest.mark.slow
def test_a_backbone_without_a_head_gets_one(tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    save_file({k: v for k, v in student(seed=4).network.state_dict().items() if "linear" not in k}, file)
    loaded = student(classes=AB, weights=file, new_head=True)
    assert torch.equal(loaded.network.conv1.weight, student(seed=4).network.conv1.weight)
    assert "2 missing (first 'linear.weight')" in refused(file)


def test_weights_of_a_deeper_relative_say_which(tmp_path: Path) -> None:
    problem = refused(state_file(tmp_path, "builtin:resnet32-cifar"))
    # Four more blocks would be 2 a stage and 3 stages: 6 blocks x (2 convolutions + 2 x 5 of BatchNorm).
    assert "72 unexpected (first 'layer1.3." in problem
    assert "It fits 'builtin:resnet32-cifar'" in problem


def test_weights_of_the_same_network_elsewhere(tmp_path: Path) -> None:
    problem = refused_by("mobilenetv2_100", state_file(tmp_path, "torchvision:mobilenet_v2"))
    assert "missing (first 'conv_stem.weight')" in problem
    assert "It fits 'torchvision:mobilenet_v2'" in problem


def refused_by(name: str, file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        zoo.create(name, classes=TEN, weights=file)
    return str(caught.value)


@pytest.mark.slow
def test_weights_of_another_width_ask_for_the_options(tmp_path: Path) -> None:
    problem = refused(state_file(tmp_path, options={"width": 8}))
    assert "of another shape (first 'conv1.weight')" in problem
    assert "created with other options" in problem


def test_side_heads_of_torchvision_files_are_left_out(tmp_path: Path) -> None:
    from torchvision.models import GoogLeNet

    torch.save(GoogLeNet(10, init_weights=False).state_dict(), tmp_path / "w.pth")
    zoo.create("torchvision:googlenet", classes=TEN, weights=tmp_path / "w.pth", options={"init_weights": False})
    zoo.create("builtin:googlenet", classes=TEN, weights=tmp_path / "w.pth")


def test_positions_are_resampled_to_another_size(tmp_path: Path) -> None:
    tiny = {"embed_dim": 24, "depth": 1, "num_heads": 2}
    file = state_file(tmp_path, "vit_tiny_patch16_224", size=(96, 96), options=tiny)
    loaded = zoo.create("vit_tiny_patch16_224", classes=TEN, size=(32, 32), options=tiny, weights=file).eval()
    assert loaded(torch.rand(1, 3, 32, 32)).logits.shape == (1, 10)
    assert any("grid of 2 x 2" in sentence for sentence in progress.display().notes)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "torchvision:mobilenet_v2"])
def test_without_a_network_the_hub_is_one_sentence(name: str, tmp_path: Path, monkeypatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", nowhere)
    monkeypatch.setattr("urllib.request.urlopen", nowhere)
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="could not be downloaded .*--weights FILE"):
        zoo.create(name, classes=AB, weights="hub")


@pytest.mark.parametrize("name", ["builtin:mlp", "botnet50ts_256"])
def test_unpublished_weights(name: str) -> None:
    with torch.device("meta"), pytest.raises(ModelError, match="There are no published weights"):
        zoo.create(name, classes=AB, weights="hub")


# Save and load


@pytest.mark.parametrize("name", ["builtin:resnet20-cifar", "builtin:googlenet-cifar", "mobilenetv2_050"])
def test_a_saved_model_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    classifier = zoo.create(name, classes=AB, size=(32, 32), mean=(0.1, 0.2, 0.3), seed=7)
    image = torch.rand(2, 3, 32, 32)
    classifier.train()(image)  # BatchNorm's buffers are no longer those of a fresh network
    card = save_model(classifier, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.card == card
    assert not loaded.training
    assert torch.equal(loaded(image).logits, classifier.eval()(image).logits)
    assert load_file(tmp_path / zoo.WEIGHTS).keys() == loaded.network.state_dict().keys()


def test_weights_from_a_stage_folder_bring_their_normalisation(tmp_path: Path) -> None:
    save_model(student(mean=(0.1, 0.2, 0.3), std=(1, 1, 1)), tmp_path)
    loaded = student(weights=tmp_path / zoo.WEIGHTS)
    assert loaded.card.mean == (0.1, 0.2, 0.3)
    assert progress.display().notes == []


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model.safetensors and card.json not found"):
        load_model(tmp_path)


def test_weights_that_were_replaced_are_noticed(tmp_path: Path) -> None:
    save_model(student(), tmp_path)
    save_file(student(seed=1).network.state_dict(), tmp_path / zoo.WEIGHTS)
    with pytest.raises(ModelError, match="sha256 differ"):
        load_model(tmp_path)


# The catalogue


def test_the_catalogue_lists_all_three_places() -> None:
    rows = {row.name: row for row in catalogue.list_models("*mobilenet?v2*")}
    assert rows["torchvision:mobilenet_v2"].parameters == 3_504_872
    assert rows["torchvision:mobilenet_v2"].accuracy == pytest.approx(72.154)
    (row,) = catalogue.list_models("mobilenetv2_100")
    assert (row.where, row.parameters, row.size) == ("timm", 3_504_872, (224, 224))
    assert row.macs == 300_774_272 and rows["torchvision:mobilenet_v2"].macs == pytest.approx(row.macs, rel=0.01)
    assert "builtin:resnet20-cifar" in catalogue.matching("resnet20")
    assert len(catalogue.matching()) > 1000


def test_the_catalogue_lists_where_a_model_can_be_truncated() -> None:
    assert catalogue.matching("resnet18@*") == [f"resnet18@layer{k}" for k in (1, 2, 3, 4)]
    (row,) = catalogue.list_models("builtin:resnet20-cifar@layer1")
    assert row.parameters == 3 * 16 * 9 + 32 + 3 * 2 * (16 * 16 * 9 + 32) + 10 * 16 + 10
    assert row.macs == 32 * 32 * (3 * 16 * 9 + 6 * 16 * 16 * 9) + 160
    with pytest.raises(ModelError, match="There is no model 'resnet5o'"):
        catalogue.matching("resnet5o@*")


@pytest.mark.slow
def test_the_size_at_8_bits_is_about_that_of_the_file() -> None:
    for name in ("builtin:resnet20-cifar", "builtin:mobilenet-v1"):
        (row,) = catalogue.list_models(name)
        file = footprint(zoo.create(name, classes=TEN, size=row.size).eval())
        assert row.bytes == pytest.approx(file.bytes, rel=0.04)
        assert row.macs == file.macs


def test_given_cifar_weights_score_as_published(shared: Path) -> None:
    """91.4 % on the 10,000 test images; every 20th of them is enough to notice a wrong preprocessing."""
    weights = shared / "data/weights/cifar10-resnet20.safetensors"
    images, names = every_20th_test_image(shared / "data/cifar10-jpg.tar.gz")
    classes = sorted(set(names))
    classifier = student(classes=classes, weights=weights).eval()
    with torch.no_grad():
        said = classifier(images).logits.argmax(1)
    assert (said == torch.tensor([classes.index(name) for name in names])).float().mean() > 0.89


def every_20th_test_image(archive: Path) -> tuple[torch.Tensor, list[str]]:
    images, names = [], []
    with tarfile.open(archive) as files:
        tests = (m for m in files if m.name.startswith("test/") and m.name.endswith(".jpg"))
        for member in itertools.islice(tests, 0, None, 20):
            images.append(np.asarray(Image.open(io.BytesIO(files.extractfile(member).read()))))
            names.append(Path(member.name).parent.name)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255, names
