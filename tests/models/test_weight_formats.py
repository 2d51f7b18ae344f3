import io
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from previts.errors import InputError
from previts.models.encoders import build_encoder
from previts.models.norm import GroupedBatchNorm
from previts.models.weight_formats import convert_state, read_encoder
from previts.storage import folders

# Our names of the layers of S3D-G, and the names in RSPNet's released checkpoints.
RSPNET_FIRST = {
    "conv_1a.spatial": "sepConv1.sep_conv.0",
    "conv_1a.temporal": "sepConv1.sep_conv.1",
    "conv_2b": "basicConv3d",
    "conv_2c.spatial": "sep_conv2.sep_conv.0",
    "conv_2c.temporal": "sep_conv2.sep_conv.1",
}
RSPNET_INCEPTION = {
    "alone": "branch0",
    "reduced_a": "branch1.0",
    "wide_a.spatial": "branch1.1.sep_conv.0",
    "wide_a.temporal": "branch1.1.sep_conv.1",
    "reduced_b": "branch2.0",
    "wide_b.spatial": "branch2.1.sep_conv.0",
    "wide_b.temporal": "branch2.1.sep_conv.1",
    "pooled": "branch3.1",
}
RSPNET_UNIT = {
    "conv.weight": "conv3d.weight",
    "norm.weight": "bn.weight",
    "norm.bias": "bn.bias",
    "norm.running_mean": "bn.running_mean",
    "norm.running_var": "bn.running_var",
    "norm.num_batches_tracked": "bn.num_batches_tracked",
}
RSPNET_GATES = {"conv_1a.gate": "sepConv1.excitation", "conv_2c.gate": "sep_conv2.excitation"}
INCEPTIONS = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")


def rspnet_names():
    """RSPNet's names without a prefix, and ours."""
    units, gates = dict(RSPNET_FIRST), dict(RSPNET_GATES)
    for block in INCEPTIONS:
        units |= {f"mixed_{block}.{ours}": f"sepInc_{block}.{theirs}" for ours, theirs in RSPNET_INCEPTION.items()}
        gates[f"mixed_{block}.wide_a.gate"] = f"sepInc_{block}.branch1.1.excitation"
        gates[f"mixed_{block}.wide_b.gate"] = f"sepInc_{block}.branch2.1.excitation"
    names = {
        f"feature.{theirs}.{end}": f"{ours}.{own_end}"
        for ours, theirs in units.items()
        for own_end, end in RSPNET_UNIT.items()
    }
    return names | {
        f"feature.{theirs}.{end}": f"{ours}.{end}" for ours, theirs in gates.items() for end in ("weight", "bias")
    }


def trained(model):
    """The model in eval mode, with statistics as after training."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d | GroupedBatchNorm):
            nn.init.normal_(norm.running_mean, 0, 0.1)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            norm.num_batches_tracked.fill_(7)
    return model.eval()


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return trained(torchvision.models.resnet18())


@pytest.fixture(scope="module")
def s3dg():
    torch.manual_seed(0)
    return trained(build_encoder("s3dg", width=1 / 16))


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def moco(state, head):
    """A checkpoint of MoCo's main_moco.py, with a head instead of the classifier in the query encoder."""
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    query = body | {name: torch.zeros(4) for name in head}
    key = {name: torch.full_like(value, 3) for name, value in query.items()}
    rest = {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}
    tensors = prefixed("module.encoder_q.", query) | prefixed("module.encoder_k.", key) | rest
    return {"epoch": 200, "arch": "resnet18", "state_dict": tensors, "optimizer": {"state": {}, "param_groups": []}}


def resnet_files(state):
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    others = prefixed("encoder_k.", body) | {"head_q.out.weight": torch.zeros(4, 512), "queue": torch.zeros(8, 4)}
    return {
        "torchvision": state,
        "previts encoder": body,
        "previts model": {"step": 3, "experiment": "{}", "model": prefixed("encoder_q.", body) | others},
        "MoCo": moco(state, ["fc.weight", "fc.bias"]),
        "MoCo v2": moco(state, ["fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias"]),
    }


def s3dg_files(state):
    theirs = {name: state[own] for name, own in rspnet_names().items()}
    assert len(theirs) == len(state)
    classifier = {"fc.weight": torch.zeros(1, 1024), "fc.bias": torch.zeros(1)}
    wrapped = prefixed("encoder.", theirs | classifier)
    heads = {f"{name}.2.{end}": torch.zeros(4) for name in ("fc1", "fc2") for end in ("weight", "bias")}
    key = {name: torch.full_like(value, 3) for name, value in wrapped.items()}
    pretrained = prefixed("encoder_q.", wrapped | heads) | prefixed("encoder_k.", key | heads)
    return {
        "previts encoder": state,
        "previts model": {"step": 3, "experiment": "{}", "model": prefixed("encoder_q.", state)},
        "RSPNet pretraining": {"epoch": 200, "arch": "s3dg", "model": pretrained | {"queue": torch.zeros(4, 8)}},
        "RSPNet fine-tuning": {"arch": "s3dg", "model": wrapped | classifier},
        "RSPNet S3D-G": theirs | classifier,
    }


