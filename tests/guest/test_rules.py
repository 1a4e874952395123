"""A guest on its owner's machine: hours, shares, and stepping back when the owner comes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from node.commands.guest_options import chosen_device
from node.engines.host import model_worker
from node.engines.host.engine import open_tinygrad_engine
from node.engines.host.launch import EngineConfig
from node.engines.interface import Job
from node.guest.machine_use import CpuUse, GpuUse
from node.guest.rules import (
    BUSY_S,
    CALM_S,
    GuestConfig,
    OwnerPolicy,
    Schedule,
    Seen,
    device_of,
    gpus_of,
    share_of,
)
from node.local.guest_watch import MachineLook, watch_owner
from node.models.opening_engines import machines_gpu, memory_budget_bytes, worker_configs
from tests.engines.tiny import texts, write_tiny
from tests.node.asking import asked, request, texts_of
from tests.node.engines import Counted
from tests.node.network import I, S, V, open_network
from wire.errors import InputError
from wire.kinds import Level, Role


def test_a_schedule_goes_over_midnight() -> None:
    night, day = Schedule.parse("22:00-08:00"), Schedule.parse("9:30-17:00")
    assert [it in night for it in (0, 479, 480, 1319, 1320, 1439)] == [
        True,
        True,
        False,
        False,
        True,
        True,
    ]
    assert [it in day for it in (569, 570, 1019, 1020)] == [False, True, True, False]
    assert all(it in Schedule.parse("00:00-24:00") for it in (0, 1439))
    assert 1439 in Schedule.parse("20:00-24:00")
    assert str(night) == "22:00-08:00"


@pytest.mark.parametrize(
    "text",
    ["", "22-8", "25:00-08:00", "22:00", "22:60-08:00", "08:00-08:00", "20:00-24:01"],
)
def test_what_is_no_part_of_a_day_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--schedule"):
        Schedule.parse(text)


def test_options_that_make_no_sense_are_refused() -> None:
    assert share_of("50%") == 0.5
    assert gpus_of("0, 1") == (0, 1)
    for text in ("", "half", "-5%", "1e3"):
        with pytest.raises(InputError):
            share_of(text)
    for text in ("", "a", "0,,1", "-1", "99999"):
        with pytest.raises(InputError):
            gpus_of(text)
    for wrong in (
        {"cpu_share": 0.0},
        {"cpu_share": 1.5},
        {"gpus": (0, 0), "vram_bytes": 1},
        {"gpus": (0,)},
        {"vram_bytes": 1},
        {"device": "cpu", "vram_bytes": 1},
        {"device": "cpu", "gpus": (0,)},
        {"device": "metal", "gpus": (1,)},
    ):
        with pytest.raises(InputError):
            GuestConfig(**wrong)


def test_a_device_is_a_name_and_perhaps_a_number() -> None:
    assert device_of("CUDA:1") == ("cuda", (1,))
    assert device_of("cl") == ("cl", ())
    assert device_of("cpu:0") == device_of("cpu") == ("cpu", ())
    for text in ("", "tpu", "cuda:", "cuda:x", "cuda:-1", "cl:1:2"):
        with pytest.raises(InputError):
            device_of(text)
    assert chosen_device("cuda", "0,1") == ("cuda", (0, 1))
    assert chosen_device(None, "2") == ("", (2,))
    with pytest.raises(InputError, match="both give a number"):
        chosen_device("cuda:1", "0")
    assert [GuestConfig(device=it).on_gpu for it in ("cpu", "cl", "")] == [False, True, False]
    # Only of these do drivers tell how busy the card of that number is.
    assert GuestConfig(device="amd", gpus=(1,)).watched_gpus == (1,)
    assert GuestConfig(device="cl", gpus=(1,)).watched_gpus == ()


def seen(cpu: float | None = 0.0, gpu: float | None = None, minute: int = 0) -> Seen:
    return Seen(minute=minute, cpu_share=cpu, gpu_share=gpu)


def test_the_owner_comes_first_but_a_moment_is_nothing() -> None:
    policy = OwnerPolicy(GuestConfig(pause_when_busy=True))
    assert policy.decide(seen(), 0) == ""
    assert policy.decide(seen(0.9), 2) == ""
    assert policy.decide(seen(0.1), 4) == ""
    assert policy.decide(seen(0.9), 6) == ""
    assert "machine" in policy.decide(seen(0.9), 6 + BUSY_S)
    assert "GPU" in policy.decide(seen(0.9, 0.5), 12)
    assert policy.decide(seen(0.1), 20)
    assert policy.decide(seen(0.9), 20 + CALM_S)
    assert policy.decide(seen(0.1), 100)
    assert policy.decide(seen(0.1), 99 + CALM_S)
    assert policy.decide(seen(0.1), 100 + CALM_S) == ""


def test_what_nobody_can_tell_is_no_reason_to_pause() -> None:
    policy = OwnerPolicy(GuestConfig(pause_when_busy=True))
    assert not any(policy.decide(seen(None), at) for at in range(0, 100, 2))
    assert not any(OwnerPolicy(GuestConfig()).decide(seen(1.0), at) for at in range(0, 100, 2))


def test_the_schedule_ends_work_at_its_minute() -> None:
    policy = OwnerPolicy(GuestConfig(schedule=Schedule.parse("22:00-08:00")))
    assert policy.decide(seen(minute=479), 0) == ""
    assert "22:00-08:00" in policy.decide(seen(minute=480), 1)
    assert policy.decide(seen(minute=1320), 2) == ""


@dataclass(slots=True)
class Told:
    """A machine as the test says it is."""

    now: Seen = field(default_factory=seen)

    async def __call__(self, *, resting: bool) -> Seen:
        return self.now


async def test_others_hear_of_a_pause_and_what_is_held_is_finished(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    async with open_network(tmp_path) as network:
        engine = Counted(unit_s=8.0)
        worker = await network.add(I, V, engine=engine)
        asker = await network.add(S)
        await network.settled()
        machine = Told(seen(minute=600))
        policy = OwnerPolicy(GuestConfig(schedule=Schedule.parse("10:00-11:00")))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_owner, worker, policy, machine)
            held = request(data=texts_of("held"), level=Level.SIGNED)
            nursery.start_soon(asked, asker, held)
            while not engine.calls:
                await trio.sleep(0.1)
            machine.now = seen(minute=660)
            with trio.fail_after(6):
                # Before the work is done.
                while not worker.leg_server.paused or advert_of(asker, worker).roles:
                    await trio.sleep(0.1)
            assert advert_of(asker, worker).models == ()
            assert advert_of(asker, worker).free_slots == 0
            while worker.leg_server.under_way:
                await trio.sleep(0.1)
            calls = engine.calls
            await trio.sleep(30)
            assert engine.calls == calls

            machine.now = seen(minute=600)
            with trio.fail_after(60):
                while not advert_of(asker, worker).plays(Role.INFER):
                    await trio.sleep(0.1)
            again = request(data=texts_of("again"), level=Level.SIGNED)
            assert (await asked(asker, again))[0].output
            nursery.cancel_scope.cancel()


def advert_of(seer: Any, other: Any) -> Any:
    signed = seer.peers.view.advert_of(other.peers.me)
    assert signed is not None
    return signed.record


def stat_line(parent: int, times: Sequence[int]) -> str:
    fields = ["S", str(parent), *"0" * 9, *map(str, times), "0"]
    return f"1 (a name) with) brackets) {' '.join(fields)}"


def machine(proc: Path, busy: int, idle: int, own: int, child: int, stranger: int) -> None:
    (proc / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 0\n")
    rows = {100: (1, own), 101: (100, child), 200: (1, stranger)}
    for process, (parent, ticks) in rows.items():
        (proc / str(process)).mkdir(exist_ok=True)
        (proc / str(process) / "stat").write_text(stat_line(parent, (ticks, 0, 0, 0)))


def test_our_own_work_is_not_the_owners(tmp_path: Path) -> None:
    use = CpuUse(tmp_path, 100)
    assert use.others() is None
    machine(tmp_path, busy=1000, idle=1000, own=100, child=200, stranger=50)
    assert use.others() is None
    machine(tmp_path, busy=1100, idle=1100, own=120, child=260, stranger=60)
    # A hundred of two hundred were busy, eighty of them with what is ours.
    assert use.others() == pytest.approx(0.1)
    assert use.own == {100, 101}
    machine(tmp_path, busy=1200, idle=1100, own=120, child=260, stranger=160)
    assert use.others() == pytest.approx(1.0)
    (tmp_path / "stat").write_text("what is this")
    assert use.others() is None


def test_a_gpu_without_processes_told_is_looked_at_while_we_rest(tmp_path: Path) -> None:
    card = tmp_path / "card1" / "device"
    card.mkdir(parents=True)
    (card / "gpu_busy_percent").write_text("40\n")
    use = GpuUse((1,), tmp_path, _nvml=False)
    assert use.others(frozenset(), resting=True) == pytest.approx(0.4)
    assert use.others(frozenset(), resting=False) is None
    assert GpuUse((7,), tmp_path, _nvml=False).others(frozenset(), resting=True) is None


def test_a_gpu_that_tells_processes_tells_others_from_us() -> None:
    samples = [
        SimpleNamespace(pid=100, timeStamp=5, smUtil=60),
        SimpleNamespace(pid=200, timeStamp=4, smUtil=90),
        SimpleNamespace(pid=200, timeStamp=6, smUtil=20),
    ]
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetHandleByIndex=lambda gpu: gpu,
        nvmlDeviceGetProcessUtilization=lambda _handle, since: [
            it for it in samples if it.timeStamp > since
        ],
    )
    use = GpuUse((0,), _nvml=nvml)
    assert use.others(frozenset({100}), resting=False) == pytest.approx(0.2)
    assert use.others(frozenset({100}), resting=False) == 0.0


def test_a_gpu_is_told_of_by_its_driver(tmp_path: Path) -> None:
    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlDeviceGetHandleByIndex=lambda gpu: gpu,
        nvmlDeviceGetName=lambda _handle: "H200",
        nvmlDeviceGetUtilizationRates=lambda _handle: SimpleNamespace(gpu=35),
        nvmlDeviceGetMemoryInfo=lambda _handle: SimpleNamespace(used=3, total=8),
    )
    told = {"name": "H200", "busy_share": 0.35, "used_bytes": 3, "size_bytes": 8}
    assert GpuUse((2,), _nvml=nvml).rows() == {"2": told}
    card = tmp_path / "card1" / "device"
    card.mkdir(parents=True)
    (card / "gpu_busy_percent").write_text("40\n")
    (card / "mem_info_vram_total").write_text("8000\n")
    use = GpuUse((1, 7), tmp_path, _nvml=False)
    assert use.rows() == {"1": {"busy_share": 0.4, "size_bytes": 8000}, "7": {}}


async def test_this_machine_can_be_looked_at() -> None:
    look = MachineLook(lambda: 1_800_000_000.0)
    assert 0 <= (await look(resting=True)).minute < 24 * 60


def test_each_gpu_has_a_worker_that_sees_it_alone() -> None:
    base = EngineConfig(device="CPU", memory_bytes_max=4 << 30)
    one, two = worker_configs(GuestConfig(gpus=(0, 3), vram_bytes=8 << 30), base)
    assert (one.kind, two.kind) == ("CUDA", "CUDA")
    assert one.environment["CUDA_VISIBLE_DEVICES"] == "0"
    assert two.environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert memory_budget_bytes(GuestConfig(gpus=(0,), vram_bytes=8 << 30), base) == 8 << 30
    # That much a model may take of it, and no more conversations than fit are begun.
    assert one.memory_bytes_max == 8 << 30
    (small,) = worker_configs(GuestConfig(memory_bytes=1 << 30, cpu_share=0.5), base)
    assert (small.device, small.memory_bytes_max, small.share) == ("CPU", 1 << 30, 0.5)
    assert small.niceness > 0
    (as_ever,) = worker_configs(GuestConfig(), base)
    assert as_ever == base


def test_every_device_is_what_tinygrad_calls_it() -> None:
    base = EngineConfig(device="CPU")

    def chosen(device: str, *numbers: int) -> list[tuple[str, int]]:
        configs = worker_configs(GuestConfig(device=device, gpus=numbers), base)
        return [(it.device, it.index) for it in configs]

    assert chosen("cpu") == [("CPU", 0)]
    assert chosen("cl") == [("CL", 0)]
    assert chosen("cl", 0, 2) == [("CL", 0), ("CL", 2)]
    assert chosen("webgpu") == [("WEBGPU", 0)]
    assert chosen("metal") == [("METAL", 0)]
    # AMD's cards are numbered by the way in to their driver, which is the only one taken.
    assert chosen("amd", 1) == [("KFD:1+AMD", 0)]
    assert chosen("amd") == [("KFD+AMD", 0)]
    assert chosen("cuda") == [("CUDA", 0)]
    (only,) = worker_configs(GuestConfig(device="cuda", gpus=(1,)), base)
    assert only.environment == {"CUDA_VISIBLE_DEVICES": "1"}
    # As with --memory, 4 GB unless more is allowed.
    assert only.memory_bytes_max == base.memory_bytes_max


def test_the_machines_gpu_is_the_one_whose_driver_is_there(tmp_path: Path) -> None:
    nvidia, amd = tmp_path / "nvidia", tmp_path / "kfd"
    assert machines_gpu(nvidia, amd, "linux") == "cuda"
    assert machines_gpu(nvidia, amd, "darwin") == "metal"
    amd.touch()
    assert machines_gpu(nvidia, amd, "linux") == "amd"
    nvidia.touch()
    assert machines_gpu(nvidia, amd, "linux") == "cuda"


@dataclass(slots=True)
class OneSecondWorker:
    """Takes a second for whatever it is asked; `began_at_s` is when it was."""

    running: bool = True
    id: int = 1
    began_at_s: list[float] = field(default_factory=list)

    async def ask(
        self,
        message: dict[str, Any],
        *,
        timeout_s: float,
        on_progress: object = None,
        on_question: object = None,
    ) -> dict[str, Any]:
        if message["do"] == "load":
            return {"memory_bytes": 1, "units_per_s": 8.0, "job_units_per_s": 8.0}
        self.began_at_s.append(trio.current_time())
        await trio.sleep(1.0)
        return {"done": [0], "data": bytes(64), "tokens": [3], "refused": []}

    async def wait(self) -> None:
        await trio.sleep_forever()


async def test_a_share_of_the_time_is_kept_and_told(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, files = write_tiny(tmp_path)
    config = EngineConfig(share=0.25)
    worker = OneSecondWorker()

    @asynccontextmanager
    async def open_worker(_launch: object) -> AsyncIterator[OneSecondWorker]:
        yield worker

    async def prepare(_folder: Path, _config: EngineConfig) -> object:
        await trio.lowlevel.checkpoint()
        return object()

    monkeypatch.setattr(model_worker, "open_worker", open_worker)
    monkeypatch.setattr(model_worker, "prepare", prepare)
    async with open_tinygrad_engine(tmp_path, config=config) as engine:
        assert (await engine.load(manifest, files)).units_per_s == 2.0
        job = Job(
            model=manifest.id,
            operation="embed",
            input=texts("a text"),
            parameters={},
            deadline_s=60.0,
        )
        for _ in range(3):
            await engine.infer(job)
        first, second, third = worker.began_at_s
        assert second - first == pytest.approx(4.0)
        assert third - second == pytest.approx(4.0)
