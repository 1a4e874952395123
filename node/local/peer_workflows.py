"""The workflows of one running peer, put together: kept, run, shown to others, and followed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from node.asking.record_files import RecordFiles
from node.ingest.http_post import HttpPoster
from node.ingest.owned import OwnedSources
from node.local.control import Command
from node.local.workflow_commands import WorkflowCommands
from node.local.workflow_steps import PeerSteps
from node.peer import Node
from node.workflows.feed_calls import PeerFeedCalls
from node.workflows.feed_role import FeedRole
from node.workflows.following import FeedFollower
from node.workflows.keeper import KeeperSeams, open_workflows
from wire.feed import AskFeed


@asynccontextmanager
async def open_peer_workflows(node: Node, poster: HttpPoster) -> AsyncIterator[dict[str, Command]]:
    """Run a peer's workflows until the block ends; the commands about them, by name."""
    dependencies = node.dependencies
    async with trio.open_nursery() as nursery:
        calls = PeerFeedCalls(
            node.peers,
            node.blobs,
            dependencies.store,
            RecordFiles(node.config.state / "receipts"),
            node.note,
        )
        wall_s = dependencies.environment.wall_s
        follower = FeedFollower(
            node.peers.me, calls, dependencies.store, wall_s, nursery, node.note
        )
        seams = KeeperSeams(
            key=dependencies.key,
            store=dependencies.store,
            wall_s=wall_s,
            steps=PeerSteps(node, follower),
            owned=OwnedSources(node.config.state),
            poster=poster,
            calls=calls,
            note=node.note,
        )
        follower.resume()
        async with open_workflows(seams) as keeper:
            node.peers.handlers[AskFeed] = FeedRole(keeper).on_ask_feed
            node.status_sources["workflows"] = keeper.statistics
            yield WorkflowCommands(keeper, follower).commands()
        del node.peers.handlers[AskFeed]
        nursery.cancel_scope.cancel()