def saved(path, content):
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("form", ["torchvision", "previts encoder", "previts model", "MoCo", "MoCo v2"])
def test_a_resnet_of_any_format_computes_the_same(resnet, tmp_path, form):
    content = resnet_files(resnet.state_dict())[form]
    assert convert_state(content, "resnet18")[1] == form.removesuffix(" v2")
    encoder = build_encoder("resnet18").eval()
    encoder.load_state_dict(read_encoder(saved(tmp_path / "file.pth.tar", content), "resnet18"))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        body = nn.Sequential(*list(resnet.children())[:-1])
        torch.testing.assert_close(encoder(images), body(images).flatten(1))
    assert encoder.bn1.num_batches_tracked == 7


@pytest.mark.parametrize(
    "form", ["previts encoder", "previts model", "RSPNet pretraining", "RSPNet fine-tuning", "RSPNet S3D-G"]
)
def test_an_s3dg_of_any_format_computes_the_same(s3dg, tmp_path, form):
    content = s3dg_files(s3dg.state_dict())[form]
    assert convert_state(content, "s3dg", 1 / 16)[1] == form
    encoder = build_encoder("s3dg", width=1 / 16).eval()
    encoder.load_state_dict(read_encoder(saved(tmp_path / "file.pth", content), "s3dg", 1 / 16))
    clips = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(encoder(clips), s3dg(clips))
    assert encoder.conv_2b.norm.num_batches_tracked == 7


def test_a_model_that_was_wrapped_for_several_gpus_or_compiled_is_the_same_model(resnet):
    body = resnet_files(resnet.state_dict())["previts encoder"]
    # torch.compile adds `_orig_mod.`; compiling here would cost seconds.
    for prefix in ("module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "encoder_q._orig_mod."):
        state = prefixed(prefix, body)
        torch.testing.assert_close(convert_state({"state_dict": state}, "resnet18")[0], body)
    with pytest.raises(InputError, match=r"several tensors conv1\.weight, such as module\.conv1\.weight"):
        convert_state(body | prefixed("module.", body), "resnet18")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(resnet, value):
    state = moco(resnet.state_dict(), [])["state_dict"]
    state["module.encoder_k.conv1.weight"] = torch.full((64, 3, 7, 7), value)  # is not used
    convert_state(state, "resnet18")
    state["module.encoder_q.bn1.bias"] = torch.tensor([0.0] * 63 + [value])
    with pytest.raises(InputError, match=r"NaN or infinite in 1 of 120 tensors \(such as bn1\.bias\).* diverged"):
        convert_state(state, "resnet18")


def test_half_precision_and_missing_counters_are_accepted(resnet):
    state = {name: value.half() for name, value in resnet.state_dict().items() if "num_batches" not in name}
    encoder = build_encoder("resnet18")
    encoder.load_state_dict(convert_state(state, "resnet18")[0])
    torch.testing.assert_close(encoder.conv1.weight, resnet.conv1.weight, rtol=1e-3, atol=1e-4)
    assert encoder.conv1.weight.dtype == torch.float32
    assert encoder.bn1.num_batches_tracked == 0


def test_reading_weights_draws_no_random_numbers(resnet):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    convert_state(resnet.state_dict(), "resnet18")
    assert torch.equal(torch.get_rng_state(), before)


def test_missing_unexpected_and_misshapen_tensors_are_named(resnet):
    content = moco(resnet.state_dict(), ["fc.weight", "fc.bias"])
    tensors = content["state_dict"]
    for name in ("bn1.running_mean", "layer1.0.conv1.weight"):
        del tensors["module.encoder_q." + name]
    tensors["module.encoder_q.layer5.weight"] = torch.zeros(2)
    tensors["module.encoder_q.conv1.weight"] = torch.zeros(64, 3, 3, 3)
    with pytest.raises(InputError) as raised:
        convert_state(content, "resnet18", source="model.weights = s3://there/moco.pth.tar")
    message = str(raised.value)
    assert message.startswith("model.weights = s3://there/moco.pth.tar does not contain a whole resnet18: ")
    assert "read in format 'MoCo', 118 tensors are there; " in message
    assert "2 missing: encoder_q.bn1.running_mean, encoder_q.layer1.0.conv1.weight;" in message
    assert "1 unexpected: encoder_q.layer5.weight;" in message
    assert "1 of another shape: encoder_q.conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7);" in message
    assert "torchvision (conv1.weight), MoCo (encoder_q.conv1.weight)" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to(torch.complex64), "1 tensors that are not plain numbers .such as conv1.weight"),
        (lambda value: value.to_sparse(), "1 tensors that are not plain numbers"),
        (lambda value: torch.empty_like(value, device="meta"), "1 tensors that are not plain numbers"),
        (lambda value: torch.nested.nested_tensor([value[0], value[1, :1]]), "1 tensors that are not plain numbers"),
        (lambda value: value.to(torch.int64), r"1 of another type: conv1.weight torch.int64 instead of torch.float32"),
        (lambda value: value > 0, r"1 of another type: conv1.weight torch.bool instead of torch.float32"),
        (lambda value: value.double() + 1e200, "values that are NaN or infinite in 1 of"),
    ],
    ids=["complex", "sparse", "meta", "nested", "whole numbers", "truth values", "too large"],
)
def test_tensors_that_are_no_weights_in_single_precision_are_refused(resnet, change, message):
    state = dict(resnet.state_dict())
    state["conv1.weight"] = change(state["conv1.weight"])
    with pytest.raises(InputError, match=message):
        convert_state(state, "resnet18")


