"""A SevenNet of one's own: what sevenn's training saves is read, as tensors alone, or refused."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
if importlib.util.find_spec("sevenn") is None:
    pytest.skip(
        "sevenn is not installed: pip install 'mlip-claims[sevennet]'", allow_module_level=True
    )

from harness.errors import ConfigError, ModelError  # noqa: E402
from harness.models import check_name, load_model, sevennet  # noqa: E402
from harness.models.cards import UNDECLARED  # noqa: E402
from harness.models.subjects import called  # noqa: E402
from tests.declared import assert_as_calculator  # noqa: E402
from tests.test_sevennet import ALL, CRYSTALS  # noqa: E402

SMALL = {  # a network as sevenn builds them, in little
    "channel": 4,
    "lmax": 1,
    "num_convolution_layer": 2,
    "cutoff": 4.0,
    "weight_nn_hidden_neurons": [8],
    "conv_denominator": [6.0, 6.0],
    "self_connection_type": "linear",
    "radial_basis": {"radial_basis_name": "bessel", "bessel_basis_num": 4},
    "cutoff_function": {"cutoff_function_name": "poly_cut", "poly_cut_p_value": 6},
}
SYMBOLS = {8: "O", 12: "Mg", 14: "Si", 22: "Ti", 29: "Cu", 38: "Sr"}
CHANNELS = {"PBE": 0, "r2SCAN": 1}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(path: Path, *, channels: bool = False, seed: int = 0, **settings: Any) -> Path:
    """What sevenn's trainer writes for a small network of random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sevenn
        from sevenn import _const
        from sevenn.model_build import build_E3_equivariant_model
        from sevenn.train.trainer import Trainer

        n = len(SYMBOLS)
        config = {
            **_const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG,
            **SMALL,
            "version": sevenn.__version__,
            "chemical_species": list(SYMBOLS.values()),
            "_number_of_species": n,
            "_type_map": {z: i for i, z in enumerate(SYMBOLS)},
            "shift": [[-3.0] * n, [-9.0] * n] if channels else [-3.0] * n,
            "scale": [1.5] * n,
            "use_modality": channels,
        }
        if channels:
            config |= {
                "_modal_map": CHANNELS,
                "_number_of_modalities": 2,
                "use_modal_wise_shift": True,
                "use_modal_wise_scale": False,
                "use_modal_output_block": True,
            }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_E3_equivariant_model(config | settings)
        trainer = Trainer(
            model=network,
            loss_functions=[],
            optimizer_cls=torch.optim.Adam,
            optimizer_args={"lr": 0.001},
            scheduler_cls=torch.optim.lr_scheduler.ExponentialLR,
            scheduler_args={"gamma": 0.99},
        )
        trainer.write_checkpoint(str(path), config=config | settings, epoch=3)
    return path


