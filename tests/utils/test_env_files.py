"""An env file says the same to us and to the shell that the published launchers `source` it with."""

import subprocess

import pytest

from tests.shared import SHARED, needs_shared
from utils.env_files import read_env_file
from utils.settings import load_settings, unused_keys
from utils.tools import UserError, read_json

LIKE_THE_SHELL = [
    *("A=1", 'A="x y" # c', "A='$HOME'", "A=$HOME/x", 'A="${HOME}"/x', "B=/d\nA=${B}/x", "A=a#b", "A=a # b"),
    *("A=${NO:-d}", 'A="${NO:-d e}"', r"A=a\ b", r'A="a\$b"', r"A=\$x", "export A=q", "A=", 'A=""', "A=\"a'b\""),
    *("A='a\"b'", 'A="two\nlines"', "  A=3  ", "A=${HOME-z}", 'A=a"b"c', "A=\"$HOME\"'$HOME'", "A=x\n# c\nB=$A"),
    *('A="#x"', "A=a\\\nb", "A=${HOME:-x}y", "A=''x", r'A="a\nb"', r'A="\\x"', "A=5$", 'A="5$"', "A=a$/b"),
    *("B=1\nB=2\nA=$B$B", "B=x\nA='${B}'\"${B}\"${B}", "\n\n#A=0\n\tA=7\n", "E=\nA=${E:-z}${E-y}"),
]


@pytest.mark.parametrize("text", LIKE_THE_SHELL)
def test_values_are_the_shells(tmp_path, text):
    file = tmp_path / "x.env"
    file.write_text(text)
    shell = subprocess.run(["bash", "-c", '. "$0"; printf %s "$A"', file], capture_output=True, text=True, check=True)
    assert read_env_file(file)[0]["A"] == shell.stdout


@pytest.mark.parametrize(
    "text, said",
    [
        ("SEED=1\nA=${NOWHERE}/x", "line 2: NOWHERE is not set"),
        ("A=$(rm -rf x)", "nothing is executed"),
        ("A=`date`", "nothing is executed"),
        ("A=${HOME%/*}", "nothing is executed"),
        ("A='open", "a quotation mark without its other one"),
        ('A=1\n\nB="open', "line 3: a quotation mark"),
        ("set -a", "line 1: not KEY=VALUE: set -a"),
        ("if true; then A=1; fi", "not KEY=VALUE"),
    ],
)
def test_what_is_not_read_is_said_with_its_line(tmp_path, text, said):
    (tmp_path / "x.env").write_text(text)
    with pytest.raises(UserError) as error:
        read_env_file(tmp_path / "x.env")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_helpers_need_not_be_settings_but_slips_are_found(tmp_path):
    file = tmp_path / "x.env"
    file.write_bytes(f"\ufeffROOT={tmp_path}\r\nROOT_PATH_ECG=${{ROOT}}\r\n".encode())
    assert load_settings("pretrain", [str(file)]).root_path_ecg == (str(tmp_path),)
    assert unused_keys("pretrain", [str(file)]) == []
    file.write_text("BATCHSIZE=3\n")
    with pytest.raises(UserError, match="unknown setting BATCHSIZE; did you mean BATCH_SIZE"):
        load_settings("pretrain", [str(file)])


def test_a_file_with_an_equals_sign_in_its_path_is_an_env_file(tmp_path, monkeypatch):
    (tmp_path / "lr=1e-4").mkdir()
    (tmp_path / "lr=1e-4/x.env").write_text("TRAIN_EPOCHS=2\nLEARNING_RATE=1\n")
    monkeypatch.chdir(tmp_path)
    for path in ("lr=1e-4/x.env", str(tmp_path / "lr=1e-4/x.env")):
        settings = load_settings("pretrain", [path, "BATCH_SIZE=9"])
        assert (settings.train_epochs, settings.batch_size) == (2, 9)
        assert unused_keys("eval", [path]) == ["LEARNING_RATE", "TRAIN_EPOCHS"]
    with pytest.raises(UserError, match=r"lr=1e-4/y.env: no such env file"):
        load_settings("pretrain", ["lr=1e-4/y.env"])


def test_the_launchers_know_such_a_file_too(tmp_path):
    """Else they put their default env file beside it, and two are one too many."""
    (tmp_path / "lr=1").mkdir()
    (tmp_path / "lr=1/x.env").write_text("SEED=5\n")
    script = "source utils/launch.sh; PYTHON=echo; make_demo_data_if_asked() { echo $@; }; run_stage x pretrain d.env"
    for words, given in ((["lr=1/x.env"], True), (["SEED=1"], False), (["other.env"], True)):
        words = [str(tmp_path / word) if "/" in word else word for word in words]
        said = subprocess.run(["bash", "-c", f'{script} "$@"', "x", *words], capture_output=True, text=True)
        assert ("d.env" not in said.stdout.splitlines()[0]) == given, said


@needs_shared
def test_examples():
    cases = SHARED / "cases"
    assert read_env_file(cases / "21-env-variables/interp_own.env")[0]["ROOT_PATH_ECG"] == "/data/x"
    assert load_settings("pretrain", [str(cases / "21-env-variables/interp_home.env")]).root_path_ecg
    assert load_settings("pretrain", [str(cases / "22-env-path-with-equals/lr=1e-4/x.env")]).train_epochs == 2
    assert read_json(cases / "24-json-bom/bom.json")[0]["filepath"] == "r0"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_in_the_encodings_of_other_systems(tmp_path, encoding):
    (tmp_path / "x.json").write_bytes('[{"report": "Größe µV"}]'.encode(encoding))
    assert read_json(tmp_path / "x.json") == [{"report": "Größe µV"}]
    (tmp_path / "x.json").write_bytes(b'[{"report": "\xff"}]')
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(tmp_path / "x.json")