@pytest.mark.parametrize("form", ["RSPNet pretraining", "RSPNet fine-tuning", "RSPNet S3D-G", "previts encoder"])
def test_a_missing_gate_of_s3dg_is_named(s3dg, form):
    content = s3dg_files(s3dg.state_dict())[form]
    tensors = content.get("model", content)
    lost = next(
        name for name in tensors if name.endswith(("sepInc_4c.branch2.1.excitation.bias", "4c.wide_b.gate.bias"))
    )
    del tensors[lost]
    with pytest.raises(InputError, match=f"s3dg of width 0.0625.*format '{form}'.*1 missing: {lost};"):
        convert_state(content, "s3dg", 1 / 16)


@pytest.mark.parametrize(
    ("kind", "width", "fault"),
    [
        ("resnet50", 1, "missing: layer1.0.conv3.weight"),
        ("s3dg", 1, "has no tensor of s3dg, only conv1.weight, bn1.weight, bn1.bias, ...; known formats"),
    ],
)
def test_weights_of_another_encoder_are_refused(resnet, kind, width, fault):
    with pytest.raises(InputError, match=fault):
        convert_state(resnet.state_dict(), kind, width)


def test_an_s3dg_of_another_width_is_refused(s3dg):
    with pytest.raises(
        InputError, match=r"of another shape: conv_1a.spatial.conv.weight \(4, 3, 1, 7, 7\) instead of \(8,"
    ):
        convert_state(s3dg.state_dict(), "s3dg", 1 / 8)


@pytest.mark.parametrize(
    ("content", "described"),
    [([1, 2], "a list"), ({}, "nothing"), ({"epoch": 3, "loss": 0.5}, r"epoch \(int\), loss \(float\)")],
)
def test_the_error_names_the_content_of_a_file_without_tensors(tmp_path, content, described):
    uri = saved(tmp_path / "file.pt", content)
    with pytest.raises(InputError, match=f"model.weights = {uri} contains {described}, expected tensors by name"):
        read_encoder(uri, "resnet18")


def test_unreadable_files_are_refused_with_the_reason(resnet, tmp_path):
    with pytest.raises(InputError, match=r"absent.pt, and there is no such file"):
        read_encoder(str(tmp_path / "absent.pt"), "resnet18")
    with pytest.raises(InputError, match="and it is a folder"):
        read_encoder(str(tmp_path), "resnet18")
    buffer = io.BytesIO()
    torch.save(resnet.state_dict(), buffer)
    (tmp_path / "cut.pt").write_bytes(buffer.getvalue()[:100_000])
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"conv1.weight": tmp_path}, tmp_path / "code.pt")
    reasons = {
        "cut.pt": "is cut short",
        "text.pt": "holds no weights that can be read",
        "code.pt": r"contains more than tensors: pathlib\.",
    }
    for name, reason in reasons.items():
        with pytest.raises(InputError, match=f"{name} {reason}") as raised:
            read_encoder(str(tmp_path / name), "resnet18")
        assert "weights_only" not in str(raised.value)


def test_a_finished_checkpoint_is_read_by_its_folder(resnet, tmp_path):
    body = resnet_files(resnet.state_dict())["previts encoder"]
    checkpoint, tubes = (folders.address(str(tmp_path), stage, "label", {}) for stage in ("checkpoints", "tubes"))
    for folder in (checkpoint, tubes):
        Path(folder).mkdir(parents=True)
        torch.save(body, Path(folder) / "encoder.pt")
        folders.commit(folder, {}, files=["encoder.pt"])
    state = read_encoder(checkpoint, "resnet18")
    torch.testing.assert_close(state, dict(body))
    with pytest.raises(InputError, match="is an output of stage 'tubes', not weights"):
        read_encoder(tubes, "resnet18")
