"""Which accounts may belong to one owner: those in a cycle of transfers. Pure.

Who pays himself has to bring the credits back to where they began, and then they went round. Two
honest accounts that pay each other are taken for one owner as well, so what is left after the
discount is the least that it can be. Credits that come back outside of the ledger are not seen.
"""

from collections.abc import Collection, Iterable


def owners_of(
    accounts: int, edges: Iterable[tuple[int, int]], markets: Collection[int] = ()
) -> list[int]:
    """The owner of each account, named by one of his accounts.

    `edges` are pairs (from, to) between which credits moved. `markets` are accounts that are known
    to buy from many and sell to many: nobody is taken for another's owner because of them.
    """
    following: list[list[int]] = [[] for _ in range(accounts)]
    for source, target in set(edges):
        if source != target and source not in markets and target not in markets:
            following[source].append(target)
    return _strongly_connected(following)


def _strongly_connected(following: list[list[int]]) -> list[int]:
    """Tarjan's components without recursion: a ring may be as long as there are accounts."""
    count = len(following)
    order, low, owner = [-1] * count, [0] * count, [-1] * count
    stack: list[int] = []
    entered = 0
    for root in range(count):
        if order[root] >= 0:
            continue
        order[root] = low[root] = entered
        entered += 1
        stack.append(root)
        path = [(root, iter(following[root]))]
        while path:
            here, ahead = path[-1]
            step = next(ahead, None)
            if step is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[here])
                if low[here] == order[here]:
                    _close(stack, here, owner)
            elif order[step] < 0:
                order[step] = low[step] = entered
                entered += 1
                stack.append(step)
                path.append((step, iter(following[step])))
            elif owner[step] < 0:
                low[here] = min(low[here], order[step])
    return owner


def _close(stack: list[int], root: int, owner: list[int]) -> None:
    """Everything above `root` on the stack is one component with it."""
    while True:
        member = stack.pop()
        owner[member] = root
        if member == root:
            return
