"""How long runs took, by figure and by the time that a reader has."""

from types import SimpleNamespace

from dcil.lab.tables import device_hours
from tests.lab.fakes import changed, fake_run

RECORDS = [fake_run("ste", 0, 80.0), changed(fake_run("dcil", 0, 81.0), "cost", time_s=7200.0, mem_mib=1234.6)]
PLANNED = [SimpleNamespace(run_id="ste-0-aaaa", serves=("chapter 4", "chapter 9")),
           SimpleNamespace(run_id="dcil-0-aaaa", serves=("chapter 9",)),
           SimpleNamespace(run_id="gmp-0-aaaa", serves=("chapter 9", "chapter 8"))]  # fmt: skip


def test_by_figure():
    """Runs made of those asked for, hours summed, the largest memory; without a record it is not run."""
    table = device_hours.device_hours_table(PLANNED, RECORDS).set_index("figure or table")
    assert table.loc["chapter 9"].tolist() == ["2 of 3", "2.0", "1,235", "a CPU, 1 thread"]
    assert table.loc["chapter 4", "device-hours"] == "0.0"
    assert table.loc["chapter 8"].tolist() == ["0 of 1", "not run", "", ""]
    assert list(device_hours.device_hours_table([], []).columns) == device_hours.FIGURE_COLUMNS


def test_time_on_a_shared_device_is_no_measure():
    """Such runs are counted, but their hours are not summed and do not say what fits into a time."""
    packed = [changed(r, "cost", time_s=1.0, shared_by=6) for r in RECORDS]
    assert device_hours.device_hours_table(PLANNED, [RECORDS[1], packed[0]])["device-hours"].tolist() == [
        "1 shared",
        "2.0, 1 shared",
        "not run",
    ]
    table = device_hours.fitting_table([121], PLANNED, [RECORDS[0], packed[1]])
    assert table.iloc[0].tolist() == ["121", "CIFAR-10, ResNet-20, 1 epoch: STE", "chapter 4"]


def test_within():
    """A kind fits by its slowest record, a figure by all of its records, each once; a failed run is no measure."""
    slow = changed(fake_run("ste", 1, 80.0), "cost", time_s=9e9) | {"status": "failed"}
    table = device_hours.fitting_table([121, 0.5, 10, 1000], PLANNED, [*RECORDS, slow])
    assert table["one run of"].tolist() == [
        "none",
        "CIFAR-10, ResNet-20, 1 epoch: STE",
        "CIFAR-10, ResNet-20, 1 epoch: DCIL",
        "nothing more",
    ]
    assert table["all recorded runs of"].tolist() == ["none", "chapter 4", "chapter 9", "nothing more"]
