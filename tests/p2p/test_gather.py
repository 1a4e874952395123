"""Several items at once: all of them, no more at a time than is said, and one plain error."""

import pytest
import trio

from p2p.gather import gather
from wire.errors import TaskFailed


@pytest.mark.parametrize("kind", [list, iter])
async def test_every_item_is_worked_on_and_no_task_is_made_for_nothing(kind: type) -> None:
    done, living = list[int](), list[int]()
    before = trio.lowlevel.current_statistics().tasks_living

    async def work(item: int) -> None:
        living.append(trio.lowlevel.current_statistics().tasks_living - before)
        await trio.lowlevel.checkpoint()
        done.append(item)

    await gather(work, kind([1, 2, 3]), at_once=32)
    assert sorted(done) == [1, 2, 3]
    assert max(living) <= 3
    done.clear()
    living.clear()
    await gather(work, kind(range(20)), at_once=4)
    assert sorted(done) == list(range(20))
    assert max(living) <= 4
    await gather(work, kind([]))


async def test_the_first_error_ends_the_others() -> None:
    async def work(item: int) -> None:
        if item == 2:
            raise TaskFailed("two")
        await trio.sleep_forever()

    with pytest.raises(TaskFailed, match="two"):
        await gather(work, [1, 2, 3])