def changed(path: Path, change: Any) -> Path:
    """The file again with something done to what it holds."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def sevenns_own(path: Path, modal: str | None = None) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(str(path), device="cpu", modal=modal)


def test_numbers_are_those_of_sevenns_calculator(tmp_path):
    path = trained(tmp_path / "ft.pth")
    model = load_model(f"sevennet:{path}", "cpu")
    found = model.predict(CRYSTALS, ALL)
    assert_as_calculator(found, CRYSTALS, sevenns_own(path), stress_atol_gpa=1e-3)
    assert (model.identity.name, model.elements) == ("sevennet:ft.pth", frozenset(SYMBOLS))
    assert called(f"sevennet:{path}") == "sevennet:ft.pth"
    np.testing.assert_allclose(model.energies(CRYSTALS), found.energy, atol=2e-6)


def test_each_channel_is_a_subject(tmp_path):
    path = trained(tmp_path / "mf.pth", channels=True)
    first, second = (load_model(f"sevennet:{path}?modal={modal}", "cpu") for modal in CHANNELS)
    for subject, modal in ((first, "PBE"), (second, "r2SCAN")):
        assert subject.identity.name == f"sevennet:mf.pth?modal={modal}"
        found = subject.predict(CRYSTALS, ALL)
        assert_as_calculator(found, CRYSTALS, sevenns_own(path, modal), stress_atol_gpa=1e-3)
    assert first.identity.weights_sha256 == second.identity.weights_sha256
    assert first.identity.settings != second.identity.settings
    assert (first.energies(CRYSTALS) - second.energies(CRYSTALS) > 4).all()


def test_a_channel_is_named_where_there_are_some_and_nowhere_else(tmp_path):
    some, none = trained(tmp_path / "mf.pth", channels=True), trained(tmp_path / "ft.pth")
    with pytest.raises(ConfigError, match=r"mf\.pth has channels.*: modal=PBE or modal=r2SCAN"):
        load_model(f"sevennet:{some}", "cpu")
    with pytest.raises(ConfigError, match="no channel 'pbe': its channels are PBE, r2SCAN"):
        load_model(f"sevennet:{some}?modal=pbe", "cpu")
    with pytest.raises(ConfigError, match=r"ft\.pth has no channel 'PBE': it has none"):
        load_model(f"sevennet:{none}?modal=PBE", "cpu")


def test_whatever_moves_a_number_is_in_the_identity(tmp_path):
    def identity(name: str, **how: Any) -> Any:
        return load_model(f"sevennet:{trained(tmp_path / name, **how)}", "cpu").identity

    first = identity("a.pth")
    assert identity("a.pth") == first
    weights, cutoff = identity("a.pth", seed=1), identity("a.pth", cutoff=4.5)
    assert weights.weights_sha256 != first.weights_sha256
    assert cutoff.settings["network"] != first.settings["network"]


def test_published_weights_from_a_file_give_the_numbers_of_the_name(tmp_path):
    stock = load_model("sevennet-0", "cpu")
    own = load_model(f"sevennet:{sevennet._path('sevennet-0')}", "cpu")
    assert own.identity.weights_sha256 == stock.identity.weights_sha256
    np.testing.assert_array_equal(own.energies(CRYSTALS), stock.energies(CRYSTALS))


def test_weights_trained_on_another_backend_are_converted(tmp_path):
    """As sevenn does it: such a network lacks the convolutions of e3nn, and no parameter."""

    def of_flash(content: Any) -> None:
        content["config"]["use_flash_tp"] = True
        state = content["model_state_dict"]
        for key in [key for key in state if ".convolution." in key]:
            del state[key]

    plain = load_model(f"sevennet:{trained(tmp_path / 'plain.pth')}", "cpu")
    path = changed(trained(tmp_path / "flash.pth"), of_flash)
    converted = load_model(f"sevennet:{path}", "cpu")
    np.testing.assert_array_equal(converted.energies(CRYSTALS), plain.energies(CRYSTALS))
    key = "reduce_hidden_to_energy.linear.weight"
    says = f"lacks 1 of the network's parameters, first {key}, and they would stay random"
    changed(path, lambda content: content["model_state_dict"].pop(key))
    with pytest.raises(ModelError, match=says):
        load_model(f"sevennet:{path}", "cpu")


def test_what_is_declared_stands_on_the_card(tmp_path):
    path = trained(tmp_path / "ft.pth")
    silent = load_model(f"sevennet:{path}", "cpu").card
    assert (silent.theory, silent.dispersion, silent.source) == (UNDECLARED, "", "")
    query = "card.theory=PBE%20%2B%20D3&card.dispersion=D3(BJ)&card.elements=Cu,Mg,O"
    model = load_model(f"sevennet:{path}?{query}", "cpu")
    assert (model.card.theory, model.card.dispersion) == ("PBE + D3", "D3(BJ)")
    assert (model.card.source, model.card.properties) == ("its name", ALL)
    assert model.identity.settings["elements"] == "Cu,Mg,O"
    assert model.elements == model.card.elements == {8, 12, 29}
    assert model.predict(CRYSTALS).problems == {
        2: "Ti Sr not among the declared elements",
        3: "Si not among the declared elements",
    }
    with pytest.raises(ConfigError, match=r"the network of ft\.pth has no Na, Fe"):
        load_model(f"sevennet:{path}?card.elements=Fe,Na,O", "cpu")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("sevennet:", r"names no file. Write sevennet:PATH\?card.theory=PBE"),
        ("sevennet:a.pth?theory=PBE", "'theory' in .* means nothing; there are modal, card.elem"),
        ("sevennet:a.pth?card.colour=red", "declares nothing; there are card.elements, card.theo"),
        ("sevennet:a.pth?modal=a&modal=b", "'modal' is given twice"),
        ("sevennet:a.pth?card.elements=Xy", "'Xy' in 'Xy' is no element"),
    ],
)
def test_a_name_that_is_not_well_formed_is_refused_before_anything_is_read(name, says):
    with pytest.raises(ConfigError, match=says):
        check_name(name)


def test_settings_that_are_numbers_of_numpy_are_read(tmp_path):
    """sevenn's old checkpoints have arrays among them; a number alone is saved another way."""
    plain = trained(tmp_path / "plain.pth")
    content = torch.load(plain, weights_only=True)
    content["config"] |= {
        "scale": np.full(len(SYMBOLS), 1.5),
        "shift": np.full(len(SYMBOLS), -3, np.float32),
        "_number_of_species": np.int64(len(SYMBOLS)),
        "cutoff": np.float64(4.0),
    }
    torch.save(content, tmp_path / "numpy.pth")
    first, second = (
        load_model(f"sevennet:{path}", "cpu") for path in (plain, tmp_path / "numpy.pth")
    )
    np.testing.assert_array_equal(first.energies(CRYSTALS), second.energies(CRYSTALS))


