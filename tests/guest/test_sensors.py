"""What a machine tells of its heat and its power, shown machines that the test made."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from node.guest.sensors import ASK_EVERY_S, SensorReading, Sensors


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / "sys/class" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def silent(_: Sequence[str]) -> None:
    return None


LAPTOP = {
    "thermal/thermal_zone0/temp": "61000\n",
    "hwmon/hwmon3/temp1_input": "72500\n",
    # Sensors that are not connected.
    "hwmon/hwmon3/temp2_input": "-273200\n",
    "hwmon/hwmon3/temp3_input": "255000\n",
    "power_supply/BAT0/type": "Battery\n",
    "power_supply/BAT0/capacity": "41\n",
    "power_supply/BAT0/status": "Discharging\n",
    "power_supply/BAT0/power_now": "12500000\n",
    "power_supply/AC/type": "Mains\n",
    "power_supply/AC/online": "0\n",
    # A mouse with a battery of its own.
    "power_supply/hidpp_battery_0/type": "Battery\n",
    "power_supply/hidpp_battery_0/scope": "Device\n",
    "power_supply/hidpp_battery_0/capacity": "5\n",
}


def test_a_laptop_on_its_battery(tmp_path: Path) -> None:
    sensors = Sensors(put(tmp_path, LAPTOP), silent)
    assert sensors.read() == SensorReading(
        celsius=72.5, watts=12.5, on_battery=True, battery_share=0.41, metered=None
    )
    put(tmp_path, {"power_supply/AC/online": "1\n"})
    assert sensors.read().on_battery is False


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert Sensors(tmp_path, silent).read() == SensorReading()
    mouse = {name: it for name, it in LAPTOP.items() if "hidpp" in name}
    assert Sensors(put(tmp_path, mouse), silent).read().on_battery is None


@pytest.mark.parametrize("text", ["", "hot", "1e9", "\0", "99" * 4000])
def test_what_is_no_figure_is_none(tmp_path: Path, text: str) -> None:
    files = {
        "thermal/thermal_zone0/temp": text,
        "power_supply/BAT0/type": "Battery",
        "power_supply/BAT0/capacity": text if not text.isdecimal() else "x",
    }
    found = Sensors(put(tmp_path, files), silent).read()
    assert (found.celsius, found.battery_share) == (None, None)


def test_the_processors_own_counter_counts_for_power(tmp_path: Path) -> None:
    clock = Clock()
    root = put(
        tmp_path,
        {
            "powercap/intel-rapl:0/energy_uj": "1000000\n",
            # A part of the package, which is counted in it.
            "powercap/intel-rapl:0:0/energy_uj": "500000\n",
        },
    )
    sensors = Sensors(root, silent, clock)
    assert sensors.read().watts is None
    clock.now_s = 2.0
    put(tmp_path, {"powercap/intel-rapl:0/energy_uj": "31000000\n"})
    assert sensors.read().watts == pytest.approx(15.0)
    # The counter began anew.
    clock.now_s = 3.0
    put(tmp_path, {"powercap/intel-rapl:0/energy_uj": "5\n"})
    assert sensors.read().watts is None


@pytest.mark.parametrize(
    ("said", "metered"),
    [("u 1\n", True), ("u 2\n", False), ("u 3\n", True), ("u 0\n", None), ("", None), (None, None)],
)
def test_the_network_manager_says_whether_the_way_out_is_metered(
    tmp_path: Path, said: str | None, metered: bool | None
) -> None:
    asked, clock = list[Sequence[str]](), Clock()

    def output_of(words: Sequence[str]) -> str | None:
        asked.append(words)
        return said

    sensors = Sensors(tmp_path, output_of, clock)
    assert sensors.read().metered is metered
    assert sensors.read().metered is metered
    assert len(asked) == 1
    clock.now_s = ASK_EVERY_S + 1
    sensors.read()
    assert len(asked) == 2
