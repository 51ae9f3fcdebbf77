"""training.convert.advice: what to do about each version that is broken on purpose."""

import shutil
from pathlib import Path

import pytest

from service.contract import spec
from service.errors import ModelRefused
from service.models.checklist import CHECKS, NAMES
from service.models.preparing import Preparation
from service.models.refusals import refusal_of
from tests import contract2
from tests.service.models.test_broken_versions import BROKEN, CHOICES, NETS
from training.convert.admission import Check
from training.convert.advice import advice_on

# Words of the advice on each of the broken versions; those that are not listed get that of their check.
EXPECTED = {
    "hash of an edited graph": "model.onnx is not the file that the version was written with",
    "hash of an edited tokenizer": "set its hash in files of model.json to",
    "window shorter than the examples": "golden examples of a network with a window are whole windows",
    "tolerance that hides anything": "a tolerance above a tenth of the largest output",
    "name of another folder": "rename the folder",
    "tokenizer without a word": "different vocabularies",
    "tokenizer that pads": "tokenizer.no_padding()",
    "words swapped": "the tokenizer splits the text otherwise",
    "scale one percent off": "StandardScaler: mean_ and scale_",
    "columns swapped": "compare the order of the columns",
    "window at the other side": "the side and value of the window's padding",
    "window of another padding": "the side and value of the window's padding",
    "file that is no graph": "export the graph again",
    "custom operator": "ONNX's own operators",
    "external data": "put the weights into the graph",
    "opset of the future": "opset_version=17",
    "no recurrent node": "unrolled to a fixed number of steps",
    "batch fixed": "dynamic_axes",
    "time fixed": "dynamic_axes",
    "lengths where none are taken": "set padding in model.json to lengths",
    "no lengths where some are": "padding none",
    "first states that are not finite": "logarithm or division of zero",
    "lstm gates in another order": "gates in PyTorch's order",
    "gru reset of the other kind": "linear_before_reset",
    "head one percent off": "look for other weights",
    "head that is not a number": "numbers that are not finite",
    "states that grow beyond all numbers": "numbers that are not finite",
    "state dropped": "a state that is not carried",
    "direction flipped": "a bidirectional layer",
    "lengths ignored": "sequence_lens",
    "lengths ignored, whole": "mask it by lengths, or set padding to none",
    "graph that fails with many rows": "a batch size is baked in",
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One version a network. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("exported")
    for net in NETS:
        contract2.export(net, folder)
    return folder


def failed(folder: Path) -> Check:
    """Return the check that refuses a version."""
    with pytest.raises((spec.SpecError, ModelRefused)) as refused:
        Preparation(CHOICES).run(folder)
    refusal = refusal_of(refused.value)
    expected, found, place = (refusal.details.get(name, "") for name in ("expected", "found", "place"))
    return Check(refusal.check, "", "failed", {}, refusal.text, expected, found, place)


@pytest.mark.parametrize(("name", "words"), EXPECTED.items(), ids=EXPECTED)
def test_advice_fits_what_is_wrong(exported: Path, tmp_path: Path, name: str, words: str) -> None:
    broken = BROKEN[name]
    folder = shutil.copytree(exported / broken.net.name / "1", tmp_path / broken.net.name / "1")
    broken.by(folder)
    advice = advice_on(failed(folder))
    assert words in advice
    assert "{" not in advice


@pytest.mark.parametrize("name", NAMES)
def test_every_check_has_advice_whatever_it_found(name: str) -> None:
    check = Check(name, "", "failed", text="something", expected="one thing", found="another")
    assert not advice_on(check).startswith("report it")


def golden(found: str, advice: str = "") -> Check:
    expected = "outputs of example 0, step 4, alone, within 0.0001 of the golden ones"
    text = f"check 'golden' failed: expected {expected}, found {found} off"
    return Check("golden", "", "failed", text=text, expected=expected, found=f"{found} off{advice}")


def test_small_difference_is_taken_for_rounding_and_a_large_one_is_not() -> None:
    assert advice_on(golden("0.0003")).startswith("the difference is 3.0 times the tolerance")
    assert "look for other weights" in advice_on(golden("0.3"))
    assert "not finite" in advice_on(golden("nan"))


TRIALS = [
    ("no end within that time", "SEQSERVE_ADMISSION_SECONDS"),
    ("more memory", "SEQSERVE_ADMISSION_BYTES"),
    ("its process ended by SIGKILL", "SEQSERVE_ADMISSION_BYTES"),
    ("its process ended by SIGSEGV", "onnxruntime crashed"),
]


@pytest.mark.parametrize(("found", "words"), TRIALS)
def test_trial_that_was_ended_needs_more_of_what_ended_it(found: str, words: str) -> None:
    expected = "a version that loads and answers its golden examples within 60 s and 4294967296 bytes"
    check = Check("trial", CHECKS[-1].proves, "failed", text="", expected=expected, found=found)
    assert words in advice_on(check)
