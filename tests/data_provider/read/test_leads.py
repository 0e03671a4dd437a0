"""A lead that is not known by its name refuses a good file; one that is taken for another spoils all that follows."""

import numpy as np
import pytest

from data_provider.read import LEADS, RecordError, choose_leads, read_record, standard_name
from tests.wfdb_maker import ecg, write_record

WAYS = {
    "ECG Lead {}": LEADS,
    "ECG lead {}": LEADS,
    "EKG {}": LEADS,
    "EKG-{}": LEADS,
    "Lead-{}": LEADS,
    "Lead_{}": LEADS,
    "lead {}": LEADS,
    "LEAD{}": LEADS,
    "{} (mV)": LEADS,
    "{} [uV]": LEADS,
    "{}_mV": LEADS,
    "{} (µV)": LEADS,
    "MDC_ECG_LEAD_{}": LEADS,
    "ecg_{}": LEADS,
    "+{}": LEADS,
    "{}.": LEADS,
    "'{}'": LEADS,
    " {} ": LEADS,
    "ECG {}-REF": LEADS,
    "{} lead": LEADS,
    "Ableitung {}": LEADS,
    "D{}": LEADS[:3],
    "Lead {} (Einthoven)": LEADS[:3],
}
OTHERS = "-aVR;Lead -aVR;MDC_ECG_LEAD_-AVR;aVR inverted;MLII;ML II;V4R;V3R;V7;V0;V10;Lead 1;I II;I-II;I/II;;ECG;Lead"
OTHERS += ";time;V;mV;(mV);X;VX;VR;EEG C3-A2;C3-A2;V1V2;V1-V2;IIII;D4;C7;I_2;II_2;aV;R;1;ECG 1;MCL1;resp;pleth;aVR aVL"


@pytest.mark.parametrize("way", WAYS)
def test_leads_are_known_however_they_are_written(way):
    for change in (str, str.upper, str.lower):
        assert [standard_name(way.format(change(lead))) for lead in WAYS[way]] == list(WAYS[way])


def test_names_of_other_countries():
    assert [standard_name(name) for name in ("D1", "D2", "D3", "DI", "D II", "DIII")] == ["I", "II", "III"] * 2
    assert [standard_name(f"C{number}") for number in range(1, 7)] == list(LEADS[6:])
    assert [standard_name(name) for name in ("Ⅰ", "Ⅱ", "Ⅲ", "Ｖ１", "a V R", "V 1", "V01")] == [
        *("I", "II", "III", "V1", "aVR", "V1", "V1")
    ]


@pytest.mark.parametrize("name", OTHERS.split(";"))
def test_what_is_another_signal_stays_one(name):
    assert standard_name(name) is None


def test_unknown_names_are_listed():
    with pytest.raises(ValueError, match=r"no lead V6 among .* \(not known as leads: MCL1, resp\)"):
        choose_leads([*LEADS[:11], "MCL1", "resp"])
    with pytest.raises(ValueError, match="and 60 more"):
        choose_leads([f"ch{number}" for number in range(100)])


def test_an_electrode_on_the_head_is_no_second_chest_lead():
    assert choose_leads([*LEADS, "C3", "C4"]) == {lead: row for row, lead in enumerate(LEADS)}
    with pytest.raises(ValueError, match="V3 is there twice"):
        choose_leads([*LEADS, "ECG V3"])


@pytest.mark.parametrize("way", ["ECG Lead {}", "{} (mV)", "EKG {}"])
def test_a_record_with_such_names_is_read(tmp_path, way):
    path = write_record(tmp_path / "r", ecg(), leads=[way.format(lead) for lead in LEADS])
    record = read_record(path)
    np.testing.assert_array_equal(record.signal, (ecg() / 1000).astype(np.float32))
    assert record.notes == ()
    path = write_record(tmp_path / "s", ecg(), leads=[*(f"D{lead}" for lead in LEADS[:3]), *LEADS[3:]])
    np.testing.assert_array_equal(read_record(path).signal, (ecg() / 1000).astype(np.float32))
    with pytest.raises(RecordError, match="no lead I, .*not known as leads|no lead I, .* among ch0"):
        read_record(write_record(tmp_path / "t", ecg(), leads=[f"ch{number}" for number in range(12)]))
