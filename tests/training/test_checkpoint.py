import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from tss.data.tasks import TUMOURS
from tss.errors import InputError
from tss.training.checkpoint import (
    KEYS,
    Parent,
    check_parent,
    load_checkpoint,
    load_model,
    prove_frozen,
    start_from,
    write_checkpoint,
)
from tss.training.phases import PAPER, build_model

GRID = [32, 32, 4]


def test_3d_phase_4_starts_as_phase_3s_function(tmp_path, made_up):
    parent = made_up(phase=3, model="3d")
    before = build_model("3d", 4, GRID, attention=False)
    before.load_state_dict(parent["state_dict"])
    after = build_model("3d", 4, GRID, attention=True)
    assert (
        start_from(after, Parent(tmp_path, parent)) == "58 tensors loaded, 11 (phase 4 adds the gates) new, 0 left over"
    )
    x = torch.rand(5, 3, 4, 32, 16)
    with torch.no_grad():
        assert (before.eval()(x) - after.eval()(x)).abs().max() <= 1e-6


def test_phase_1_takes_phase_0s_encoder_and_leaves_the_decoder(tmp_path, made_up):
    parent = made_up(phase=0, model="3d")
    write_checkpoint(tmp_path / "a.pt", parent)
    assert load_checkpoint(tmp_path / "a.pt")["threshold"] is None
    network = build_model("3d", 4, GRID, attention=False)
    assert start_from(network, Parent(tmp_path, parent)) == (
        "56 tensors loaded, 2 (phase 0 has none) new, 50 (the decoder is not needed to classify) left over"
    )
    assert all(
        torch.equal(tensor, parent["state_dict"][name])
        for name, tensor in network.state_dict().items()
        if name.startswith("encoder.")
    )
    extra = parent | {"state_dict": parent["state_dict"] | {"head.weight": torch.zeros(1)}}
    with pytest.raises(InputError, match="1 tensors left over, first head.weight"):
        start_from(network, Parent(tmp_path, extra))
    torch.save(parent | {"task": "stroke", "phase": 1}, tmp_path / "b.pt")  # no AUC where there should be one
    with pytest.raises(InputError, match="val_auc is None, not a finite number"):
        load_checkpoint(tmp_path / "b.pt")


def wanted(**changes):
    return {"model": "2d", "width": 4, "grid": GRID, "cohort": "c" * 64, **changes}


def test_round_trip_and_the_same_bytes_under_any_name(tmp_path, made_up):
    checkpoint = made_up()
    write_checkpoint(tmp_path / "a.pt", checkpoint)
    write_checkpoint(tmp_path / "other_name.pt", checkpoint)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "other_name.pt").read_bytes()
    again = load_checkpoint(tmp_path / "a.pt")
    assert set(again) == set(KEYS)
    tensors = again.pop("state_dict")
    assert again == {key: value for key, value in checkpoint.items() if key != "state_dict"}
    assert all(torch.equal(tensors[name], value) for name, value in checkpoint["state_dict"].items())
    network, _ = load_model(tmp_path / "a.pt")
    assert not network.training and torch.equal(network.backbone.conv1.weight, tensors["backbone.conv1.weight"])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_cut_short(tmp_path, share, made_up):
    write_checkpoint(tmp_path / "a.pt", made_up())
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError, match="cut.pt is cut short, damaged, or not a checkpoint. Copy it again"):
        load_checkpoint(tmp_path / "cut.pt")