class Loud:
    def __reduce__(self):
        return print, ("run",)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(f"sevennet:{path}", "cpu")
    return str(caught.value)


@pytest.mark.parametrize(
    ("held", "found"),
    [
        (b"", "EOFError: "),
        (b"hello", "KeyError: 101"),
        (pickle.dumps(Loud()), "UnpicklingError: Unsupported operand 149"),
        (Loud(), "UnpicklingError: Unsupported global: GLOBAL print was not an allowed global by"),
        ({"config": Loud()}, "UnpicklingError: Unsupported global: GLOBAL print"),
    ],
)
def test_what_is_no_file_of_tensors_is_not_run(tmp_path, capsys, held, found):
    path = tmp_path / "x.pth"
    path.write_bytes(held) if isinstance(held, bytes) else torch.save(held, path)
    words = refused(path)
    assert f"x.pth cannot be read as tensors alone ({found}" in words
    assert words.endswith("). Take a checkpoint as sevenn's training saves it.")
    assert "weights_only" not in words  # torch's advice to run it all the same
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ([1, 2], "x.pth holds a list, not a dictionary of weights"),
        ({}, "x.pth holds nothing, and no SevenNet: it needs config and model_state_dict"),
        ({"state_dict": {}, "model_args": {}}, "holds 'state_dict', 'model_args', and no SevenNet"),
        ({"config": {"version": "0.13.0"}, "model_state_dict": {}}, "holds another network than"),
        ({"config": {}, "model_state_dict": {}}, "holds another network than"),
    ],
)
def test_another_file_is_named_for_what_it_holds(tmp_path, held, says):
    torch.save(held, tmp_path / "x.pth")
    assert says in refused(tmp_path / "x.pth")


def test_a_file_that_is_not_there_is_said_to_be_absent(tmp_path):
    assert "there is no file" in refused(tmp_path / "none.pth")


def test_weights_of_another_shape_are_refused(tmp_path):
    path = changed(trained(tmp_path / "x.pth"), lambda content: content["config"].update(channel=8))
    assert "x.pth holds another network than sevenn" in refused(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_diverged_are_named(tmp_path, value):
    key = "reduce_input_to_hidden.linear.weight"

    def diverge(content: Any) -> None:
        content["model_state_dict"][key][0] = value

    path = changed(trained(tmp_path / "x.pth"), diverge)
    assert f"x.pth: {key} holds numbers that are not finite" in refused(path)