def test_a_flipped_bit_in_a_weight_is_noticed(tmp_path, made_up):
    write_checkpoint(tmp_path / "a.pt", made_up())
    content = bytearray((tmp_path / "a.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(InputError, match="a.pt is damaged: the checksum of .*data/.* is wrong"):
        load_checkpoint(tmp_path / "a.pt")


class Code:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        return open, (str(self.trap), "w")


def test_code_in_a_checkpoint_is_not_run(tmp_path, made_up):
    trap = tmp_path / "run"
    torch.save(made_up(settings={"trap": Code(trap)}), tmp_path / "code.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Code(trap), protocol=2))
    with pytest.raises(InputError, match="code.pt holds more than tensors .* code .* Nothing of it was run"):
        load_checkpoint(tmp_path / "code.pt")
    with pytest.raises(InputError, match="bare.pt is cut short, damaged, or not a checkpoint"):
        load_checkpoint(tmp_path / "bare.pt")
    assert not trap.exists()


def test_files_of_other_programs(tmp_path, made_up):
    (tmp_path / "text.pt").write_text("epoch,auc\n1,0.5\n")
    torch.save(made_up()["state_dict"], tmp_path / "weights.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with zipfile.ZipFile(tmp_path / "book.zip", "w") as book:
        book.writestr("page", "text")
    with pytest.raises(InputError, match="text.pt is cut short, damaged, or not a checkpoint"):
        load_checkpoint(tmp_path / "text.pt")
    with pytest.raises(InputError, match="book.zip is a zip file, but not a checkpoint"):
        load_checkpoint(tmp_path / "book.zip")
    for name in ("weights.pt", "list.pt"):
        with pytest.raises(InputError, match=f"{name} is not a checkpoint of this suite: it has no 'format'"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(InputError, match="none.pt cannot be read: No such file"):
        load_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match="cannot be read: it is a folder, not a file"):
        load_checkpoint(tmp_path)


def test_missing_keys_and_other_formats(tmp_path, made_up):
    checkpoint = made_up() | {"width": "wide"}
    del checkpoint["threshold"]
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: width is 'wide', not a whole number"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save(made_up(format="tss checkpoint 9"), tmp_path / "b.pt")
    with pytest.raises(InputError, match="b.pt has the format 'tss checkpoint 9', this version reads 'tss check"):
        load_checkpoint(tmp_path / "b.pt")
    torch.save(made_up() | {"width": 8}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="c.pt: its tensors do not match its own description"):
        load_model(tmp_path / "c.pt")


def test_phase_4_starts_as_phase_3s_function(tmp_path, made_up):
    parent = made_up(phase=3)
    for name, tensor in parent["state_dict"].items():  # BatchNorm as after training
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
    before = build_model("2d", 4, GRID, attention=False)
    before.load_state_dict(parent["state_dict"])
    torch.manual_seed(9)
    after = build_model("2d", 4, GRID, attention=True)
    assert start_from(after, Parent(tmp_path, parent)) == (  # new: theta, phi with bias, psi with bias
        "123 tensors loaded, 6 (phase 4 adds the gates) new, 0 left over"
    )
    x = torch.rand(5, 3, 4, 32, 16)
    with torch.no_grad():
        assert (before.eval()(x) - after.eval()(x)).abs().max() <= 1e-6
    assert after.gate_classifier.weight.abs().max() == 0
    after(x).sum().backward()
    assert (after.gate_classifier.weight.grad != 0).sum() > 8  # zero, but free to move


@pytest.mark.parametrize("model", ["2d", "3d"])
def test_phase_2_has_a_classifier_of_its_own_and_phase_3_that_of_phase_2(tmp_path, made_up, model):
    for phase, kept in ((1, False), (2, True)):
        parent = made_up(phase=phase, model=model)
        torch.manual_seed(9)
        network = build_model(model, 4, GRID, attention=False)
        drawn = network.classifier.weight.clone()  # as behind random weights of the same seed
        said = start_from(network, Parent(tmp_path, parent))
        assert ("2 (phase 1 has another task) new" in said) != kept
        given = parent["state_dict"]["classifier.weight"]
        assert torch.equal(network.classifier.weight, given if kept else drawn)
        assert network.classifier.weight.abs().min() > 0  # at zero no gradient would pass back to the layers


def test_everything_unexpected_stops_the_start(tmp_path, made_up):
    network = build_model("2d", 4, GRID, attention=False)
    parent = made_up(phase=2)
    assert start_from(network, Parent(tmp_path, parent)) == "123 tensors loaded, 0 new, 0 left over"
    extra = parent | {"state_dict": parent["state_dict"] | {"head.weight": torch.zeros(1)}}
    with pytest.raises(InputError, match="1 tensors left over, first head.weight"):
        start_from(network, Parent(tmp_path, extra))
    less = parent | {"state_dict": {k: v for k, v in parent["state_dict"].items() if k != "slice_logits"}}
    with pytest.raises(InputError, match="1 tensors missing, first slice_logits"):
        start_from(network, Parent(tmp_path, less))
    short = parent | {"state_dict": parent["state_dict"] | {"slice_logits": torch.zeros(3)}}
    with pytest.raises(InputError, match="1 tensors of another shape, first slice_logits"):
        start_from(network, Parent(tmp_path, short))
    with_gate = build_model("2d", 4, GRID, attention=True)
    says_gated = made_up(attention=True)
    del says_gated["state_dict"]["gate.psi.bias"]
    with pytest.raises(InputError, match="1 tensors missing, first gate.psi.bias"):
        start_from(with_gate, Parent(tmp_path, says_gated))


OF_TUMOURS = {"phase": None, "task": TUMOURS["2d"], "name": "tumours"}


@pytest.mark.parametrize(("phase", "parent", "this_run", "message"), [
    (3, {"phase": 1}, {}, r"phase 3 starts from a checkpoint of phase 2 \(tss<3h\). a.pt was written by phase 1"),
    (1, {"phase": 2}, {}, "phase 1 starts from random weights; omit --init. a.pt was written by phase 2"),
    (1, {"phase": 2, "model": "3d"}, {"model": "3d"}, r"starts from a checkpoint of phase 0 \(restore\). a.pt was wri"),
    (0, {"phase": 1, "model": "3d"}, {"model": "3d"}, "phase 0 starts from random weights; omit --init. a.pt"),
    (2, {}, {"width": 64}, "a.pt has width 4, this run has 64"),
    (2, {}, {"model": "3d"}, "a.pt has model 2d, this run has 3d"),
    (2, {}, {"grid": [224, 224, 26]}, r"a.pt has grid \[32, 32, 4\], this run has \[224, 224, 26\]"),
    (2, {"recipe": "extended"}, {}, "a.pt was trained by --recipe extended, this run has --recipe paper"),
    (2, {"settings": {"fold": "1/2"}}, {}, "a.pt was trained with --fold 1/2, this run has no --fold"),
    (2, {}, {"settings": {"fold": "2/5"}}, "a.pt was trained with no --fold, this run has --fold 2/5"),
    (4, OF_TUMOURS, {}, r"a.pt was trained on tumours, for phases 2 and 3 .* Phase 4 does not start from it"),
    (2, {}, {"cohort": "d" * 64}, r"another split of patients \(cccccccccccc\) than --data has \(dddddddddddd\)"),
])  # fmt: skip
def test_a_parent_that_does_not_belong_is_refused(phase, parent, this_run, message, made_up):
    with pytest.raises(InputError, match=message):
        check_parent(
            Parent(Path("a.pt"), made_up(model=parent.get("model", "2d")) | parent),
            PAPER[phase],
            wanted(**this_run),
            {"p9": []},
        )


def test_the_proof_notices_a_single_bit(tmp_path, made_up):
    parent = made_up()
    names = ["backbone.bn1.running_var", "backbone.bn1.num_batches_tracked", "backbone.conv1.weight"]
    write_checkpoint(tmp_path / "same.pt", parent)
    prove_frozen(tmp_path / "same.pt", names, Parent(tmp_path, parent))
    moved = {name: tensor.clone() for name, tensor in parent["state_dict"].items()}
    moved["backbone.bn1.num_batches_tracked"] += 1
    write_checkpoint(tmp_path / "moved.pt", parent | {"state_dict": moved})
    with pytest.raises(AssertionError, match="moved.pt: frozen tensors changed: backbone.bn1.num_batches_tracked"):
        prove_frozen(tmp_path / "moved.pt", names, Parent(tmp_path, parent))
    for bit in (0, 31):  # the last of a float's digits, and the sign of a zero
        flipped = {name: tensor.clone() for name, tensor in parent["state_dict"].items()}
        of_which = "backbone.conv1.weight" if bit == 0 else "backbone.bn1.running_mean"
        flipped[of_which].view(torch.int32)[(0,) * flipped[of_which].ndim] ^= -(2**31) if bit == 31 else 1
        write_checkpoint(tmp_path / "flipped.pt", parent | {"state_dict": flipped})
        with pytest.raises(AssertionError, match=f"frozen tensors changed: {of_which}"):
            prove_frozen(tmp_path / "flipped.pt", [*names, "backbone.bn1.running_mean"], Parent(tmp_path, parent))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_single_weight_that_is_no_number_is_refused(tmp_path, made_up, value):
    checkpoint = made_up()
    checkpoint["state_dict"]["backbone.conv1.weight"][0, 0, 0, 0] = value
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: tensor backbone.conv1.weight has values that are NaN or infinite"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"threshold": 5.0}, "threshold is 5.0, not between 0 and 1"),
        ({"threshold": -1}, "threshold is -1, not between 0 and 1"),
        ({"threshold": float("nan")}, "threshold is nan, not a finite number"),
        ({"grid": [32, 32]}, r"grid is \[32, 32\], not a list of 3"),
        ({"width": True}, "width is True, not a whole number"),
        ({"recipe": "mine"}, "recipe is 'mine', not one of extended, paper"),
        ({"task": "tss<3h"}, "phase 1 is not of task tss<3h"),
        ({"width": 4096}, "its tensors do not match its own description"),
        ({"settings": {"preprocessing": {"grid": "x"}}}, "settings.preprocessing.grid is 'x', not a list of 3"),
        ({"patients_seen": {"p1": [1]}}, r"patients_seen.p1\[0\] is 1, not text"),
        ({"state_dict": {"a": [1.0]}}, "state_dict.a is"),
    ],
)
def test_a_checkpoint_is_checked_where_it_is_read(tmp_path, made_up, changed, said):
    torch.save(made_up() | changed, tmp_path / "a.pt")
    with pytest.raises(InputError, match=f"a.pt: {said}"):
        load_checkpoint(tmp_path / "a.pt")


def test_phase_1_may_start_from_a_phase_0_of_either_recipe_and_phase_2_from_tumours(made_up):
    restored = made_up(phase=0, model="3d", recipe="extended")
    check_parent(Parent(Path("a.pt"), restored), PAPER[1], wanted(model="3d"), {"p9": []})
    check_parent(Parent(Path("a.pt"), made_up() | OF_TUMOURS), PAPER[2], wanted(), {"p9": []})


@pytest.mark.parametrize(
    "tensor",
    [torch.eye(4).to_sparse(), torch.eye(4).to(torch.complex64), torch.eye(4).to("meta")],
    ids=["sparse", "complex", "meta"],
)
def test_a_tensor_of_another_kind_is_refused(tmp_path, made_up, tensor):
    checkpoint = made_up()
    checkpoint["state_dict"]["classifier.weight"] = tensor
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: tensor classifier.weight is sparse, quantised, complex or without val"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_of_another_precision_are_refused(tmp_path, made_up):
    checkpoint = made_up()
    checkpoint["state_dict"]["classifier.bias"] = checkpoint["state_dict"]["classifier.bias"].double()
    torch.save(checkpoint, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: its tensors do not match its own description .*, first classifier.bia"):
        load_checkpoint(tmp_path / "a.pt")


def test_gates_in_a_phase_that_has_none_are_refused(tmp_path, made_up):
    torch.save(made_up(phase=3, attention=True), tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: phase 3 is not of task tss<4.5h with attention True"):
        load_checkpoint(tmp_path / "a.pt")
